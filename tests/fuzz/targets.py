"""What is fuzzed, and what counts as a finding.

A target takes bytes and raises `Finding` (or anything else: that is a finding too) where something
is wrong. Every target starts from nothing, so that one file of bytes reproduces a finding. `judge`
adds the clock: no message may take more than 50 ms of processor time, measured again before it is
believed.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator

from alg.gateway_settings import GatewaySettings
from alg.packet import NotUdp, Truncated, decode_packet, encode_packet
from alg.port_manager import natpmp, pcp
from alg.port_manager.pcp_server import MAX_PORT_SET
from alg.sdp.multipart import find_sdp
from alg.sdp.session import Address, SessionDescription, parse_sdp
from alg.sip.host import canonical_address
from alg.sip.host_port import HostPort
from alg.sip.message import Malformed, NotSip, parse_message
from alg.sip.name_addr import parse_name_addrs
from alg.sip.span import Span, apply_edits
from alg.sip.stream import Piece, PieceKind, SipStream
from alg.sip.via import parse_via
from alg.verdict import Direction, Outcome, Reason, Verdict
from nat_table.behavior import Behavior
from nat_table.endpoint import Transport
from tests.alg.playbook import (
    EXTERNAL,
    PHONE,
    PHONE6,
    PHONE_2,
    SERVER,
    SERVER6,
    Playbook,
    invite,
    register,
    sdp,
)
from tests.alg.port_manager.router import OTHER_NONCE, Router

LIMIT = 0.05
SEPARATOR = b"\0\0"
SETTINGS = GatewaySettings((EXTERNAL,), has_tcp_media=True)
BEHAVIOR = Behavior(max_mappings=200, max_mappings_per_host=150)
FOR_EVER = 2.0**34


class Finding(AssertionError):
    """Something that must not happen, in a sentence."""


def fuzz_message(data: bytes) -> None:
    """Parses a message, and every value of its fields."""
    try:
        message = parse_message(data)
    except (NotSip, Malformed):
        return
    for field in message.fields:
        found: list[HostPort] = []
        if field.name == "via":
            found += parse_via(data, field.start, field.end)[0]
        else:
            values, _ = parse_name_addrs(data, field.start, field.end)
            found += [value.uri for value in values if value.uri is not None]
        for named in found:
            _check_span(data, Span(named.host_start, named.host_end))
    _check_span(data, message.body, may_be_empty=True)


def fuzz_sdp(data: bytes) -> None:
    """Looks for descriptions in a body; the first line of the bytes is its Content-Type."""
    content_type, _, body = data.partition(b"\n")
    start = len(content_type) + 1
    if start > len(data):
        return
    last = 0
    for begin, end in find_sdp(data, start, start + len(body), content_type.strip()):
        if not last <= begin <= end <= len(data):
            raise Finding("the parts overlap")
        last = end
        session = parse_sdp(data, begin, end)
        for address in _addresses(session):
            if not begin <= address.start < address.end <= end:
                raise Finding("an address is not in its description")
            text = data[address.start : address.end]
            if canonical_address(text, address.family) != address.host:
                raise Finding("an address is not where it is said to be")
        for stream in session.media:
            if not 0 <= stream.port <= 65535:
                raise Finding(f"port {stream.port}")


def _addresses(session: SessionDescription) -> Iterator[Address]:
    yield from session.connections
    if session.origin is not None:
        yield session.origin
    for stream in session.media:
        if stream.path is not None:
            yield stream.path.address
        if stream.rtcp is not None and stream.rtcp.address is not None:
            yield stream.rtcp.address


def fuzz_packet(data: bytes) -> None:
    """Decodes a packet and puts payloads back into it."""
    try:
        packet = decode_packet(data)
    except (NotUdp, Truncated):
        return
    for payload in (packet.payload, packet.payload + b"x", b""):
        try:
            again = decode_packet(encode_packet(packet, payload, 1))
        except ValueError:
            if len(packet.payload) < 65000:
                raise
            return
        ends = again.source, again.destination
        if again.payload != payload or ends != (packet.source, packet.destination):
            raise Finding("a packet did not come back as it went")


def fuzz_stream(data: bytes) -> None:
    """Frames a stream in one piece and in cuts; the first octet says how long the cuts are."""
    cut, stream = 1 + data[0] if data else 1, data[1:]
    whole, pieces = SipStream(4096), SipStream(4096)
    first = [*whole.feed(stream), *whole.finish()]
    second = []
    for start in range(0, len(stream), cut):
        second += pieces.feed(stream[start : start + cut])
        if pieces.held > 4096 + cut:
            raise Finding(f"{pieces.held} octets are held")
    second += pieces.finish()
    for found in (first, second):
        if b"".join(piece.data for piece in found) != stream:
            raise Finding("octets were lost or added")
    if _certain(first) != _certain(second):
        raise Finding("the cuts decide what is a message")


def _certain(found: list[Piece]) -> list[Piece]:
    return [piece for piece in found if piece.kind is not PieceKind.OPAQUE]


def fuzz_gateway(data: bytes) -> None:
    """Sends datagrams through one gateway: each begins with an octet for direction and pause."""
    play = Playbook(behavior=BEHAVIOR, settings=SETTINGS, mode6="nat66")
    play.outbound(register(PHONE))
    play.outbound(invite(PHONE_2, sdp(PHONE_2.address, 4000), call_id="other"), PHONE_2)
    for chunk in data.split(SEPARATOR)[:20]:
        if not chunk:
            continue
        choice, payload = chunk[0], chunk[1:]
        phone = PHONE6 if choice & 32 else PHONE_2 if choice & 4 else PHONE
        server = SERVER6 if phone is PHONE6 else SERVER
        by = Transport.TCP if choice & 64 else Transport.UDP
        play.wait((0, 0, 0.5, 40)[(choice >> 3) % 4])
        if choice & 3 == 0:
            direction, outcome = (
                Direction.INBOUND,
                play.inbound(payload, phone, server, transport=by),
            )
        elif choice & 3 == 1:
            direction, outcome = Direction.HAIRPIN, play.hairpin(payload, phone, transport=by)
        else:
            direction = Direction.OUTBOUND
            outcome = play.outbound(payload, phone, server, transport=by)
        _check_outcome(payload, outcome)
        if direction is Direction.OUTBOUND:
            again = play.outbound(payload, phone, server, transport=by)
            if again.payload != outcome.payload:
                raise Finding("a retransmission leaves differently")
        _check_size(play)
    play.wait(FOR_EVER)
    left = (len(play.table), play.gateway.call_count, play.gateway.registration_count)
    if left != (0, 0, 0):
        raise Finding(f"mappings, calls, registrations {left} stay for ever")


def fuzz_request(data: bytes) -> None:
    """Sends octets to the PCP and NAT-PMP servers of a router with a lease of somebody else's."""
    _check_codec(data)
    router = Router()
    router.map(nonce=OTHER_NONCE)
    (others,) = router.leases.all()
    for send in (router.send, router.send_natpmp):
        answer = send(data)
        if answer != send(data):
            raise Finding("the same request has another answer")
        if answer is not None and not (data[1] < 128 <= answer[1] and len(answer) <= 1100):
            raise Finding(f"the answer is {answer!r}")
    if len(router.table) > 1 + MAX_PORT_SET:
        raise Finding(f"one request has opened {len(router.table)} ports")
    if others not in router.leases.all() and OTHER_NONCE not in data:
        raise Finding("the lease of another nonce has changed")
    if any(each.internal.address != PHONE.address for each in router.table.bindings()):
        raise Finding("a port of another host is open")
    router.table.expire(FOR_EVER)
    if len(router.table):
        raise Finding("a lease stays for ever")


