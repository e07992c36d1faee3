"""Where sent-by stands in a Via (RFC 3261 §20.42, RFC 3581)."""

from __future__ import annotations

from alg.sip.grammar import BRANCH, VIA, search_param
from alg.sip.host_port import HostPort
from alg.sip.uri import SIP_PORT


class ViaParm(HostPort):
    """One via-parm: its sent-by, its transport in lower case, and where its parameters stand."""

    __slots__ = ("params_end", "params_start", "transport")

    transport: bytes
    params_start: int
    params_end: int

    def __init__(
        self,
        data: bytes,
        transport: bytes,
        host: tuple[int, int],
        port: tuple[int, int],
        params: tuple[int, int],
    ) -> None:
        super().__init__(data, host, port, SIP_PORT)
        self.transport = transport.lower()
        self.params_start, self.params_end = params


def parse_via(data: bytes, start: int, end: int) -> tuple[list[ViaParm], bool]:
    """Returns the via-parms of one field value, and whether they are all there is in it."""
    parms: list[ViaParm] = []
    while True:
        match = VIA.match(data, start, end)
        if match is None:
            return parms, False
        parms.append(ViaParm(data, match[1], match.span(2), match.span(3), match.span(4)))
        if not match[5]:
            return parms, True
        start = match.end()


def branch_of(data: bytes, via: ViaParm) -> bytes:
    """Returns the branch parameter, or nothing where there is none (RFC 2543)."""
    match = search_param(BRANCH, data, via.params_start, via.params_end)
    return match[1] if match else b""
