"""The pinholes in the order in which they end.

They stand in sorted blocks of a few hundred, and the last of every block in a list of its own: a
search is two bisections, and what is put or taken away moves the rest of one block, all at C speed.
Nothing out of date is ever left behind, so no deadline is late, what is kept is as large as what
stands, and no step is long. (A heap can take away its first only; what it leaves has to be swept
out now and then, and a sweep of 100,000 stops the packets for a quarter of a second.)
"""

from __future__ import annotations

import itertools
from bisect import bisect_left, insort

from nat_table.binding import Owner, Pinhole
from nat_table.entry import Claim, Entry

_BLOCK = 256  # a block of twice as many becomes two


class Timers:
    """Puts pinholes into entries and drops them, and finds the one that ends first."""

    __slots__ = ("_blocks", "_lasts", "_numbers")

    def __init__(self) -> None:
        self._blocks: list[list[Claim]] = []  # none is empty
        self._lasts: list[Claim] = []  # block[-1] of each
        self._numbers = itertools.count()

    def put(self, entry: Entry, pinhole: Pinhole) -> None:
        """Gives the owner this pinhole, in place of the one it may have."""
        before = entry.claims.get(pinhole.owner)
        if before is not None:
            self._remove(before)
        claim = Claim(pinhole.expires_at, next(self._numbers), entry, pinhole)
        entry.claims[pinhole.owner] = claim
        self._insert(claim)

    def drop(self, entry: Entry, owner: Owner) -> None:
        """Takes one owner's pinhole away."""
        self._remove(entry.claims.pop(owner))

    def first(self) -> Claim | None:
        """Returns the claim that ends first."""
        return self._blocks[0][0] if self._blocks else None

    def _insert(self, claim: Claim) -> None:
        if not self._blocks:
            self._blocks.append([])
            self._lasts.append(claim)
        at = min(bisect_left(self._lasts, claim), len(self._blocks) - 1)
        block = self._blocks[at]
        insort(block, claim)
        if len(block) == 2 * _BLOCK:
            self._blocks.insert(at, block[:_BLOCK])
            self._lasts.insert(at, block[_BLOCK - 1])
            del block[:_BLOCK]
            at += 1
        self._lasts[at] = block[-1]

    def _remove(self, claim: Claim) -> None:
        at = bisect_left(self._lasts, claim)
        block = self._blocks[at]
        del block[bisect_left(block, claim)]
        if block:
            self._lasts[at] = block[-1]
        else:
            del self._blocks[at], self._lasts[at]
