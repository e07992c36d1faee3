"""Where addresses and ports stand in a session description (RFC 8866, RFC 3605, RFC 4975).

Its lines are read one by one (`alg.sdp.line`) and put together here: a media section without a c=,
a=setup or direction of its own has the session's.
"""

from __future__ import annotations

from typing import Final

from alg.sdp.line import (
    ALTERNATIVE,
    CEMA,
    CONNECTION,
    DIRECTION,
    MEDIA,
    MUX,
    NOTHING,
    ORIGIN,
    PATH,
    RTCP,
    SETUP,
    Line,
    Protocol,
    read_line,
)

DISCARD_PORT: Final = 9


class Address:
    """An address in an o=, c= or a= line: where it stands, and its family (4 or 6).

    `host` is its one spelling (`alg.sip.host`), empty where it is not one of its family.
    """

    __slots__ = ("end", "family", "host", "start")

    def __init__(self, line: Line, place: int) -> None:
        """Takes the line that names it, and where this begins."""
        self.start = place + line.start
        self.end = place + line.end
        self.family = line.family
        self.host = line.text


class Target:
    """An address and a port that an a=path or a=altc line names (RFC 4975 §6, RFC 6947)."""

    __slots__ = ("address", "port", "port_end", "port_start")

    def __init__(self, line: Line, place: int) -> None:
        self.address = Address(line, place)
        self.port = line.port
        self.port_start = place + line.port_start
        self.port_end = place + line.port_end


class Rtcp:
    """An a=rtcp line: its port, and its address where it names one."""

    __slots__ = ("address", "port", "port_end", "port_start")

    def __init__(self, line: Line, place: int) -> None:
        self.address = Address(line, place) if line.family else None
        self.port = line.port
        self.port_start = place + line.port_start
        self.port_end = place + line.port_end


class Media:
    """One m= line and what follows it, up to `end`; `connection` is its own or the session's.

    `setup` says in lower case who connects over TCP (RFC 4145), b"" where nobody says; `direction`
    is b"sendrecv" where nobody says otherwise (RFC 8866 §6.7). `path` is the first URI of an MSRP
    a=path line.
    """

    __slots__ = (
        "alternatives",
        "connection",
        "count",
        "direction",
        "end",
        "is_cema",
        "is_mux",
        "kind",
        "path",
        "port",
        "port_end",
        "port_start",
        "protocol",
        "rtcp",
        "setup",
    )

    def __init__(
        self,
        kind: bytes,
        protocol: Protocol,
        port: int,
        port_start: int,
        port_end: int,
        count: int,
        connection: Address | None,
        end: int,
        setup: bytes,
        direction: bytes,
    ) -> None:
        self.kind = kind
        self.protocol = protocol
        self.port = port
        self.port_start = port_start
        self.port_end = port_end
        self.count = count
        self.connection = connection
        self.end = end
        self.setup = setup
        self.direction = direction
        self.rtcp: Rtcp | None = None
        self.path: Target | None = None
        self.alternatives: list[Target] = []
        self.is_mux = False
        self.is_cema = False

    def at(self, other: Target) -> Media:
        """Returns the stream with the address and port of an a=altc line, as if by c= and m=."""
        return Media(
            self.kind,
            self.protocol,
            other.port,
            other.port_start,
            other.port_end,
            1,
            other.address,
            self.end,
            self.setup,
            self.direction,
        )

    @property
    def is_rtp(self) -> bool:
        """Whether the stream has an RTCP companion, whatever its profile is called."""
        return self.protocol.is_rtp

    @property
    def is_tcp(self) -> bool:
        """Whether the stream runs over TCP (RFC 4145, 4571, 4975)."""
        return self.protocol.is_tcp

    def names_rtcp(self) -> bool:
        """Whether an a=rtcp line names a port at the stream's own address (RFC 3605).

        Port 9 at 0.0.0.0, as browsers write it, names nothing.
        """
        rtcp = self.rtcp
        if rtcp is None or rtcp.port == 0 or rtcp.port == DISCARD_PORT or self.connection is None:
            return False
        return rtcp.address is None or rtcp.address.host == self.connection.host

    @property
    def rtcp_port(self) -> int:
        """The port at the stream's own address that takes RTCP; 0 where there is none."""
        if not self.protocol.is_rtp:
            return 0
        if self.rtcp is not None and self.names_rtcp():
            return self.rtcp.port
        return self.port + 1 if self.port < 65535 else 0


class SessionDescription:
    """The addresses of one description: o=, every c= (session's and media's), the media.

    `has_candidates` says that the phone probed the NAT by itself (RFC 8839).
    """

    __slots__ = ("connections", "has_candidates", "media", "origin")

    def __init__(self, has_candidates: bool) -> None:
        self.origin: Address | None = None
        self.connections: list[Address] = []
        self.media: list[Media] = []
        self.has_candidates = has_candidates


def parse_sdp(data: bytes, start: int, end: int) -> SessionDescription:
    """Reads the description that data[start:end] holds.

    Lines that do not parse are passed over: an address that cannot be read is one that must not be
    touched. A port above 65535 reads as 0, which is nobody's.
    """
    session = SessionDescription(data.find(b"\na=candidate:", start, end) >= 0)
    connection: Address | None = None
    setup, direction = b"", b"sendrecv"
    media: Media | None = None
    place = start
    for text in data[start:end].split(b"\n"):
        line = read_line(text)
        kind = line.kind
        if kind == NOTHING:
            pass
        elif kind == MEDIA and line.protocol is not None:
            if media is not None:
                media.end = place
            media = Media(
                line.text,
                line.protocol,
                line.port,
                place + line.port_start,
                place + line.port_end,
                line.count,
                connection,
                end,
                setup,
                direction,
            )
            session.media.append(media)
        elif kind == CONNECTION:
            address = Address(line, place)
            session.connections.append(address)
            if media is None:
                connection = address
            else:
                media.connection = address
        elif kind == ORIGIN:
            if session.origin is None:
                session.origin = Address(line, place)
        elif kind == SETUP:
            if media is None:
                setup = line.text
            else:
                media.setup = line.text
        elif kind == DIRECTION:
            if media is None:
                direction = line.text
            else:
                media.direction = line.text
        elif media is not None:
            _describe(media, line, place)
        place += len(text) + 1
    return session


def _describe(media: Media, line: Line, place: int) -> None:
    """Takes in an attribute that belongs to a stream alone."""
    kind = line.kind
    if kind == RTCP:
        media.rtcp = Rtcp(line, place)
    elif kind == MUX:
        media.is_mux = True
    elif kind == CEMA:
        media.is_cema = True
    elif kind == ALTERNATIVE:
        media.alternatives.append(Target(line, place))
    elif kind == PATH:
        media.path = Target(line, place)
