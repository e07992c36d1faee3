"""Where addresses and ports stand in a session description (RFC 8866, RFC 3605, RFC 4975).

One pattern walks the lines; only o=, c=, m= and the attributes that say where media goes and who
connects are looked at, and everything else (candidates, crypto, fingerprints, attributes nobody has
heard of) is not even read. A media section without a c=, a=setup or direction of its own has the
session's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from alg.sip.host import canonical_address
from alg.sip.span import Span

_LINE = re.compile(
    rb"^(?:"
    rb"o=[^\r\n]*? IN IP([46]) ([^\s/]+)[ \t]*\r?$"  # 1, 2: origin
    rb"|c=IN IP([46]) ([^\s/]+)"  # 3, 4: connection
    rb"|m=(\S+) ([0-9]+)(?:/([0-9]+))? (\S+)"  # 5-8: media, port, count, protocol
    rb"|a=rtcp:([0-9]+)(?: IN IP([46]) ([^\s/]+))?[ \t]*\r?$"  # 9-11: RFC 3605
    rb"|a=rtcp-(mux)[ \t]*\r?$"  # 12: RFC 5761
    rb"|a=path:(msrps?)://(?:[^@/\s]*@)?(\[[0-9A-Fa-f:.]+\]|[^:/;\s\[\]]+):([0-9]+)"  # 13-15
    rb"|a=altc:[0-9]+ IP([46]) ([^\s/]+) ([0-9]+)[ \t]*\r?$"  # 16-18: RFC 6947
    rb"|a=(msrp-cema)[ \t]*\r?$"  # 19: RFC 6714
    rb"|a=setup:([a-z]+)[ \t]*\r?$"  # 20: RFC 4145
    rb"|a=(sendrecv|sendonly|recvonly|inactive)[ \t]*\r?$"  # 21: RFC 3264
    rb")",
    re.MULTILINE | re.IGNORECASE,
)

DISCARD_PORT = 9


@dataclass(slots=True)
class Address:
    """An address in an o=, c= or a= line: its text and the span of it, and its family (4 or 6).

    `host` is its one spelling (`alg.sip.host`), empty where it is not one of its family.
    """

    span: Span
    text: bytes
    family: int
    host: bytes = field(init=False)

    def __post_init__(self) -> None:
        self.host = canonical_address(self.text, self.family)


@dataclass(slots=True)
class Rtcp:
    """An a=rtcp line: its port, and its address where it names one."""

    port_span: Span
    port: int
    address: Address | None


@dataclass(slots=True)
class Path:
    """The first URI of an MSRP a=path line (RFC 4975 §6): its host, and its port."""

    host: Address
    port_span: Span
    port: int


@dataclass(slots=True)
class Alternative:
    """An a=altc line: another address and port for the same stream (RFC 6947)."""

    address: Address
    port_span: Span
    port: int


@dataclass(slots=True)
class Media:
    """One m= line and what follows it, up to `end`; `connection` is its own or the session's.

    `setup` says in lower case who connects over TCP (RFC 4145), b"" where nobody says; `direction`
    is b"sendrecv" where nobody says otherwise (RFC 8866 §6.7).
    """

    kind: bytes
    port_span: Span
    port: int
    count: int
    protocol: bytes
    connection: Address | None
    end: int
    setup: bytes = b""
    direction: bytes = b"sendrecv"
    rtcp: Rtcp | None = None
    path: Path | None = None
    alternatives: list[Alternative] = field(default_factory=list)
    is_mux: bool = False
    is_cema: bool = False

    @property
    def is_rtp(self) -> bool:
        """Whether the stream has an RTCP companion, whatever its profile is called."""
        return b"RTP/" in self.protocol.upper()

    def names_rtcp(self) -> bool:
        """Whether an a=rtcp line names a port at the stream's own address (RFC 3605).

        Port 9 at 0.0.0.0, as browsers write it, names nothing.
        """
        if self.rtcp is None or self.rtcp.port in (0, DISCARD_PORT) or self.connection is None:
            return False
        address = self.rtcp.address
        return address is None or address.host == self.connection.host

    @property
    def rtcp_port(self) -> int:
        """The port at the stream's own address that takes RTCP; 0 where there is none."""
        if not self.is_rtp:
            return 0
        if self.rtcp is not None and self.names_rtcp():
            return self.rtcp.port
        return self.port + 1 if self.port < 65535 else 0

    @property
    def is_tcp(self) -> bool:
        """Whether the stream runs over TCP (RFC 4145, 4571, 4975)."""
        return b"TCP" in self.protocol.upper()


@dataclass(slots=True)
class SessionDescription:
    """The addresses of one description: o=, every c= (session's and media's), the media.

    `has_candidates` says that the phone probed the NAT by itself (RFC 8839).
    """

    origin: Address | None = None
    connections: list[Address] = field(default_factory=list)
    media: list[Media] = field(default_factory=list)
    has_candidates: bool = False


def parse_sdp(data: bytes, start: int, end: int) -> SessionDescription:
    """Reads the description that data[start:end] holds.

    Lines that do not parse are passed over: an address that cannot be read is one that must not be
    touched. A port above 65535 reads as 0, which is nobody's.
    """
    session = SessionDescription(has_candidates=data.find(b"\na=candidate:", start, end) >= 0)
    connection: Address | None = None
    setup, direction = b"", b"sendrecv"
    media: Media | None = None
    for match in _LINE.finditer(data, start, end):
        group = match.lastindex
        if group == 8:
            if media is not None:
                media.end = match.start()
            media = Media(
                match[5],
                Span(*match.span(6)),
                _port(match[6]),
                int((match[7] or b"1")[:6]),
                match[8],
                connection,
                end,
                setup,
                direction,
            )
            session.media.append(media)
        elif group == 4:
            address = _address(match, 4)
            session.connections.append(address)
            if media is None:
                connection = address
            else:
                media.connection = address
        elif group == 2:
            if session.origin is None:
                session.origin = _address(match, 2)
        elif group == 20:
            if media is None:
                setup = match[20].lower()
            else:
                media.setup = match[20].lower()
        elif group == 21:
            if media is None:
                direction = match[21].lower()
            else:
                media.direction = match[21].lower()
        elif media is None:
            continue
        elif group == 12:
            media.is_mux = True
        elif group == 19:
            media.is_cema = True
        elif group == 18:
            port_span = Span(*match.span(18))
            other = Alternative(_address(match, 17), port_span, _port(match[18]))
            media.alternatives.append(other)
        elif group == 15:
            host = _host(match[14], *match.span(14))
            media.path = Path(host, Span(*match.span(15)), _port(match[15]))
        else:
            named = None if match[11] is None else _address(match, 11)
            media.rtcp = Rtcp(Span(*match.span(9)), _port(match[9]), named)
    return session


def _address(match: re.Match[bytes], group: int) -> Address:
    """Returns the address of a group; its family is the group before."""
    family = 6 if match[group - 1] == b"6" else 4
    return Address(Span(*match.span(group)), match[group], family)


def _host(text: bytes, start: int, end: int) -> Address:
    """Returns the host of a URI; its brackets are no part of the address."""
    if text.startswith(b"["):
        return Address(Span(start + 1, end - 1), text[1:-1], 6)
    return Address(Span(start, end), text, 4)


def _port(digits: bytes) -> int:
    port = int(digits) if len(digits) <= 5 else 0
    return port if port <= 65535 else 0
