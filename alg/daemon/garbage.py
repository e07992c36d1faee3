"""What Python's cyclic collector looks through, and when: never everything while packets wait.

A full collection walks through all there is, and with 100,000 mappings holds packets up for more
than 0.1 s. Nearly all that lives long here is freed by its reference count. So what has outlived a
second is frozen, out of the collector's sight, and it only ever looks through what is younger.

Cycles that die later than that stay. They are few (connections that have ended, for the most part),
and a full collection is made when memory has doubled since the last one, and grown by a lot.
"""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path

INTERVAL = 1.0
YOUNG = 10_000
"""Objects made before the youngest are looked through, which takes them half a millisecond.

A call makes hundreds, and with Python's own 700 it would be done several times for each.
"""

MIN_GROWTH = 25_600
"""Pages: 100 MB."""


async def keep_out_of_sight() -> None:
    """Freezes what is there, and every second what has come and stayed, until it is cancelled."""
    gc.freeze()
    gc.set_threshold(YOUNG, *gc.get_threshold()[1:])
    gc.enable()
    before = _resident()
    while True:
        await asyncio.sleep(INTERVAL)
        gc.collect(1)
        gc.freeze()
        if _resident() > 2 * before + MIN_GROWTH:
            gc.unfreeze()
            gc.collect()
            gc.freeze()
            before = _resident()


def _resident() -> int:
    """Returns how many pages of memory this process has."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
