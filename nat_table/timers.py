"""The pinholes of every binding, and a heap of timers that knows which deadline comes first.

A timer is a promise to look at one pinhole: a deadline that moves later leaves its timer alone,
which is moved when it comes first; one that moves earlier gets a timer of its own. A timer whose
pinhole is gone is dropped when it comes first, and when such timers outnumber the others the heap
is made anew: it never holds more than twice what it must.

That holds as long as nothing else changes an entry's pinholes: they are put and dropped here only.
"""

from __future__ import annotations

import heapq
import itertools

from nat_table.binding import Binding, Owner, Pinhole

_SPARE_TIMERS = 256


class Entry:
    """A binding as the table's indexes hold it, with its pinholes by owner."""

    __slots__ = ("binding", "pinholes")

    def __init__(self, binding: Binding) -> None:
        self.binding = binding
        self.pinholes: dict[Owner, Pinhole] = {}


Timer = tuple[float, int, Entry, Owner]
"""When to look at the owner's pinhole; the number settles the order of timers due together."""


class Timers:
    """Puts and drops pinholes, and finds the one that ends first."""

    __slots__ = ("_heap", "_numbers", "_pinhole_count")

    def __init__(self) -> None:
        self._heap: list[Timer] = []
        self._numbers = itertools.count()
        self._pinhole_count = 0

    def put(self, entry: Entry, pinhole: Pinhole) -> None:
        """Gives the owner this pinhole, in place of the one it may have."""
        before = entry.pinholes.get(pinhole.owner)
        entry.pinholes[pinhole.owner] = pinhole
        if before is None:
            self._pinhole_count += 1
        elif before.expires_at <= pinhole.expires_at:
            return
        if len(self._heap) >= 2 * self._pinhole_count + _SPARE_TIMERS:
            self._renew(entry)
        else:
            heapq.heappush(self._heap, self._timer(entry, pinhole))

    def drop(self, entry: Entry, owner: Owner) -> None:
        """Takes one owner's pinhole away."""
        del entry.pinholes[owner]
        self._pinhole_count -= 1

    def drop_all(self, entry: Entry) -> None:
        """Takes away every pinhole that the entry has."""
        self._pinhole_count -= len(entry.pinholes)
        entry.pinholes.clear()

    def first(self) -> Timer | None:
        """Returns the timer of the earliest deadline, having put right those that came first."""
        heap = self._heap
        while heap:
            due_at, _, entry, owner = heap[0]
            pinhole = entry.pinholes.get(owner)
            if pinhole is None:
                heapq.heappop(heap)
            elif pinhole.expires_at > due_at:
                heapq.heapreplace(heap, self._timer(entry, pinhole))
            else:
                return heap[0]
        return None

    def _timer(self, entry: Entry, pinhole: Pinhole) -> Timer:
        return pinhole.expires_at, next(self._numbers), entry, pinhole.owner

    def _renew(self, newest: Entry) -> None:
        """Makes the heap anew: one timer a pinhole, of the entries in it and the newest."""
        entries = dict.fromkeys(entry for _, _, entry, _ in self._heap)
        entries[newest] = None
        self._heap = [
            self._timer(entry, pinhole) for entry in entries for pinhole in entry.pinholes.values()
        ]
        heapq.heapify(self._heap)
