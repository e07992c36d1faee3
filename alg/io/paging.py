"""A part of an answer's rows, made with time for packets in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterable

from alg.io.control import ROWS_PER_CHUNK, Row, Rows


async def take(rows: Rows | Awaitable[Rows], first: int, count: int) -> list[Row]:
    """Returns so many rows, or what there is of them, from the first one that is wanted."""
    if isinstance(rows, Awaitable):
        rows = await rows
    found: list[Row] = []
    skipped = 0
    async for row in _each(rows):
        if skipped < first:
            skipped += 1
        else:
            found.append(row)
        if len(found) >= count:
            break
    return found


async def _each(rows: Rows) -> AsyncIterator[Row]:
    """Yields the rows; None is a step without one."""
    if isinstance(rows, Iterable):
        for number, row in enumerate(rows, 1):
            if row is not None:
                yield row
            if not number % ROWS_PER_CHUNK:
                await asyncio.sleep(0)
    else:
        async for row in rows:
            yield row
