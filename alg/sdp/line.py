"""What one line of a session description says (RFC 8866, RFC 3605, RFC 4975).

One pattern reads a line: o=, c=, m= and the attributes that say where media goes and who connects;
everything else (candidates, crypto, fingerprints, attributes nobody has heard of) says nothing.

Phones repeat themselves, so what a line says is remembered. Lines with a port or the number of a
session are new in every call; of these the common forms are taken apart without the pattern, and
the pattern reads all others. Either way it is the same that is read.
"""

from __future__ import annotations

import re
from typing import Final

from alg.sip.host import canonical_address

# What a line is about.
NOTHING: Final = 0
ORIGIN: Final = 1
CONNECTION: Final = 2
MEDIA: Final = 3
RTCP: Final = 4
MUX: Final = 5
PATH: Final = 6
ALTERNATIVE: Final = 7
CEMA: Final = 8
SETUP: Final = 9
DIRECTION: Final = 10

_LINE = re.compile(
    rb"(?:"
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
    re.IGNORECASE,
)

_REMEMBERED: Final = frozenset((NOTHING, ORIGIN, CONNECTION, MUX, CEMA, SETUP, DIRECTION))
_LONGEST: Final = 64
_MOST: Final = 4096
_KINDS: Final = {
    b"m=" + kind: kind
    for kind in (b"audio", b"video", b"text", b"application", b"message", b"image")
}


class Protocol:
    """The protocol of an m= line: RTP/AVP has an RTCP companion, TCP/MSRP is over TCP."""

    __slots__ = ("is_rtp", "is_tcp", "name")

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.is_rtp = b"RTP/" in name.upper()
        self.is_tcp = b"TCP" in name.upper()


_PROTOCOLS: Final = {
    name: Protocol(name)
    for name in (b"RTP/AVP", b"RTP/SAVP", b"RTP/AVPF", b"RTP/SAVPF", b"UDP/TLS/RTP/SAVPF", b"udptl")
}


class Line:
    """What a line says; places count from where it begins.

    `text` is the direction, setup or kind of media, or the host in its one spelling
    empty where it is not one of its family (4 or 6; 0 where no host is named); `start` and `end`
    are where that host stands. A port above 65535 reads as 0, which is nobody's.
    """

    __slots__ = (
        "count",
        "end",
        "family",
        "kind",
        "port",
        "port_end",
        "port_start",
        "protocol",
        "start",
        "text",
    )

    def __init__(
        self,
        kind: int,
        text: bytes = b"",
        family: int = 0,
        start: int = 0,
        end: int = 0,
        port: int = 0,
        port_start: int = 0,
        port_end: int = 0,
        count: int = 1,
        protocol: Protocol | None = None,
    ) -> None:
        self.kind = kind
        self.text = text
        self.family = family
        self.start = start
        self.end = end
        self.port = port
        self.port_start = port_start
        self.port_end = port_end
        self.count = count
        self.protocol = protocol


_known: Final[dict[bytes, Line]] = {}


def read_line(text: bytes) -> Line:
    """Reads a line, its line feed aside."""
    known = _known.get(text)
    if known is not None:
        return known
    line: Line | None = None
    if text.startswith(b"m="):
        line = _media(text)
    elif text.startswith(b"o="):
        line = _origin(text)
    elif text.startswith(b"a=rtcp:"):
        line = _rtcp(text)
    return read_any_line(text) if line is None else line


def read_any_line(text: bytes) -> Line:
    """Reads a line by the pattern, and remembers what is likely to come again."""
    line = _read(text)
    if len(text) <= _LONGEST and line.kind in _REMEMBERED:
        if len(_known) >= _MOST:
            _known.clear()
        _known[text] = line
    return line


def _media(text: bytes) -> Line | None:
    parts = text.split(b" ", 3)
    if len(parts) < 4:
        return None
    kind, digits, protocol = _KINDS.get(parts[0]), parts[1], _PROTOCOLS.get(parts[2])
    if kind is None or protocol is None or not digits.isdigit():
        return None
    start = len(kind) + 3
    end = start + len(digits)
    return Line(MEDIA, kind, 0, 0, 0, _port(digits), start, end, 1, protocol)


def _origin(text: bytes) -> Line | None:
    """Reads an o= line as the one that has the same address and nothing before it."""
    place = text.rfind(b" IN IP")
    if place <= 2 or text.find(b"\r", 0, place) >= 0:
        return None
    short = read_line(b"o=" + text[place:])
    before = place - 2
    if short.kind != ORIGIN:
        return None
    return Line(ORIGIN, short.text, short.family, before + short.start, before + short.end)


def _rtcp(text: bytes) -> Line | None:
    end = len(text) - 1 if text.endswith(b"\r") else len(text)
    digits = text[7:end]
    return Line(RTCP, b"", 0, 0, 0, _port(digits), 7, end) if digits.isdigit() else None


def _read(text: bytes) -> Line:
    match = _LINE.match(text)
    group = match.lastindex if match is not None else None
    if match is None or group is None:
        return Line(NOTHING)
    if group == 2 or group == 4:
        return _naming(ORIGIN if group == 2 else CONNECTION, match, group)
    if group == 8:
        count = int((match[7] or b"1")[:6])
        start, end = match.span(6)
        return Line(
            MEDIA, match[5], 0, 0, 0, _port(match[6]), start, end, count, Protocol(match[8])
        )
    if group == 9:
        return _naming(RTCP, match, 0, 9)
    if group == 11:
        return _naming(RTCP, match, 11, 9)
    if group == 15:
        return _naming(PATH, match, 14, 15)
    if group == 18:
        return _naming(ALTERNATIVE, match, 17, 18)
    if group == 12:
        return Line(MUX)
    if group == 19:
        return Line(CEMA)
    return Line(SETUP if group == 20 else DIRECTION, match[group].lower())


def _naming(kind: int, match: re.Match[bytes], host: int, port: int = 0) -> Line:
    """Returns a line that names a host and a port: the numbers of their groups, 0 for none."""
    line = Line(kind)
    if host:
        text, (line.start, line.end) = match[host], match.span(host)
        if kind == PATH:
            line.family = 6 if text.startswith(b"[") else 4
            if line.family == 6:
                text, line.start, line.end = text[1:-1], line.start + 1, line.end - 1
        else:
            line.family = 6 if match[host - 1] == b"6" else 4
        line.text = canonical_address(text, line.family)
    if port:
        line.port, (line.port_start, line.port_end) = _port(match[port]), match.span(port)
    return line


def _port(digits: bytes) -> int:
    port = int(digits) if len(digits) <= 5 else 0
    return port if port <= 65535 else 0
