"""A binding as the table holds it: with its pinholes, and the remote addresses that they admit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from nat_table.binding import Binding, Owner, Pinhole
from nat_table.changes import Admitted, Change, Excluded
from nat_table.endpoint import Endpoint


class Entry:
    """A binding with one claim an owner.

    `naming` says for each remote address how many of the pinholes name it.
    """

    __slots__ = ("binding", "claims", "naming")

    def __init__(self, binding: Binding) -> None:
        self.binding = binding
        self.claims: dict[Owner, Claim] = {}
        self.naming: dict[str, int] | None = None  # an empty dictionary would cost 64 bytes

    def pinhole(self, owner: Owner) -> Pinhole | None:
        """Returns the owner's pinhole."""
        claim = self.claims.get(owner)
        return None if claim is None else claim.pinhole

    def pinholes(self) -> tuple[Pinhole, ...]:
        """Returns the pinholes, in the order in which their owners came."""
        return tuple(claim.pinhole for claim in self.claims.values())

    def count(self, before: Pinhole | None, after: Pinhole | None) -> list[Change]:
        """Counts what one pinhole names out, and what stands in its place in.

        Returns what that does to the remote addresses of the binding.
        """
        left, named = before.remotes if before else (), after.remotes if after else ()
        if left == named:
            return []
        changes: list[Change] = []
        naming = self.naming or {}
        gone, come = _addresses(left), _addresses(named)
        for address in gone:
            if address not in come:
                naming[address] -= 1
                if not naming[address]:
                    del naming[address]
                    changes.append(Excluded(self.binding, address))
        for address in come:
            if address not in gone:
                naming[address] = naming.get(address, 0) + 1
                if naming[address] == 1:
                    changes.append(Admitted(self.binding, address))
        self.naming = naming or None
        return changes


class Claim(NamedTuple):
    """A pinhole of an entry as `Timers` sorts it: by when it is due, then by when it was put."""

    due: float
    number: int
    entry: Entry
    pinhole: Pinhole


def _addresses(remotes: Iterable[Endpoint]) -> dict[str, None]:
    """Returns the addresses, each once and in order."""
    return dict.fromkeys(remote.address for remote in remotes)
