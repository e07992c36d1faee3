"""Where host and port stand in a SIP URI (RFC 3261 §19.1.1)."""

from __future__ import annotations

from typing import Final

from alg.sip.grammar import SIP_URI, TRANSPORT_PARAM
from alg.sip.host_port import HostPort

SIP_PORT: Final = 5060
SIPS_PORT: Final = 5061


class SipUri(HostPort):
    """Host and port; `is_secure` is sips, `transport` the parameter in lower case, or nothing.

    `default_port` is what is meant where none is written (RFC 3261 §19.1.2).
    """

    __slots__ = ("default_port", "has_headers", "is_secure", "transport")

    is_secure: bool
    transport: bytes
    has_headers: bool
    default_port: int

    def __init__(
        self,
        data: bytes,
        host: tuple[int, int],
        port: tuple[int, int],
        transport: bytes,
        *,
        is_secure: bool,
        has_headers: bool,
    ) -> None:
        default_port = SIPS_PORT if is_secure or transport == b"tls" else SIP_PORT
        super().__init__(data, host, port, default_port)
        self.is_secure = is_secure
        self.transport = transport
        self.has_headers = has_headers
        self.default_port = default_port


def parse_uri(data: bytes, start: int, end: int) -> SipUri | None:
    """Parses data[start:end] as a SIP or SIPS URI; None for any other scheme or form."""
    match = SIP_URI.fullmatch(data, start, end)
    if match is None:
        return None
    transport = b""
    params, params_end = match.span(4)
    if params != params_end:
        found = TRANSPORT_PARAM.search(data, params, params_end)
        if found is not None:
            transport = found[1].lower()
    return SipUri(
        data,
        match.span(2),
        match.span(3),
        transport,
        is_secure=len(match[1]) == 4,
        has_headers=match[5] is not None,
    )
