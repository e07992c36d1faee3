"""A binding as the table holds it: with its pinholes, and whom they let in."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from nat_table.binding import Binding, Kind, Owner, Permit, Pinhole
from nat_table.changes import (
    Admitted,
    Change,
    Closed,
    Excluded,
    Forbidden,
    Opened,
    Permitted,
    Refreshed,
    Turned,
)
from nat_table.lease import is_lease

_NOBODY: Final[dict[str | Permit, None]] = {}
_NOTHING: Final[list[Change]] = []


class Entry:
    """A binding with one claim an owner.

    `naming` says for each remote address, and for each permit, how many of the pinholes have it.
    """

    __slots__ = ("binding", "claims", "leases", "naming")

    def __init__(self, binding: Binding) -> None:
        self.binding = binding
        self.claims: dict[Owner, Claim] = {}
        self.leases = 0  # so many of the pinholes are
        self.naming: dict[str | Permit, int] | None = None  # an empty one would cost 64 bytes

    def pinholes(self) -> tuple[Pinhole, ...]:
        """Returns the pinholes, in the order in which their owners came."""
        return tuple([claim.pinhole for claim in self.claims.values()])

    def count(self, before: Pinhole | None, after: Pinhole | None) -> list[Change]:
        """Counts one pinhole out, and what stands in its place in.

        Returns what that does to whom the binding lets in.
        """
        if before is None:
            self.leases += after is not None and is_lease(after)
        elif after is None:
            self.leases -= is_lease(before)
        gone, come = _names(before), _names(after)
        if not gone and not come:
            return _NOTHING
        changes: list[Change] = []
        naming = self.naming or {}
        for name in gone:
            if name not in come:
                naming[name] -= 1
                if not naming[name]:
                    del naming[name]
                    changes.append(_shut_out(self.binding, name))
        for name in come:
            if name not in gone:
                naming[name] = naming.get(name, 0) + 1
                if naming[name] == 1:
                    changes.append(_let_in(self.binding, name))
        self.naming = naming or None
        return changes

    def turn(self, kind: Kind) -> list[Change]:
        """Makes the binding one of another kind; returns what that changes."""
        before = self.binding
        self.binding = Binding(
            before.transport, before.internal, before.external, kind, before.created_at
        )
        return self._replaced(before, [Turned(self.binding, before)])

    def moved(self, before: Binding) -> list[Change]:
        """Returns what changes where the binding has come to another address than before."""
        pinholes = self.pinholes()
        changes: list[Change] = [Closed(before, pinholes), Opened(self.binding, pinholes[0])]
        for other in pinholes[1:]:
            changes.append(Refreshed(self.binding, None, other))
        return self._replaced(before, changes)

    def _replaced(self, before: Binding, changes: list[Change]) -> list[Change]:
        """Returns the changes, between those by which the names pass on from the binding before."""
        names: Iterable[str | Permit] = self.naming or ()
        return [
            *[_shut_out(before, name) for name in names],
            *changes,
            *[_let_in(self.binding, name) for name in names],
        ]


class Claim:
    """A pinhole of an entry, and when and where `Timers` has it; `due` is never after its end."""

    __slots__ = ("due", "entry", "pinhole", "place")

    def __init__(self, entry: Entry, pinhole: Pinhole) -> None:
        self.entry = entry
        self.pinhole = pinhole
        self.due = pinhole.expires_at
        self.place = 0


def _names(pinhole: Pinhole | None) -> dict[str | Permit, None]:
    """Returns the addresses and the permits, each once and in order."""
    if pinhole is None or not (pinhole.remotes or pinhole.permits):
        return _NOBODY
    names: dict[str | Permit, None] = {}
    for remote in pinhole.remotes:
        names[remote[0]] = None
    for permit in pinhole.permits:
        names[permit] = None
    return names


def _let_in(binding: Binding, name: str | Permit) -> Change:
    return Admitted(binding, name) if isinstance(name, str) else Permitted(binding, name)


def _shut_out(binding: Binding, name: str | Permit) -> Change:
    return Excluded(binding, name) if isinstance(name, str) else Forbidden(binding, name)
