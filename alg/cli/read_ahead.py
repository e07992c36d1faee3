"""Rows taken from the gateway at once, however slowly they are printed.

The gateway gives an answer ten seconds, and who reads `sipnat show mappings | less` takes longer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from queue import SimpleQueue
from threading import Thread

from alg.cli.columns import Row


def read_ahead(rows: Iterable[Row]) -> Iterator[Row]:
    """Yields rows as they come, while a thread takes and keeps them; raises what that meets."""
    taken: SimpleQueue[Row | BaseException] = SimpleQueue()

    def take() -> None:
        try:
            for row in rows:
                taken.put(row)
            taken.put(StopIteration())
        except BaseException as error:
            taken.put(error)

    Thread(target=take, daemon=True).start()
    while not isinstance(row := taken.get(), BaseException):
        yield row
    if not isinstance(row, StopIteration):
        raise row
