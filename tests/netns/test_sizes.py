"""Messages of any size arrive, as the engine on its own has rewritten them.

The real gateway is in the middle. Beside it a second engine is told of the same messages, and what
arrives must be what that one says. One phone's address is shorter than the external one, so that
its messages grow on their way out, and one's is longer, so that messages to it grow.
"""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import pytest

from alg.packet import MAX_PACKET
from nat_table.endpoint import Endpoint
from tests.alg.playbook import Playbook
from tests.lab.gateway import Gateway
from tests.lab.namespace import Namespace
from tests.lab.network import (
    EXTERNAL,
    EXTERNAL_INTERFACE,
    INTERNAL_INTERFACE,
    PHONE_1,
    SERVER,
    Network,
)
from tests.netns.frames import (
    fragments,
    has_right_checksums,
    packets_to,
    send_raw,
    set_offloads,
    sniffing,
)

pytestmark = [pytest.mark.netns, pytest.mark.timeout(120)]

SHORT = Endpoint(PHONE_1, 5060)
LONG = Endpoint("192.168.100.200", 5060)
OUTSIDE = Endpoint(EXTERNAL, 5060)
FAR = Endpoint(SERVER, 5060)
ETHERNET_MTU = 1500
UDP_AND_IP = 28
LARGEST = 65507
GROWTH = 4
LARGEST_QUEUED = MAX_PACKET - UDP_AND_IP
IP_MTU_DISCOVER, DONT, DO = 10, 0, 2
UDP_SEGMENT = 103
SEED = 20260405


@dataclass
class Wire:
    """A phone and a server with the gateway between them, and an engine to compare with."""

    network: Network
    phone: Endpoint
    near: socket.socket
    far: socket.socket
    engine: Playbook

    def out(self, message: bytes) -> bytes:
        """Sends to the server and returns what arrives there, having checked it."""
        self.near.sendto(message, FAR)
        return self.arrived_out(message)

    def arrived_out(self, message: bytes) -> bytes:
        arrived, source = self.far.recvfrom(1 << 16)
        assert Endpoint(*source) == OUTSIDE
        assert arrived == self.engine.outbound(message, self.phone).payload
        return arrived

    def back(self, message: bytes) -> bytes:
        """Sends to the phone's mapping and returns what arrives at the phone, having checked it."""
        self.far.sendto(message, OUTSIDE)
        return self.arrived_back(message)

    def arrived_back(self, message: bytes) -> bytes:
        arrived, source = self.near.recvfrom(1 << 16)
        assert Endpoint(*source) == FAR
        assert arrived == self.engine.inbound(message, self.phone).payload
        return arrived

    def growing(self) -> tuple[Namespace, Endpoint, Callable[[int], bytes]]:
        """Returns where messages grow: who gets them, and a function that sends one of a size."""
        if self.phone == SHORT:
            return self.network.wan, FAR, lambda size: self.out(request_out(SHORT, size))
        return self.network.lan, LONG, lambda size: self.back(request_back(size))

    def set_dont_fragment(self, is_set: bool) -> None:
        for udp in (self.near, self.far):
            udp.setsockopt(socket.SOL_IP, IP_MTU_DISCOVER, DO if is_set else DONT)


@pytest.fixture(params=[SHORT, LONG], ids=["grows-out", "grows-back"])
def wire(network: Network, request: pytest.FixtureRequest) -> Iterator[Wire]:
    """Yields the wire of a phone whose messages grow on one way; its mapping is made."""
    network.add_address(network.router, INTERNAL_INTERFACE, "192.168.100.1")
    network.add_address(network.lan, "eth0", LONG.address)
    phone: Endpoint = request.param
    with (
        Gateway(network.router),
        network.lan.udp_socket(*phone) as near,
        network.wan.udp_socket(*FAR) as far,
    ):
        for udp in (near, far):
            udp.settimeout(5.0)
        wire = Wire(network, phone, near, far, Playbook())
        wire.out(request_out(phone, 300))
        yield wire


def request_out(phone: Endpoint, size: int) -> bytes:
    """Returns a phone's request of exactly this many bytes."""
    return _options("s", SERVER, phone, f"p@{phone}", size)


def request_back(size: int) -> bytes:
    """Returns a server's request to the mapping, of exactly this many bytes."""
    return _options("p", str(OUTSIDE), FAR, "s@203.0.113.10", size)


def _options(user: str, host: str, via: Endpoint, contact: str, size: int) -> bytes:
    head = (
        f"OPTIONS sip:{user}@{host} SIP/2.0\r\n"
        f"v:SIP/2.0/UDP {via};branch=z9hG4bK1\r\n"
        f"f:<sip:{user}@h>;tag=1\r\n"
        "t:<sip:t@h>\r\n"
        "i:1\r\n"
        "CSeq:1 OPTIONS\r\n"
        f"m:<sip:{contact}>\r\n"
        "l:"
    ).encode()
    for digits in range(1, 6):
        body = size - len(head) - digits - 4
        if len(str(body)) == digits:
            return head + b"%d\r\n\r\n" % body + random.Random(size).randbytes(body)
    raise ValueError(f"no message has {size} bytes")


def sizes(mtu: int = ETHERNET_MTU) -> list[int]:
    """Returns sizes from 200 to 8,000, all those around what fills whole fragments among them."""
    fragment = (mtu - 20) // 8 * 8
    edges = [mtu - UDP_AND_IP, *(fragment * number - 8 for number in range(2, 6))]
    near = {edge + distance for edge in edges for distance in range(-8, 3)}
    return sorted({200, 8000, *near, *random.Random(SEED).choices(range(200, 8000), k=60)})


