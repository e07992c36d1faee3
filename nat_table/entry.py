"""A binding as the table holds it: with its pinholes, and whom they let in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple

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

_NOBODY: dict[str | Permit, None] = {}


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

    def pinhole(self, owner: Owner) -> Pinhole | None:
        """Returns the owner's pinhole."""
        claim = self.claims.get(owner)
        return None if claim is None else claim.pinhole

    def pinholes(self) -> tuple[Pinhole, ...]:
        """Returns the pinholes, in the order in which their owners came."""
        return tuple(claim.pinhole for claim in self.claims.values())

    def count(self, before: Pinhole | None, after: Pinhole | None) -> list[Change]:
        """Counts one pinhole out, and what stands in its place in.

        Returns what that does to whom the binding lets in.
        """
        if before is None:
            self.leases += after is not None and is_lease(after)
        elif after is None:
            self.leases -= is_lease(before)
        elif before.remotes == after.remotes and before.permits == after.permits:
            return []
        gone, come = _names(before), _names(after)
        if not gone and not come:
            return []
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

    def turn(self, kind: Kind) -> Iterator[Change]:
        """Makes the binding one of another kind; yields what that changes."""
        before, self.binding = self.binding, replace(self.binding, kind=kind)
        return self._replaced(before, [Turned(self.binding, before)])

    def moved(self, before: Binding) -> Iterator[Change]:
        """Yields what changes where the binding has come to another address than before."""
        first, *others = self.pinholes()
        changes: list[Change] = [Closed(before, (first, *others)), Opened(self.binding, first)]
        changes += (Refreshed(self.binding, None, other) for other in others)
        return self._replaced(before, changes)

    def _replaced(self, before: Binding, changes: Iterable[Change]) -> Iterator[Change]:
        """Yields the changes, between those by which the names pass on from the binding before."""
        names = self.naming or ()
        yield from (_shut_out(before, name) for name in names)
        yield from changes
        yield from (_let_in(self.binding, name) for name in names)


class Claim(NamedTuple):
    """A pinhole of an entry as `Timers` sorts it: by when it is due, then by when it was put."""

    due: float
    number: int
    entry: Entry
    pinhole: Pinhole


def _names(pinhole: Pinhole | None) -> dict[str | Permit, None]:
    """Returns the addresses and the permits, each once and in order."""
    if pinhole is None or not (pinhole.remotes or pinhole.permits):
        return _NOBODY
    return dict.fromkeys((*(remote.address for remote in pinhole.remotes), *pinhole.permits))


def _let_in(binding: Binding, name: str | Permit) -> Change:
    return Admitted(binding, name) if isinstance(name, str) else Permitted(binding, name)


def _shut_out(binding: Binding, name: str | Permit) -> Change:
    return Excluded(binding, name) if isinstance(name, str) else Forbidden(binding, name)
