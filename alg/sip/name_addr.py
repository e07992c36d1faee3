"""Where the URIs and parameters stand in Contact, Route and their like (RFC 3261 §20.10, §25.1)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from alg.sip.grammar import EXPIRES_PARAM, NAME_ADDR, search_param
from alg.sip.span import Span

MAX_ADDR_SPEC = 255


class NameAddr(NamedTuple):
    """One value of the list: the spans of its URI and of its field parameters."""

    uri: Span
    params: Span


def parse_name_addrs(data: bytes, start: int, end: int) -> Iterator[NameAddr]:
    """Yields the values of one field; raises ValueError where the grammar ends."""
    while True:
        match = NAME_ADDR.match(data, start, end)
        if match is None:
            raise ValueError("name-addr")
        group = 1 if match.start(1) >= 0 else 2
        yield NameAddr(Span(*match.span(group)), Span(*match.span(3)))
        if not match[4]:
            return
        start = match.end()


def addr_spec_of(data: bytes, span: Span) -> str:
    """Returns the URI of a From or To field, cut at `MAX_ADDR_SPEC` characters; "" if malformed."""
    match = NAME_ADDR.match(data, *span)
    uri = match and (match[1] or match[2])
    return uri[:MAX_ADDR_SPEC].decode("utf-8", "replace") if uri else ""


def expires_of(data: bytes, params: Span) -> int | None:
    """Returns the expires parameter of a Contact in seconds, None where there is none."""
    match = search_param(EXPIRES_PARAM, data, *params)
    return int(match[1]) if match else None
