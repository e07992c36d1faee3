"""The command `why`: the story of a call or a phone, out of the ring.

A search through a full ring takes long, so packets get their turn after each of its steps.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial

from alg.daemon.selection import parse_selection
from alg.io.clock import wall_offset
from alg.io.control import Request, RequestRefused, Row
from alg.observe.passage import Occurrence, Passage
from alg.observe.ring import Found, Ring
from alg.observe.story import is_of_call, is_of_host, occurrence_row, passage_row

UNDECODED = "\ufffd"
"""Stands in rows for bytes of a Call-ID that are not UTF-8."""


class Stories:
    """Answers with what the ring knows."""

    def __init__(self, ring: Ring) -> None:
        self._ring = ring

    def tell(self, request: Request) -> AsyncIterator[Row]:
        """Returns the rows of a call (`call_id`) or a phone (`internal`); raises RequestRefused.

        With `full` each message is in its row, as it came and as it left.
        """
        if not self._ring.room:
            raise RequestRefused("nothing is remembered, because trace_megabytes is 0", "off")
        wanted = parse_selection(request, ("call_id", "internal"))
        is_full = request.get("full") is True
        if wanted.call_id and wanted.host is None:
            parts = wanted.call_id.removesuffix("~").split(UNDECODED)
            is_wanted = partial(is_of_call, call_id=wanted.call_id)
            whose = f"the call {wanted.call_id}"
            return self._rows(max(parts, key=len), is_wanted, is_full, whose)
        if wanted.host is not None and wanted.call_id is None:
            is_wanted = partial(is_of_host, address=wanted.host, port=wanted.port or None)
            return self._rows(wanted.host, is_wanted, is_full, str(request["internal"]))
        raise RequestRefused("why needs a call_id or an internal address, and not both")

    async def _rows(
        self,
        needle: str,
        is_wanted: Callable[[Passage | Occurrence], bool],
        is_full: bool,
        whose: str,
    ) -> AsyncIterator[Row]:
        offset, is_known = wall_offset(), False
        for step in self._ring.search(needle, is_wanted):
            for found in step:
                is_known = True
                yield _row(found, offset, is_full)
            await asyncio.sleep(0)
        if not is_known:
            raise RequestRefused(f"nothing is remembered of {whose}", "unknown")


def _row(found: Found, offset: float, is_full: bool) -> Row:
    if isinstance(found.event, Passage):
        return passage_row(found.event, offset, found.number, is_full=is_full)
    return occurrence_row(found.event, offset)
