"""What passes, handed to somebody slower than the packet path: a queue with an end, and a pace.

A feed watches; whoever takes from it gets batches. What has no room is lost and counted, and
whoever takes rests after each batch for many times as long as he worked at it: with packets coming
as fast as they can, he has a small share of the time, and loses what he cannot handle in it. On a
router that is not at its limit nothing is lost and nobody waits.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable

from alg.io.clock import now
from alg.observe.passage import Occurrence, Passage

MAX_WAITING = 2000
MAX_BYTES = 4 << 20
BATCH, BATCH_BYTES = 20, 1 << 16
REST = 29.0
"""Whoever takes works a thirtieth of the time at the most."""

LONGEST_REST = 0.2

Event = Passage | Occurrence


class Feed:
    """Events that wait for somebody; `is_wanted` says which, and must be quick."""

    def __init__(self, is_wanted: Callable[[Event], bool]) -> None:
        self._is_wanted = is_wanted
        self._waiting: deque[Event] = deque()
        self._bytes = 0
        self._lost = 0
        self._is_due = asyncio.Event()

    def see(self, passage: Passage) -> None:
        """Takes a message, if it is wanted and there is room."""
        if self._is_wanted(passage):
            self._take(passage)

    def notice(self, occurrence: Occurrence) -> None:
        """Takes changes that no message has brought."""
        if self._is_wanted(occurrence):
            self._take(occurrence)

    def take_lost(self) -> int:
        """Returns how many events were lost since the last call."""
        lost, self._lost = self._lost, 0
        return lost

    async def batches(self) -> AsyncIterator[list[Event]]:
        """Yields what waits, a few at a time, and rests in proportion to what each has taken."""
        while True:
            await self._is_due.wait()
            began = now()
            yield self._take_batch()
            await asyncio.sleep(min(LONGEST_REST, REST * (now() - began)))

    def _take_batch(self) -> list[Event]:
        """Returns the next few events, fewer where they are large: packets wait meanwhile."""
        batch: list[Event] = []
        size = 0
        while self._waiting and len(batch) < BATCH and size < BATCH_BYTES:
            event = self._waiting.popleft()
            size += _size(event)
            batch.append(event)
        self._bytes -= size
        if not self._waiting:
            self._is_due.clear()
        return batch

    def _take(self, event: Event) -> None:
        if len(self._waiting) >= MAX_WAITING or self._bytes >= MAX_BYTES:
            self._lost += 1
            return
        self._waiting.append(event)
        self._bytes += _size(event)
        self._is_due.set()


def _size(event: Event) -> int:
    return len(event.datagram.payload) if isinstance(event, Passage) else 0
