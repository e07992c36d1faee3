"""read_line: what is remembered or taken apart by hand is what the pattern reads."""

from __future__ import annotations

import random

from alg.sdp import line
from alg.sdp.line import Line, read_any_line, read_line

LINES = (
    b"v=0\r",
    b"o=- 20518 0 IN IP4 10.0.0.20\r",
    b"o=jdoe 2890844526 1 IN IP6 2001:DB8::1 \r",
    b"s=c=IN IP4 10.0.0.1\r",
    b"c=IN IP4 10.0.0.20\r",
    b"c=IN IP4 233.252.0.1/127/3\r",
    b"m=audio 4000 RTP/AVP 0 8 101\r",
    b"m=video 4002/2 RTP/SAVPF 96\r",
    b"m=message 2855 TCP/MSRP *\r",
    b"a=rtcp:4001\r",
    b"a=rtcp:4001 IN IP4 10.0.0.20\r",
    b"a=rtcp-mux\r",
    b"a=path:msrp://10.0.0.20:2855/s1;tcp\r",
    b"a=altc:1 IP6 2001:db8::1 4000\r",
    b"a=msrp-cema\r",
    b"a=setup:actpass\r",
    b"a=sendonly\r",
    b"a=candidate:1 1 UDP 2130706431 10.0.0.20 4000 typ host\r",
)
PIECES = (
    b" ",
    b"\t",
    b"\r",
    b"/",
    b"9",
    b" IN IP4 ",
    b" in ip6 ",
    b"::",
    b"m=audio ",
    b"65536",
    b"\0",
)
DRAWN = 20000


def said(read: Line) -> tuple[object, ...]:
    """Returns all that a line says."""
    values = {name: getattr(read, name) for name in dir(read) if name[0] != "_"}
    protocol = values.pop("protocol")
    name = None if protocol is None else (protocol.name, protocol.is_rtp, protocol.is_tcp)
    return name, *values.items()


def drawn(rng: random.Random) -> bytes:
    """Returns one of the lines with some of its octets changed."""
    text = rng.choice(LINES)
    for _ in range(rng.randrange(4)):
        start = rng.randrange(len(text) + 1)
        piece = rng.choice(PIECES) if rng.random() < 0.6 else b""
        text = text[:start] + piece + text[start + rng.randrange(4) :]
    return text


def test_a_line_reads_the_same_however_it_is_read() -> None:
    rng = random.Random(9)
    for _ in range(DRAWN):
        text = drawn(rng)
        ways = (read_line(text), read_line(text), read_any_line(text))
        assert len({said(read) for read in ways}) == 1, text


def test_a_flood_of_lines_is_not_remembered_for_ever() -> None:
    for number in range(3 * line._MOST):
        read_line(b"a=x-%d" % number)
        read_line(b"a=y:" + b"%d" % number * line._LONGEST)
    assert len(line._known) <= line._MOST
    assert all(len(text) <= line._LONGEST for text in line._known)
