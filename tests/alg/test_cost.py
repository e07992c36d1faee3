"""Cost grows with a message's size and no faster, up to 64 kB: counted, not timed.

Counted are the calls that the interpreter makes (its own functions and C functions) and the octets
that are handed to patterns and to methods of `bytes`: a message twice as long may cost twice as
much. What a pattern does inside cannot be counted; but whoever starts over at each of 65,536 octets
takes seconds, so a coarse guard finds it: 50 ms of processor time a message, believed only when
three tries agree.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable
from types import FrameType, ModuleType
from typing import Any

import pytest

import alg.gateway
import alg.sdp.line
import alg.sdp.multipart
import alg.sdp.session
import alg.sip.grammar
import alg.sip.header_line
import alg.sip.message
import alg.sip.name_addr
import alg.sip.start_line
import alg.sip.uri
import alg.sip.via
from alg.verdict import Outcome, Reason
from tests.alg.playbook import PHONE, Playbook, invite, sdp

SENDERS: dict[str, Callable[[Playbook, bytes], Outcome]] = {
    "outbound": Playbook.outbound,
    "inbound": Playbook.inbound,
    "hairpin": Playbook.hairpin,
}
FULL = 65000
LIMIT = 0.05
TRIES = 3
MODULES = (
    *(alg.sip.grammar, alg.sip.message, alg.sip.via, alg.sip.uri, alg.sip.name_addr),
    *(alg.sip.header_line, alg.sip.start_line),
    *(alg.sdp.line, alg.sdp.session, alg.sdp.multipart, alg.gateway),
)
HEAD, _, _ = invite(PHONE).partition(b"Content-Length")
VIA = b"SIP/2.0/UDP 10.0.0.20:5060;branch=z9hG4bK1"
SDP = sdp("10.0.0.20", 4000).replace("\n", "\r\n").encode()


def fields(piece: bytes) -> Callable[[int], bytes]:
    """Returns a message of so many octets whose header block is made of the piece."""
    return lambda size: HEAD + piece * ((size - len(HEAD)) // len(piece)) + b"\r\n"


def value(name: bytes, begin: bytes, piece: bytes, end: bytes = b"") -> Callable[[int], bytes]:
    """Returns a message with one field whose value is made of the piece."""
    start = HEAD + name + b": " + begin
    return lambda size: start + piece * ((size - len(start)) // len(piece)) + end + b"\r\n\r\n"


def body(
    content_type: bytes, begin: bytes, piece: bytes, end: bytes = b""
) -> Callable[[int], bytes]:
    """Returns a message with a body that is made of the piece."""
    start = HEAD + b"Content-Type: " + content_type + b"\r\n\r\n" + begin
    return lambda size: start + piece * ((size - len(start)) // len(piece)) + end


def description(piece: bytes, end: bytes = b"") -> Callable[[int], bytes]:
    return body(b"application/sdp", SDP, piece, end)


def nested(size: int) -> bytes:
    """Returns multiparts in multiparts, as deep as the size allows."""
    opening, closing, depth = b"", b"", 0
    while len(opening) < size - len(HEAD) - 200:
        opening += b"--b%d\r\nContent-Type: multipart/mixed;boundary=b%d\r\n\r\n" % (
            depth,
            depth + 1,
        )
        depth += 1
    return HEAD + b"Content-Type: multipart/mixed;boundary=b0\r\n\r\n" + opening + closing


MIXED = b"multipart/mixed;boundary=b"
PART = b"--b\r\nContent-Type: application/sdp\r\n\r\nc=IN IP4 10.0.0.20\r\n"
SHAPES: dict[str, Callable[[int], bytes]] = {
    "many unknown fields": fields(b"X: y\r\n"),
    "many folded fields": fields(b"X:\r\n y\r\n z: a\r\n"),
    "many Via fields": fields(b"Via: " + VIA + b"\r\n"),
    "many compact fields": fields(b"m: <sip:a@10.0.0.20>\r\n"),
    "many Vias": value(b"Via", VIA, b", " + VIA),
    "many foreign Vias": value(b"Via", VIA, b",SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1"),
    "many Contacts": value(b"Contact", b"*", b", <sip:a@10.0.0.20>"),
    "many plain Contacts": value(b"m", b"<sip:a@b>", b",sip:a@10.0.0.20:5060"),
    "many Routes": value(b"Route", b"<sip:b@c>", b" , <sip:10.0.0.20;lr>"),
    "many Record-Routes": fields(b"Record-Route: <sip:10.0.0.20;lr>\r\n"),
    "many parameters": value(b"Contact", b"<sip:a@10.0.0.20>", b';x="10.0.0.20"'),
    "many Via parameters": value(b"Via", VIA, b";x=y"),
    "many tags": value(b"Reply-To", b"<sip:a@10.0.0.20>", b";tag = "),
    "many URI parameters": value(b"Contact", b"<sip:a@10.0.0.20", b";x=y", b">"),
    "many quoted strings": value(b"Contact", b"", b'"10.0.0.20" '),
    "a long value": value(b"X", b"", b"y"),
    "a long quoted string": value(b"Contact", b'"', b'\\"', b'" <sip:a@10.0.0.20>'),
    "an open quoted string": value(b"Contact", b'"', b'\\"10.0.0.20'),
    "a long user": value(b"Contact", b"<sip:", b"a", b"@10.0.0.20>"),
    "a long host": value(b"Contact", b"<sip:10.0.0.20@", b"a."),
    "a long display name": value(b"Contact", b"", b"a ", b"<sip:10.0.0.20>"),
    "long white space": value(b"Contact", b"<sip:10.0.0.20>", b" ", b";q=1"),
    "long white space in a list": value(b"Route", b"<sip:10.0.0.20>", b" ", b"x"),
    "a long folded value": value(b"X", b"y", b"\r\n y"),
    "a long folded list": value(b"Contact", b"<sip:b@c>", b"\r\n ,\r\n <sip:10.0.0.20>"),
    "long folded white space": value(b"Via", VIA, b"\r\n "),
    "a long Via host": value(b"Via", b"SIP/2.0/UDP ", b"1.", b"10.0.0.20"),
    "many slashes in a Via": value(b"Via", b"SIP", b" / "),
    "many semicolons": value(b"Contact", b"<sip:10.0.0.20>", b";"),
    "many at signs": value(b"Contact", b"<sip:10.0.0.20", b"@", b">"),
    "a long Content-Type": value(b"Content-Type", b"multipart/mixed", b";boundary = ", b"b"),
    "credentials": value(b"Authorization", b"Digest", b" qop = \r\n auth-int-x,"),
    "many credentials": fields(b"Authorization: qop=auth-in,auth-int2\r\n"),
    "many m= lines": description(b"m=audio 4000 RTP/AVP 0\r\n"),
    "many a= lines": description(b"a=rtpmap:0 PCMU/8000\r\n"),
    "many candidates": description(b"a=candidate:1 1 UDP 1 10.0.0.20 4000 typ host\r\n"),
    "many a=rtcp lines": description(b"a=rtcp:4001 IN IP4 10.0.0.20\r\n"),
    "many c= lines": description(b"c=IN IP4 10.0.0.20\r\n"),
    "many o= lines": description(b"o=- 1 1 IN IP4 10.0.0.20\n"),
    "many m= and a= lines": lambda size: (
        HEAD
        + b"Content-Type: application/sdp\r\n\r\n"
        + SDP
        + (b"m=audio 4000 RTP/AVP 0\r\n" + b"a=x\r\n" * (size // 330)) * 62
    ),
    "a long o= line": body(b"application/sdp", SDP + b"o=", b" IN IP4"),
    "long a=path": body(b"application/sdp", SDP + b"a=path:msrp://10.0.0.20", b"@"),
    "empty lines": description(b"\r\n", b"a=x\r\n"),
    "carriage returns": description(b"\r"),
    "many parts": body(MIXED, b"", PART, b"--b--"),
    "almost boundaries": body(MIXED, b"", b"\r\n--", b"\r\n--b--"),
    "padding of a boundary": body(MIXED, b"--b", b" ", b"x"),
    "many fields in a part": body(MIXED, b"--b\r\n", b"Content-X: y\r\n", b"\r\n--b--"),
    "folded fields in a part": body(MIXED, b"--b\r\nA: b", b"\r\n c: d", b"\r\n--b--"),
    "deep multipart": nested,
    "line ends": lambda size: b"\r\n" * (size // 2 - 300) + invite(PHONE, SDP),
    "a long Request-URI": lambda size: HEAD.replace(b"bob", b"b" * (size - 400), 1) + b"\r\n",
    "a long method": lambda size: b"A" * size + b" x SIP/2.0\r\n\r\n",
    "no SIP at all": lambda size: b"GET " + b"/ " * (size // 2) + b"HTTP/1.1\r\n\r\n",
}


class CountedBytes(bytes):
    """A message that counts the octets its methods look at, at most."""

    octets = 0

    def find(self, sub: Any, *span: Any) -> int:
        found = bytes.find(self, sub, *span)
        start, end = (*span, len(self))[:2] if span else (0, len(self))
        CountedBytes.octets += (end if found < 0 else found) - start
        return found

    def index(self, sub: Any, *span: Any) -> int:
        found = bytes.index(self, sub, *span)
        CountedBytes.octets += found - (span[0] if span else 0)
        return found

    def __getitem__(self, key: Any) -> Any:
        taken = bytes.__getitem__(self, key)
        CountedBytes.octets += len(taken) if isinstance(taken, bytes) else 1
        return taken


class CountedPattern:
    """A pattern that counts the octets it may look at: up to its match, or to the end."""

    def __init__(self, pattern: re.Pattern[bytes]) -> None:
        self._pattern = pattern

    def _count(
        self, match: re.Match[bytes] | None, data: bytes, span: tuple[int, ...]
    ) -> re.Match[bytes] | None:
        start, end = (*span, len(data))[:2] if span else (0, len(data))
        CountedBytes.octets += (match.end() if match else min(end, len(data))) - start
        return match

    def search(self, data: bytes, *span: int) -> re.Match[bytes] | None:
        return self._count(self._pattern.search(data, *span), data, span)

    def match(self, data: bytes, *span: int) -> re.Match[bytes] | None:
        """Counts a failed match as one octet: it is anchored, and what it reads is guarded."""
        match = self._pattern.match(data, *span)
        return self._count(match, data, span) if match else None

    def fullmatch(self, data: bytes, *span: int) -> re.Match[bytes] | None:
        return self._count(self._pattern.fullmatch(data, *span), data, span)

    def __getattr__(self, name: str) -> object:
        return getattr(self._pattern, name)


@pytest.fixture
def counted_patterns(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in MODULES:
        for name, found in list(vars(module).items()):
            if isinstance(found, re.Pattern):
                monkeypatch.setattr(module, name, CountedPattern(found))


def cost_of(data: bytes, send: str) -> int:
    """Returns calls and octets that one message costs."""
    play = Playbook()
    play.outbound(invite(PHONE, SDP))
    calls = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    CountedBytes.octets = 0
    sys.setprofile(count)
    try:
        outcome = SENDERS[send](play, CountedBytes(data))
    finally:
        sys.setprofile(None)
    assert outcome.reason is not Reason.ERROR, outcome.detail
    return calls + CountedBytes.octets


@pytest.mark.usefixtures("counted_patterns")
@pytest.mark.parametrize("shape", SHAPES)
def test_a85_twice_the_size_is_twice_the_cost(shape: str) -> None:
    for send in ("outbound", "inbound"):
        half, full = (cost_of(SHAPES[shape](size), send) for size in (FULL // 2, FULL))
        assert full <= 2.2 * half + 500, (send, half, full)
        assert full <= 30 * FULL, (send, full)


@pytest.mark.parametrize("shape", SHAPES)
def test_a85_no_message_holds_the_gateway_up(shape: str) -> None:
    data = SHAPES[shape](FULL)
    assert len(data) <= 65535
    for send in SENDERS:
        assert any(time_of(data, send) < LIMIT for _ in range(TRIES)), send


def time_of(data: bytes, send: str) -> float:
    play = Playbook()
    play.outbound(invite(PHONE, SDP))
    start = time.process_time()
    outcome = SENDERS[send](play, data)
    taken = time.process_time() - start
    assert outcome.reason is not Reason.ERROR, outcome.detail
    return taken


def test_the_counting_would_see_a_quadratic_cost() -> None:
    def scan(data: bytes, module: ModuleType = re) -> None:
        for place in range(0, len(data), 100):
            data.find(b"no such thing", place)

    costs = []
    for size in (1000, 2000):
        CountedBytes.octets = 0
        scan(CountedBytes(b"x" * size))
        costs.append(CountedBytes.octets)
    assert costs[1] > 3 * costs[0]
