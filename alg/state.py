"""Everything the gateway remembers beside the bytes of the message in hand.

Each keeper has state of one kind, its own deadlines, and rows for the store (`dialogs.rows`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from alg.dialogs.dialog import Calls, CallTimeouts
from alg.dialogs.invitation import Invitations
from alg.dialogs.registration import Registrations
from alg.dialogs.rows import Rows, standing_in
from alg.dialogs.subscription import Subscriptions
from alg.written import Written
from nat_table.binding import Binding
from nat_table.table import NatTable

MAX_EXPIRED = 100  # pinholes at a time, so that packets are looked after in between

log = logging.getLogger("sipnat.state")

RowKey = tuple[str, str]


class HostLimits(NamedTuple):
    """How many calls, unanswered calls, and registrations one host may have."""

    calls: int
    unanswered: int
    registrations: int


class State:
    """The table, and who owns what in it."""

    __slots__ = (
        "_keepers",
        "_unreadable",
        "calls",
        "invitations",
        "registrations",
        "subscriptions",
        "table",
        "written",
    )

    def __init__(
        self,
        table: NatTable,
        timeouts: CallTimeouts,
        limits: HostLimits,
    ) -> None:
        self.table = table
        self.calls = Calls(timeouts, limits.calls, limits.unanswered)
        self.invitations = Invitations(limits.unanswered)
        self.registrations = Registrations(timeouts.transaction, limits.registrations)
        self.subscriptions = Subscriptions(timeouts.transaction, limits.registrations)
        self.written = Written()
        self._unreadable: list[RowKey] = []
        self._keepers: dict[str, Rows] = {
            "call": self.calls,
            "invitation": self.invitations,
            "registration": self.registrations,
            "subscription": self.subscriptions,
            "written": self.written,
        }

    def limit(self, timeouts: CallTimeouts, limits: HostLimits) -> None:
        """Takes other times and limits, for what comes; what there is stays."""
        self.calls.limit(timeouts, limits.calls, limits.unanswered)
        self.invitations.limit(limits.unanswered)
        for grants in self.grants:
            grants.limit(limits.registrations)

    @property
    def grants(self) -> tuple[Registrations, Subscriptions]:
        """What servers and phones have granted each other."""
        return self.registrations, self.subscriptions

    def next_deadline(self) -> float | None:
        """Returns when `expire` has something to do, at the earliest."""
        deadlines = (
            self.table.next_deadline(),
            self.calls.next_deadline(),
            self.invitations.next_deadline(),
            self.registrations.next_deadline(),
            self.subscriptions.next_deadline(),
        )
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def expire(self, now: float) -> None:
        """Forgets what is over, bindings last."""
        self.calls.expire(self.table, now)
        self.invitations.expire(now)
        self.registrations.expire(now)
        self.subscriptions.expire(now)
        self.table.expire(now, MAX_EXPIRED)

    def move(self, old_address: str, moved: Mapping[Binding, Binding]) -> None:
        """Puts the new binding in the place of every one that the old address had."""

        def swap(binding: Binding) -> Binding:
            return moved.get(binding, binding)

        endpoints = {
            (before.transport, before.external): after.external for before, after in moved.items()
        }
        self.written.move(old_address, endpoints)
        self.calls.swap(swap)
        self.registrations.swap(swap)
        self.subscriptions.swap(swap)

    def take_rows(self, *, has_all: bool) -> Iterator[tuple[RowKey, bytes | None]]:
        """Yields rows, by kind and name, of all or of what was touched; None where it is gone."""
        unreadable, self._unreadable = self._unreadable, []
        for key in unreadable:
            yield key, None
        for kind, keeper in self._keepers.items():
            for name, row in keeper.take_rows(has_all=has_all):
                yield (kind, name), row

    def put_rows(self, rows: Mapping[RowKey, bytes], now: float) -> None:
        """Takes rows back, and begins to mark what is touched; what is malformed is left out."""
        standing = standing_in(self.table)
        for key, row in rows.items():
            try:
                self._keepers[key[0]].put_row(row, standing, now)
            except Exception as error:
                log.warning("a stored %s cannot be read and is left out: %r", key[0], error)
                self._unreadable.append(key)
        for keeper in self._keepers.values():
            list(keeper.take_rows(has_all=False))
