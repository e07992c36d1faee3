"""NAT slipstreaming: what a web page can make a phone's host send must open nothing.

A browser sends what a page wants over TCP and, through WebRTC, datagrams of which it chooses a
part. The page's server cuts the rest away by the sizes of segments and fragments, so that a packet
begins like SIP, with a Contact or a session description of the page's choice.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest

from nat_table.endpoint import Endpoint
from tests.lab.agents import receive_all
from tests.lab.closable import Closable
from tests.lab.gateway import Gateway
from tests.lab.network import EXTERNAL, PHONE_1, PHONE_2, REMOTE_1, REMOTE_2, Network
from tests.lab.sdp import render_sdp

pytestmark = [pytest.mark.netns, pytest.mark.timeout(90)]

SIP_PORT = 5060
BROWSER = Endpoint(PHONE_1, 50000)
EVIL = Endpoint(REMOTE_1, SIP_PORT)
# A service on the browser's own host, and services on another host of the LAN.
VICTIMS = (Endpoint(PHONE_1, 8080), Endpoint(PHONE_2, 8080), Endpoint(PHONE_2, SIP_PORT))
# What an Ethernet frame takes of a datagram, less the IP and UDP headers, in the first fragment.
FIRST_FRAGMENT = 1472
STUN_HEADER = b"\x00\x01\x00\x00\x21\x12\xa4\x42" + b"t" * 12
SEGMENT_PAUSE = 0.05
TCP_TIMEOUT = 1.0


class Victims(Closable):
    """The services that nobody outside may reach, by UDP and by TCP."""

    def __init__(self, network: Network) -> None:
        self._network = network
        with ExitStack() as stack:
            self._udp = [stack.enter_context(network.lan.udp_socket(*each)) for each in VICTIMS]
            for each in VICTIMS:
                stack.enter_context(network.lan.call(partial(socket.create_server, each)))
            self._stack = stack.pop_all()

    def close(self) -> None:
        self._stack.close()

    def check_unreached(self) -> None:
        """Knocks at every port of the victims from two hosts outside, in vain."""
        for knocker in (REMOTE_1, REMOTE_2):
            for victim in VICTIMS:
                door = Endpoint(EXTERNAL, victim.port)
                with self._network.wan.udp_socket(knocker) as udp:
                    udp.sendto(b"knock", door)
                with pytest.raises(OSError, match=r"refused|timed out"):
                    self._network.wan.call(
                        partial(socket.create_connection, door, TCP_TIMEOUT, (knocker, 0))
                    )
        assert [raw for udp in self._udp for raw, _ in receive_all(udp)] == []


@pytest.fixture
def victims(network: Network) -> Iterator[Victims]:
    with Victims(network) as victims:
        yield victims


@pytest.mark.parametrize("victim", VICTIMS, ids=str)
def test_a81_a_web_post_cut_so_that_a_segment_begins_with_register(
    network: Network, gateway: Gateway, victims: Victims, victim: Endpoint
) -> None:
    head = f"POST / HTTP/1.1\r\nHost: {EVIL}\r\nContent-Length: 100000\r\n\r\n".encode()
    segments = [head + b"x" * 600, register(victim), b"x" * 600, invite(victim)]
    with network.wan.call(lambda: socket.create_server(EVIL)) as listener:
        listener.settimeout(5.0)
        with network.lan.call(lambda: socket.create_connection(EVIL, 5.0, BROWSER)) as browser:
            browser.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            accepted, _ = listener.accept()
            for segment in segments:
                browser.sendall(segment)
                time.sleep(SEGMENT_PAUSE)
        with accepted, accepted.makefile("rb") as stream:
            accepted.settimeout(5.0)
            assert stream.read() == b"".join(segments)
    check_nothing_is_open(gateway, victims)


@pytest.mark.parametrize("victim", VICTIMS, ids=str)
def test_a81_a_datagram_whose_second_fragment_begins_with_register(
    network: Network, gateway: Gateway, victims: Victims, victim: Endpoint
) -> None:
    for message in (register(victim), invite(victim)):
        check_passes_as_it_is(network, b"x" * FIRST_FRAGMENT + message)
    check_nothing_is_open(gateway, victims)


@pytest.mark.parametrize("victim", VICTIMS, ids=str)
@pytest.mark.parametrize("prefix", [STUN_HEADER, b"\x80\x00\x00\x01" * 3, b"x", b"\0"])
def test_a81_a_datagram_with_register_inside(
    network: Network, gateway: Gateway, victims: Victims, prefix: bytes, victim: Endpoint
) -> None:
    for message in (register(victim), invite(victim)):
        check_passes_as_it_is(network, prefix + message)
    check_nothing_is_open(gateway, victims)


@pytest.mark.parametrize("victim", VICTIMS[1:], ids=str)
def test_a81_a_phone_opens_nothing_for_another_host(
    network: Network, gateway: Gateway, victims: Victims, victim: Endpoint
) -> None:
    with network.lan.udp_socket(*BROWSER) as phone, network.wan.udp_socket(*EVIL) as server:
        for message in (register(victim), invite(victim)):
            phone.sendto(message, EVIL)
            [(arrived, source)] = receive_all(server)
            assert str(victim).encode() in arrived or victim.address.encode() in arrived
            server.sendto(answer_of(arrived), source)
            receive_all(phone)
    assert {row["internal"].partition(":")[0] for row in gateway.show_mappings()} <= {PHONE_1}
    assert internals(gateway.show_mappings()).isdisjoint(VICTIMS)
    victims.check_unreached()


def check_passes_as_it_is(network: Network, payload: bytes) -> None:
    with network.lan.udp_socket(*BROWSER) as browser, network.wan.udp_socket(*EVIL) as server:
        browser.sendto(payload, EVIL)
        assert [raw for raw, _ in receive_all(server)] == [payload]


def check_nothing_is_open(gateway: Gateway, victims: Victims) -> None:
    assert gateway.show_mappings() == []
    victims.check_unreached()


def internals(rows: list[dict[str, Any]]) -> set[Endpoint]:
    pairs = (row["internal"].rsplit(":", 1) for row in rows)
    return {Endpoint(address, int(port)) for address, port in pairs}


def register(victim: Endpoint) -> bytes:
    """Renders a REGISTER that names the victim as Contact and is otherwise the browser's."""
    return (
        f"REGISTER sip:{EVIL} SIP/2.0\r\n"
        f"Via: SIP/2.0/UDP {BROWSER};branch=z9hG4bKslip;rport\r\n"
        f"From: <sip:slip@{EVIL}>;tag=1\r\nTo: <sip:slip@{EVIL}>\r\n"
        f"Call-ID: slip@{PHONE_1}\r\nCSeq: 1 REGISTER\r\nMax-Forwards: 70\r\n"
        f"Contact: <sip:slip@{victim}>\r\nExpires: 3600\r\nContent-Length: 0\r\n\r\n"
    ).encode()


def invite(victim: Endpoint) -> bytes:
    """Renders an INVITE whose description names the victim and is otherwise the browser's."""
    sdp = render_sdp(victim)
    head = (
        f"INVITE sip:{EVIL} SIP/2.0\r\n"
        f"Via: SIP/2.0/UDP {BROWSER};branch=z9hG4bKslide;rport\r\n"
        f"From: <sip:slip@{EVIL}>;tag=2\r\nTo: <sip:slip@{EVIL}>\r\n"
        f"Call-ID: slide@{PHONE_1}\r\nCSeq: 1 INVITE\r\nMax-Forwards: 70\r\n"
        f"Contact: <sip:slip@{BROWSER}>\r\nContent-Type: application/sdp\r\n"
        f"Content-Length: {len(sdp)}\r\n\r\n"
    )
    return head.encode() + sdp


def answer_of(request: bytes) -> bytes:
    """Renders the 200 of a server that plays along: all headers of the request, no body."""
    _, _, rest = request.partition(b"\r\n")
    head = rest.partition(b"Content-Type")[0].partition(b"Content-Length")[0]
    return b"SIP/2.0 200 OK\r\n" + head + b"Content-Length: 0\r\n\r\n"