def _check_codec(data: bytes) -> None:
    with contextlib.suppress(pcp.NotRequest, pcp.BadRequest):
        request = pcp.parse_request(data)
        if pcp.parse_request(pcp.encode_request(request)) != request:
            raise Finding("a PCP request did not come back as it went")
    with contextlib.suppress(pcp.NotResponse):
        response = pcp.parse_response(data)
        if pcp.parse_response(pcp.encode_response(response)) != response:
            raise Finding("a PCP response did not come back as it went")
    with contextlib.suppress(natpmp.NotResponse):
        answer = natpmp.parse_response(data)
        if natpmp.parse_response(natpmp.encode_response(answer)) != answer:
            raise Finding("a NAT-PMP response did not come back as it went")


def _check_outcome(payload: bytes, outcome: Outcome) -> None:
    if outcome.reason is Reason.ERROR or outcome.verdict is Verdict.DROPPED:
        raise Finding(f"{outcome.reason.value}: {outcome.detail}")
    if apply_edits(payload, outcome.edits) != outcome.payload:
        raise Finding("bytes changed without an edit")
    if any(re.search(rb"[^0-9.:a-z=\[\]\r\n]", edit.new) for edit in outcome.edits):
        raise Finding("an edit writes something odd")
    if outcome.edits:
        parse_message(outcome.payload)


def _check_size(play: Playbook) -> None:
    sizes = (len(play.table), play.gateway.call_count, play.gateway.registration_count)
    if sizes[0] > BEHAVIOR.max_mappings or max(sizes[1:]) > 42:
        raise Finding(f"mappings, calls, registrations grow: {sizes}")


def _check_span(data: bytes, span: Span, *, may_be_empty: bool = False) -> None:
    if not 0 <= span.start <= span.end <= len(data) or (span.start == span.end) > may_be_empty:
        raise Finding(f"{span} in {len(data)} bytes")


TARGETS: dict[str, Callable[[bytes], None]] = {
    "message": fuzz_message,
    "gateway": fuzz_gateway,
    "sdp": fuzz_sdp,
    "packet": fuzz_packet,
    "stream": fuzz_stream,
    "request": fuzz_request,
}


def limit_of(target: str, data: bytes) -> float:
    """Returns the seconds that an input may take; the gateway's are several messages."""
    return LIMIT * (min(20, data.count(SEPARATOR) + 1) * 2 if target == "gateway" else 1)


def judge(target: str, data: bytes, tries: int = 3) -> str | None:
    """Returns what is wrong with an input, None if nothing is; slow is what is slow every time."""
    best = float("inf")
    for _ in range(tries):
        start = time.process_time()
        try:
            TARGETS[target](data)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        best = min(best, time.process_time() - start)
        if best <= limit_of(target, data):
            return None
    return f"takes {best * 1000:.0f} ms"


def shrink(target: str, data: bytes, seconds: float = 20.0) -> bytes:
    """Returns a smaller input with a finding of the same kind."""
    kind = _kind(judge(target, data, 1))
    end = time.process_time() + seconds
    size = len(data) // 2
    while size:
        start = 0
        while start < len(data) and time.process_time() < end:
            less = data[:start] + data[start + size :]
            if _kind(judge(target, less, 1)) == kind:
                data = less
            else:
                start += size
        size //= 2
    return data


def _kind(finding: str | None) -> str:
    return re.sub(r"[0-9]+", "", finding or "")[:60]
