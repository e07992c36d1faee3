"""Deadlines of things that end by themselves, cheap to move.

One heap entry a key, whatever happens to its deadline: moving it later costs a dict store, and the
entry is pushed again when it comes up too early. One that moves earlier gets a second entry; when
such outnumber the others the heap is made anew.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)

_SPARE = 64


class Deadlines(Generic[Key]):
    """When each key is due, in seconds."""

    __slots__ = ("_due", "_heap", "_serial")

    def __init__(self) -> None:
        self._due: dict[Key, tuple[float, float]] = {}
        self._heap: list[tuple[float, int, Key]] = []
        self._serial = 0

    def put(self, key: Key, when: float) -> None:
        """Sets or moves the deadline of a key."""
        entry = self._due.get(key)
        if entry is not None and entry[1] <= when:
            self._due[key] = (when, entry[1])
            return
        self._push(key, when)

    def discard(self, key: Key) -> None:
        """Forgets a key; nothing happens if there is none."""
        self._due.pop(key, None)

    def pop_due(self, now: float) -> Iterator[Key]:
        """Yields and forgets every key whose deadline has come."""
        heap = self._heap
        while heap and heap[0][0] <= now:
            queued, _, key = heapq.heappop(heap)
            entry = self._due.get(key)
            if entry is None or entry[1] != queued:
                continue
            if entry[0] > now:
                self._push(key, entry[0])
                continue
            del self._due[key]
            yield key

    def next(self) -> float | None:
        """Returns when to look again: never later than the earliest deadline."""
        return self._heap[0][0] if self._heap else None

    def __len__(self) -> int:
        return len(self._due)

    def _push(self, key: Key, when: float) -> None:
        self._serial += 1
        self._due[key] = (when, when)
        heapq.heappush(self._heap, (when, self._serial, key))
        if len(self._heap) > 2 * len(self._due) + _SPARE:
            self._renew()

    def _renew(self) -> None:
        """Makes the heap anew: one entry a key."""
        self._heap = [(due[0], serial, key) for serial, (key, due) in enumerate(self._due.items())]
        self._due = {key: (when, when) for when, _, key in self._heap}
        self._serial = len(self._heap)
        heapq.heapify(self._heap)
