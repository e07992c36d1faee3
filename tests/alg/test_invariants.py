"""The promises of the packet walk, each by its name: raw packets through the daemon, no kernel."""

from __future__ import annotations

import random
import sys
from types import FrameType

import dpkt
import pytest

from alg.config import Config
from alg.daemon.ledger import Ledger
from alg.daemon.packet_path import PacketPath
from alg.daemon.settings import table_behavior
from alg.datagram import Datagram, Side
from alg.gateway import Gateway
from alg.gateway_settings import GatewaySettings
from alg.packet import decode_packet
from alg.sip.span import apply_edits
from alg.verdict import Outcome, Reason
from alg.version import is_compiled
from nat_table.binding import Kind, Owner
from nat_table.endpoint import Endpoint, Transport
from nat_table.table import NatTable
from rules.memory import MemoryBackend
from rules.settings import Settings
from tests.alg.playbook import EXTERNAL, PHONE, SERVER, Playbook, invite, register, request, sdp

LAN, WAN = 1, 2
OFFER = sdp("10.0.0.20", 4000)


class Router:
    """A gateway whose kernel is in memory; interface 1 is internal, 2 external."""

    def __init__(self) -> None:
        settings = Settings(("lan0",), "wan0", (EXTERNAL,))
        self.kernel = MemoryBackend(settings)
        config = Config(internal=("lan0",), external="wan0")
        table = NatTable((EXTERNAL,), table_behavior(config, settings), random.Random(1))
        self.gateway = Gateway(GatewaySettings((EXTERNAL,)), table)
        sides = {LAN: Side.INTERNAL, WAN: Side.EXTERNAL}
        self.path = PacketPath(self.gateway, Ledger(table, self.kernel), sides.__getitem__, 0)

    def send_out(self, payload: bytes) -> bytes | None:
        """Sends a phone's packet through the queue; returns the payload that leaves, if any."""
        answer = self.path.handle(packet(payload), LAN, WAN)
        return None if answer is None else decode_packet(answer).payload

    def standing(self) -> dict[str, str]:
        """Returns internal -> external of what stands in the kernel."""
        return {str(each.internal): str(each.external) for each in self.kernel.listing()}


def packet(payload: bytes, source: Endpoint = PHONE, destination: Endpoint = SERVER) -> bytes:
    udp = dpkt.udp.UDP(sport=source.port, dport=destination.port, data=payload)
    udp.ulen = len(udp)
    ip = dpkt.ip.IP(
        src=bytes(map(int, source.address.split("."))),
        dst=bytes(map(int, destination.address.split("."))),
        p=dpkt.ip.IP_PROTO_UDP,
        data=udp,
    )
    ip.len = len(ip)
    return bytes(ip)


@pytest.fixture
def router() -> Router:
    return Router()


def test_one_binding_two_projections(router: Router) -> None:
    left = router.send_out(invite(PHONE, OFFER))
    assert left is not None
    standing = router.standing()
    assert f"c=IN IP4 {EXTERNAL}".encode() in left
    assert f"m=audio {standing['10.0.0.20:4000'].split(':')[1]} ".encode() in left
    assert f"Contact: <sip:alice@{standing['10.0.0.20:5060']}>".encode() in left


def test_rules_before_payload(router: Router) -> None:
    router.kernel.is_refusing = True
    assert router.send_out(invite(PHONE, OFFER)) is None
    assert router.standing() == {}
    assert len(router.gateway.table) == 0
    assert router.gateway.counters[Reason.COMMIT_FAILED] == 1
    router.kernel.is_refusing = False
    left = router.send_out(invite(PHONE, OFFER))
    assert left is not None and f"c=IN IP4 {EXTERNAL}".encode() in left
    assert set(router.standing()) == {"10.0.0.20:5060", "10.0.0.20:4000", "10.0.0.20:4001"}


def test_touch_only_what_you_edit() -> None:
    play = Playbook()
    message = invite(PHONE, OFFER)
    outcome = play.outbound(message)
    assert apply_edits(message, outcome.edits) == outcome.payload
    kept = [
        message[before.end : after.start]
        for before, after in zip(outcome.edits, outcome.edits[1:], strict=False)
    ]
    assert all(piece in outcome.payload for piece in kept)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\r\n\r\n",
        b"\0\0\0\0",
        b"jaK",
        b"\x16\x03\x01\x02\x00\x01",
        b"INVITE sip:bob@example.com SIP/2.0\r\nVia: nonsense\r\n\r\n",
        bytes(range(256)),
    ],
)
def test_never_worse_than_absent(router: Router, payload: bytes) -> None:
    raw = packet(payload)
    assert router.path.handle(raw, LAN, WAN) is raw
    assert router.standing() == {}


def test_a88_tls_and_secure_websocket_octets_are_not_touched(router: Router) -> None:
    for payload in (
        b"\x16\x03\x01\x00\xf5\x01",
        b"\x16\xfe\xfd\x00\x00",
        b"GET / HTTP/1.1\r\n\r\n",
    ):
        raw = packet(payload, destination=Endpoint(SERVER.address, 5061))
        assert router.path.handle(raw, LAN, WAN) is raw
    assert router.gateway.counters[Reason.NOT_SIP] == 3


def test_never_worse_than_absent_for_what_is_no_datagram(router: Router) -> None:
    for raw in (b"", b"\x45", packet(b"x" * 50)[:40], b"\x60" + bytes(60)):
        assert router.path.handle(raw, LAN, WAN) is raw


def test_same_request_same_answer(router: Router) -> None:
    first = router.send_out(invite(PHONE, OFFER))
    assert router.send_out(invite(PHONE, OFFER)) == first


def test_no_verdict_without_a_reason(router: Router) -> None:
    payloads = [invite(PHONE, OFFER), register(PHONE), b"nonsense", b"\r\n", request("OPTIONS")]
    for payload in payloads:
        router.path.handle(packet(payload), LAN, WAN)
    router.path.handle(b"\x45", LAN, WAN)
    counters = router.gateway.counters
    assert sum(counters.values()) == len(payloads) + 1
    assert counters[Reason.REWRITTEN] == 3
    assert counters[Reason.ERROR] == 0


def work(play: Playbook, message: bytes) -> tuple[int, Outcome]:
    """Returns how many Python and C functions one message takes, and its outcome."""
    calls = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    datagram = Datagram(PHONE, SERVER, message)
    sys.setprofile(count)
    try:
        outcome = play.gateway.receive(datagram, play.now)
    finally:
        sys.setprofile(None)
    return calls, outcome


def loaded(mappings: int) -> Playbook:
    """Returns a router with so many mappings, which have the ports that phones ask for first."""
    play = Playbook()
    for number in range(mappings):
        internal = Endpoint(f"10.1.{number // 250}.{number % 250}", 5060)
        play.table.bind(
            Transport.UDP, internal, Kind.SIP, Owner("flow"), now=play.now, expires_at=9e9
        )
    play.table.take_changes()
    return play


@pytest.mark.skipif(is_compiled(), reason="counts the calls that the interpreter makes")
def test_flat_cost() -> None:
    first, idle, full = loaded(4), loaded(4), loaded(4000)
    for message in (register(PHONE), invite(PHONE, OFFER), request("BYE", to_tag="b")):
        work(first, message)  # what is remembered of its lines serves all three
        alone, crowded = work(idle, message), work(full, message)
        assert alone[1].reason is crowded[1].reason is Reason.REWRITTEN
        assert crowded[0] <= alone[0] * 1.1
