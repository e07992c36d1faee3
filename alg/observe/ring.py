"""The last messages in memory, bounded by the room that they take: what a story is told from.

The newest push out the oldest. A search goes through it step by step, so that whoever searches can
look after packets in between; what comes meanwhile is not found, what goes meanwhile is. Records
are numbered, from 1 on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

from alg.observe.passage import Occurrence, Passage
from alg.observe.record import decode_record, encode_occurrence, encode_passage
from nat_table.changes import Closed, Opened

OVERHEAD = 64
"""What a record takes in memory beside its bytes: the object, rounding, its place in the ring."""

BYTES_PER_STEP = 1 << 18
RECORDS_PER_STEP = 20


class Found(NamedTuple):
    """A record and its number."""

    number: int
    event: Passage | Occurrence


class Ring:
    """The newest messages and changes, no more than fit into `room` (bytes).

    Mere keepalives are left out.
    """

    def __init__(self, room: int = 0) -> None:
        self.room = room
        self._records: deque[bytes] = deque()
        self._taken = 0
        self._count = 0

    def __len__(self) -> int:
        return len(self._records)

    def resize(self, room: int) -> None:
        """Keeps no more than fit into another room."""
        self.room = room
        self._make_room()

    def see(self, passage: Passage) -> None:
        """Keeps a message."""
        if not passage.is_mere_keepalive:
            self._keep(encode_passage(passage))

    def notice(self, occurrence: Occurrence) -> None:
        """Keeps changes that no message has brought, if they open or close mappings."""
        if any(isinstance(change, Opened | Closed) for change in occurrence.changes):
            self._keep(encode_occurrence(occurrence))

    def search(
        self, needle: str, is_wanted: Callable[[Passage | Occurrence], bool]
    ) -> Iterator[list[Found]]:
        """Yields what is wanted, oldest first, in short steps that may have found nothing.

        Only records that hold the `needle`, in UTF-8, are looked at.
        """
        encoded = needle.encode("utf-8", "surrogateescape")
        number = self._count - len(self._records)
        found: list[Found] = []
        looked_at = read = 0
        for record in list(self._records):
            number += 1
            read += len(record)
            if encoded in record:
                looked_at += 1
                event = decode_record(record)
                if is_wanted(event):
                    found.append(Found(number, event))
            if read >= BYTES_PER_STEP or looked_at >= RECORDS_PER_STEP:
                yield found
                found, looked_at, read = [], 0, 0
        yield found

    def _keep(self, record: bytes) -> None:
        self._records.append(record)
        self._count += 1
        self._taken += len(record) + OVERHEAD
        self._make_room()

    def _make_room(self) -> None:
        while self._taken > self.room:
            self._taken -= len(self._records.popleft()) + OVERHEAD
