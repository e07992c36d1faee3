"""The command `trace`: messages as they pass, to whoever listens at the control socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from itertools import chain

from alg.config import Config
from alg.daemon.selection import parse_selection
from alg.io.clock import now, wall_offset
from alg.io.control import Request, RequestRefused, Row
from alg.observe.feed import Event, Feed
from alg.observe.observers import Observers
from alg.observe.passage import Passage
from alg.observe.ring import Found, Ring
from alg.observe.story import occurrence_row, passage_row
from alg.observe.wanted import Wanted
from nat_table.endpoint import Endpoint

MAX_CLIENTS = 5
"""So that forgotten traces leave some of the control socket's streams to `drain` and `why`."""


class Tracing:
    """Answers with rows of what passes from now on, for as long as the client listens."""

    def __init__(self, config: Config, observers: Observers, ring: Ring) -> None:
        self._config = config
        self._observers = observers
        self._ring = ring
        self._clients = 0

    def follow(self, request: Request) -> AsyncIterator[Row]:
        """Returns the rows; raises RequestRefused.

        `call_id`, `internal` and `method` choose; with `full` each message is in its row, with
        `recent` those in the ring come first, and with `count` the answer ends after so many.
        """
        count = request.get("count")
        if count is not None and (type(count) is not int or count < 1):
            raise RequestRefused("count is a number from 1 on")
        if request.get("recent") is True and not self._ring.room:
            raise RequestRefused("nothing is remembered, because trace_megabytes is 0", "off")
        return self._rows(
            _wanted(request),
            count,
            is_full=request.get("full") is True,
            has_recent=request.get("recent") is True,
        )

    async def _rows(
        self, wanted: Wanted, count: int | None, *, is_full: bool, has_recent: bool
    ) -> AsyncIterator[Row]:
        if self._clients >= MAX_CLIENTS:
            raise RequestRefused(f"{MAX_CLIENTS} clients trace already")
        feed, number = Feed(wanted), 0
        remembered = self._ring.search("", wanted) if has_recent else iter(())
        # A search is of what there is when it begins; from then on it is the feed's.
        first = next(remembered, [])
        self._observers.add(feed)
        self._clients += 1
        try:
            yield {
                "event": "watching",
                "time": round(now() + wall_offset(), 6),
                "internal": list(self._config.internal),
                "external": self._config.external,
            }
            async for batch in _batches(chain((first,), remembered), feed):
                offset = wall_offset()
                for event in batch:
                    if not isinstance(event, Passage):
                        yield occurrence_row(event, offset)
                        continue
                    number += 1
                    yield passage_row(event, offset, number, is_full=is_full)
                    if number == count:
                        return
                if lost := feed.take_lost():
                    yield {"event": "lost", "count": lost}
        finally:
            self._observers.remove(feed)
            self._clients -= 1


async def _batches(remembered: Iterable[list[Found]], feed: Feed) -> AsyncIterator[list[Event]]:
    """Yields what is remembered, and then what passes."""
    for step in remembered:
        yield [found.event for found in step]
        await asyncio.sleep(0)
    async for batch in feed.batches():
        yield batch


def _wanted(request: Request) -> Wanted:
    chosen, method = parse_selection(request, ("call_id", "internal")), request.get("method")
    if method is not None and not isinstance(method, str):
        raise RequestRefused("method is not a text")
    return Wanted(
        chosen.call_id,
        Endpoint(chosen.host, chosen.port) if chosen.host is not None else None,
        method.upper() if method is not None else None,
    )