def test_A71_A73_any_size_arrives_as_the_engine_says(wire: Wire) -> None:
    wire.set_dont_fragment(False)
    for size in sizes():
        wire.out(request_out(wire.phone, size))
        wire.back(request_back(size))


@pytest.mark.parametrize("mtu", [ETHERNET_MTU, 1400])
def test_A71_growth_past_the_mtu_is_delivered_though_dont_fragment_is_set(
    wire: Wire, mtu: int
) -> None:
    for namespace, interface in (
        (wire.network.router, INTERNAL_INTERFACE),
        (wire.network.router, EXTERNAL_INTERFACE),
    ):
        namespace.run("ip", "link", "set", interface, "mtu", str(mtu))
    wire.set_dont_fragment(True)
    grown = 0
    for size in (each for each in sizes(mtu) if each <= mtu - UDP_AND_IP):
        arrived = wire.out(request_out(wire.phone, size)), wire.back(request_back(size))
        grown += max(map(len, arrived)) > mtu - UDP_AND_IP
    assert grown >= 2


@pytest.mark.parametrize("is_set", [False, True])
def test_A71_what_grows_loses_dont_fragment_and_has_an_identification_of_its_own(
    wire: Wire, is_set: bool
) -> None:
    namespace, target, send = wire.growing()
    wire.set_dont_fragment(is_set)
    with sniffing(namespace) as sniffer:
        for _ in range(8):
            send(ETHERNET_MTU - UDP_AND_IP)
        packets = packets_to(sniffer, target)
    assert len(packets) == 16
    datagrams = list(zip(packets[::2], packets[1::2], strict=True))
    assert [str(first.flags) for first, _ in datagrams] == ["MF"] * 8
    assert not any(last.flags for _, last in datagrams)
    assert all(first.id == last.id for first, last in datagrams)
    assert len({first.id for first, _ in datagrams}) >= 7


def test_A70_64_kilobytes_both_ways(wire: Wire) -> None:
    wire.set_dont_fragment(False)
    for size in (16_000, 40_000, 65_000, LARGEST_QUEUED - GROWTH):
        wire.out(request_out(wire.phone, size))
        wire.back(request_back(size))


@pytest.mark.parametrize("size", [LARGEST_QUEUED, LARGEST_QUEUED + 1, LARGEST])
def test_A70_message_that_is_or_grows_too_large_for_the_queue_passes_as_it_is(
    wire: Wire, size: int
) -> None:
    wire.set_dont_fragment(False)
    out, back = request_out(wire.phone, size), request_back(size)
    wire.near.sendto(out, FAR)
    wire.far.sendto(back, OUTSIDE)
    is_same_out, is_same_back = wire.far.recv(1 << 16) == out, wire.near.recv(1 << 16) == back
    is_cut = size > LARGEST_QUEUED
    assert is_same_out == (is_cut or wire.phone == SHORT)
    assert is_same_back == (is_cut or wire.phone == LONG)


@pytest.mark.parametrize("flags", ["", "DF"])
def test_A70_fragments_in_any_order(wire: Wire, flags: str) -> None:
    order = random.Random(SEED)
    for size in (1600, 4500, 8000, 30_000):
        for _ in range(3):
            out, back = request_out(wire.phone, size), request_back(size)
            for namespace, message, source, target in (
                (wire.network.lan, out, wire.phone, FAR),
                (wire.network.wan, back, FAR, OUTSIDE),
            ):
                cut = fragments(message, source, target, flags, order.getrandbits(16))
                order.shuffle(cut)
                send_raw(namespace, cut, target)
            wire.arrived_out(out)
            wire.arrived_back(back)


@pytest.mark.parametrize("is_on", [False, True])
def test_A73_checksums_are_right_whatever_the_interfaces_do_themselves(
    wire: Wire, is_on: bool
) -> None:
    network = wire.network
    for namespace, interface in (
        (network.router, INTERNAL_INTERFACE),
        (network.router, EXTERNAL_INTERFACE),
        (network.lan, "eth0"),
        (network.wan, "eth0"),
    ):
        set_offloads(namespace, interface, is_on=is_on)
    with sniffing(network.wan) as outside, sniffing(network.lan) as inside:
        for size in range(300, 340):
            wire.out(request_out(wire.phone, size))
            wire.back(request_back(size))
        arrived = packets_to(outside, FAR), packets_to(inside, wire.phone)
    for packets in arrived:
        assert len(packets) == 40
        assert all(map(has_right_checksums, packets))


@pytest.mark.parametrize("port", [5060, 5062])
def test_A73_segmented_sends_are_rewritten_one_by_one(wire: Wire, port: int) -> None:
    """One packet of several messages (UDP GSO); with port 5062 it is the first of its flow."""
    phone = Endpoint(wire.phone.address, port)
    messages = [request_out(phone, size) for size in (700, 700, 700, 640)]
    back = [request_back(size) for size in (700, 700, 640)]
    with wire.network.lan.udp_socket(*phone) if port != 5060 else nullcontext(wire.near) as near:
        send_segmented(near, messages, FAR)
        for message in messages:
            arrived, source = wire.far.recvfrom(1 << 16)
            assert Endpoint(*source) == Endpoint(EXTERNAL, port)
            assert arrived == wire.engine.outbound(message, phone).payload
    send_segmented(wire.far, back, OUTSIDE)
    for message in back:
        wire.arrived_back(message)


def send_segmented(udp: socket.socket, messages: list[bytes], target: Endpoint) -> None:
    """Sends messages in one call; all but the last must have one size (udp(7), UDP_SEGMENT)."""
    size = struct.pack("=H", len(messages[0]))
    segment = (socket.IPPROTO_UDP, UDP_SEGMENT, size)
    udp.sendmsg([b"".join(messages)], [segment], 0, target)
