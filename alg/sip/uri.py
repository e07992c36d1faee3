"""Where host and port stand in a SIP URI (RFC 3261 §19.1.1)."""

from __future__ import annotations

from typing import NamedTuple

from alg.sip.grammar import SIP_URI, TRANSPORT_PARAM
from alg.sip.span import Span

SIP_PORT = 5060
SIPS_PORT = 5061


class SipUri(NamedTuple):
    """The spans of host and port; `is_secure` is sips, `transport` the parameter in lower case."""

    is_secure: bool
    host: Span
    port: Span | None
    transport: bytes
    has_headers: bool

    @property
    def default_port(self) -> int:
        """The port that is meant where none is written (RFC 3261 §19.1.2)."""
        return SIPS_PORT if self.is_secure or self.transport == b"tls" else SIP_PORT


def parse_uri(data: bytes, start: int, end: int) -> SipUri | None:
    """Parses data[start:end] as a SIP or SIPS URI; None for any other scheme or form."""
    match = SIP_URI.fullmatch(data, start, end)
    if match is None:
        return None
    port = match.span(3)
    params = match.span(4)
    transport = TRANSPORT_PARAM.search(data, *params) if params[0] != params[1] else None
    return SipUri(
        len(match[1]) == 4,
        Span(*match.span(2)),
        Span(*port) if port[0] >= 0 else None,
        transport[1].lower() if transport else b"",
        match[5] is not None,
    )
