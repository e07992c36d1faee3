"""What servers and phones grant each other for a time: registrations and subscriptions.

A grant is known by the phone's address and the Call-ID. It has a quota, is forgotten when its time
is over, follows bindings that become others, and is written down for the store; how it comes to be
and what it means for the table is told by who derives from `Grants`.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import Generic, NamedTuple, Protocol, TypeVar

from alg.dialogs.deadlines import Deadlines
from alg.dialogs.linger import let_linger
from alg.dialogs.offer_answer import Swap
from alg.dialogs.quota import HostQuota
from alg.dialogs.rows import Touched, name_of
from alg.stored import encode_row
from nat_table.binding import Binding, Owner
from nat_table.table import NatTable


class RegistrationKey(NamedTuple):
    """The phone's address and the Call-ID."""

    host: str
    call_id: bytes


class Grant(Protocol):
    """One registration or subscription."""

    expires_at: float

    @property
    def kept(self) -> list[Binding]:
        """The bindings that are granted."""

    def swap(self, swap: Swap) -> None:
        """Puts other bindings in the place of those it has; what has none is let go."""


GrantT = TypeVar("GrantT", bound=Grant)


class Grants(Generic[GrantT]):
    """The grants of one scope, by whose name they own pinholes; each is of this type."""

    def __init__(
        self, scope: str, kind: type[GrantT], transaction_timeout: float, limit: int
    ) -> None:
        self.scope = scope
        self._kind = kind
        self._quota = HostQuota(f"{scope}s", limit)
        self._transaction_timeout = transaction_timeout
        self._grants: dict[RegistrationKey, GrantT] = {}
        self._deadlines: Deadlines[RegistrationKey] = Deadlines()
        self._touched: Touched[RegistrationKey] = Touched()

    @property
    def quota(self) -> HostQuota:
        """What counts the grants of each host."""
        return self._quota

    def __len__(self) -> int:
        return len(self._grants)

    def expire(self, now: float) -> None:
        """Forgets those whose time is over."""
        for key in self._deadlines.pop_due(now):
            self._remove(key)

    def standing(self) -> list[RegistrationKey]:
        """Returns the keys of all."""
        return list(self._grants)

    def owners(self) -> Iterator[Owner]:
        """Yields by whose names those that stand own pinholes."""
        return map(self._owner, self._grants)

    def drop(self, table: NatTable, key: RegistrationKey, now: float) -> None:
        """Ends a grant, if it stands; what it keeps has the time of a transaction."""
        grant = self._grants.get(key)
        if grant is None:
            return
        for binding in grant.kept:
            let_linger(table, binding, self._owner(key), self._transaction_timeout, now)
        self._remove(key)

    def forget(self, binding: Binding, owners: Container[Owner]) -> None:
        """Has the grants of these owners know no more of a binding that is gone.

        One that was for nothing else is gone with it.
        """
        for key, grant in list(self._grants.items()):
            if self._owner(key) in owners and binding in grant.kept:
                grant.swap(lambda each: None if each == binding else each)
                self._touched.add(key)
                if not grant.kept:
                    self._remove(key)

    def next_deadline(self) -> float | None:
        """Returns when `expire` has something to do, at the earliest."""
        return self._deadlines.next()

    def swap(self, swap: Swap) -> None:
        """Puts other bindings in the place of those that the grants have."""
        for key, grant in self._grants.items():
            grant.swap(swap)
            self._touched.add(key)

    def take_rows(self, *, has_all: bool) -> Iterator[tuple[str, bytes | None]]:
        """Yields the rows of what was touched."""
        for key in self._touched.take(self._grants, has_all=has_all):
            found = self._grants.get(key)
            yield name_of(key), encode_row((key, found)) if found else None

    def put_row(self, row: bytes, standing: Swap, now: float) -> None:
        """Takes a grant back, with those of its bindings that still stand."""
        key, found = self._decode(row)
        found.swap(standing)
        self._grants[key] = found
        self._quota.add(key.host)
        self._deadlines.put(key, found.expires_at)

    def _decode(self, row: bytes) -> tuple[RegistrationKey, GrantT]:
        """Reads a row; raises ValueError where it is malformed."""
        raise NotImplementedError

    def limit(self, limit: int) -> None:
        """Lets each host have so many from now on."""
        self._quota.limit = limit

    def _open(self, key: RegistrationKey) -> GrantT:
        """Returns the grant, made new where there is none; raises QuotaExceeded."""
        grant = self._grants.get(key)
        if grant is None:
            self._quota.take(key.host)
            grant = self._grants[key] = self._kind()
        return grant

    def _remove(self, key: RegistrationKey) -> None:
        del self._grants[key]
        self._deadlines.discard(key)
        self._quota.give_back(key.host)
        self._touched.add(key)

    def _keep_until(self, key: RegistrationKey, grant: GrantT, until: float) -> None:
        grant.expires_at = until
        self._deadlines.put(key, until)

    def _owner(self, key: RegistrationKey) -> Owner:
        return Owner(self.scope, key.call_id.decode("utf-8", "replace"))
