"""Where sent-by stands in a Via (RFC 3261 §20.42, RFC 3581)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from alg.sip.grammar import BRANCH, VIA, search_param
from alg.sip.span import Span


class ViaParm(NamedTuple):
    """One via-parm: its transport, and the spans of its host, port and parameters."""

    transport: bytes
    host: Span
    port: Span | None
    params: Span


def parse_via(data: bytes, start: int, end: int) -> Iterator[ViaParm]:
    """Yields the via-parms of one field value; raises ValueError where the grammar ends."""
    while True:
        match = VIA.match(data, start, end)
        if match is None:
            raise ValueError("Via")
        port = match.span(3)
        yield ViaParm(
            match[1],
            Span(*match.span(2)),
            Span(*port) if port[0] >= 0 else None,
            Span(*match.span(4)),
        )
        if not match[5]:
            return
        start = match.end()


def branch_of(data: bytes, via: ViaParm) -> bytes:
    """Returns the branch parameter, or nothing where there is none (RFC 2543)."""
    match = search_param(BRANCH, data, *via.params)
    return match[1] if match else b""
