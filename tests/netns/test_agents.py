"""The lab's agents over each transport and family, through a router that only routes.

If these fail, no test of TCP or IPv6 that uses them means anything.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from nat_table.endpoint import Endpoint
from tests.lab.agents import SipAgent, wait_until
from tests.lab.carrier import TcpCarrier
from tests.lab.message import bare_uri
from tests.lab.network import LAN_ROUTED6, PHONE_1, PHONE_2, SERVER, SERVER6, Network
from tests.lab.rtp import RtpStream
from tests.lab.sdp import media_endpoint
from tests.lab.site import PROXY, Site

pytestmark = pytest.mark.netns

PLACES = {
    4: ((PHONE_1, PHONE_2), SERVER),
    6: ((f"{LAN_ROUTED6}20", f"{LAN_ROUTED6}21"), SERVER6),
}


@pytest.fixture(scope="module")
def routed() -> Iterator[Network]:
    """Yields a network whose router does nothing but route."""
    with Network(is_masqueraded=False, lan6=LAN_ROUTED6) as network:
        yield network


def wire(agent: SipAgent) -> TcpCarrier:
    assert isinstance(agent.carrier, TcpCarrier)
    return agent.carrier


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize("family", [4, 6])
def test_phones_register_call_and_are_called(routed: Network, transport: str, family: int) -> None:
    phones, server = PLACES[family]
    with Site(routed, transport=transport, phones=phones, server=server) as site:
        for phone in (site.phone_1, site.phone_2):
            answer = site.register(phone)
            assert bare_uri(answer["Contact"]) == bare_uri(phone.contact)
        sent, arrived = site.call_out(site.phone_1)
        assert arrived.raw == sent.raw
        assert media_endpoint(arrived.body) == site.phone_1.media
        called, answered = site.call_in(
            site.phone_2, sdp=site.server.offer(media=site.server_media_2)
        )
        with site.talk(site.phone_2, answered, site.server_media_2) as talk:
            assert talk.flows_on(20)
        site.hang_up(site.phone_1, site.server, sent)
        site.hang_up(site.server, site.phone_2, called)


def test_a_tcp_agent_answers_by_the_same_connection(routed: Network) -> None:
    with Site(routed, transport="tcp") as site:
        site.register(site.phone_1)
        (to_server,) = wire(site.phone_1).connections
        assert to_server == PROXY
        (source,) = wire(site.server).connections
        assert source.address == PHONE_1 and source.port != 5060
        sent, _ = site.call_out(site.phone_1)
        assert len(wire(site.phone_1).connections) == 1, "all by one connection"
        site.hang_up(site.server, site.phone_1, sent)
        assert set(wire(site.server).connections) == {source, site.phone_1.endpoint}


def test_a_refused_call_over_tcp_is_acknowledged_and_nothing_repeated(routed: Network) -> None:
    with Site(routed, transport="tcp") as site:
        sent = site.phone_1.send("INVITE", site.server.address_of_record, sdp=site.phone_1.offer())
        site.server.reply(site.server.expect("INVITE"), 486)
        site.phone_1.expect(486)
        site.server.expect("ACK", call=sent)
        site.phone_1.send("OPTIONS", site.server.address_of_record)
        site.server.expect("OPTIONS")
        time.sleep(1.2)
        assert site.server.repeated == site.phone_1.repeated == 0


def test_an_agent_that_has_hung_up_connects_again(routed: Network) -> None:
    with Site(routed, transport="tcp") as site:
        site.register(site.phone_1)
        wire(site.phone_1).hang_up()
        assert wait_until(lambda: not wire(site.server).connections, 5.0)
        site.register(site.phone_1)


def test_nobody_at_home_is_refused_to_the_caller(routed: Network) -> None:
    with Site(routed, transport="tcp") as site, pytest.raises(ConnectionRefusedError):
        site.server.send("OPTIONS", "sip:nobody@10.0.0.20:5999")


def test_messages_are_found_in_a_stream_however_it_is_cut(routed: Network) -> None:
    with Site(routed, transport="tcp") as site:
        site.register(site.phone_1)
        (peer,) = wire(site.server).connections
        lines = f"""OPTIONS sip:phone1@{PHONE_1} SIP/2.0
Via: SIP/2.0/TCP {SERVER};branch=z9hG4bK1
From: <sip:a@{SERVER}>;tag=1
To: <sip:phone1@{PHONE_1}>
Call-ID: cut
CSeq: 1 OPTIONS
Content-Length: 4
"""
        one = lines.replace("\n", "\r\n").encode() + b"\r\nbody"
        tcp = wire(site.server).connections[peer].tcp
        assert tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        for octet in b"\r\n\r\n" + one:
            tcp.sendall(bytes([octet]))
        assert site.phone_1.expect("OPTIONS").body == b"body"
        tcp.sendall(
            one.replace(b"1 OPTIONS", b"2 OPTIONS") + one.replace(b"1 OPTIONS", b"3 OPTIONS")
        )
        assert [site.phone_1.expect("OPTIONS").sequence for _ in range(2)] == [2, 3]
        assert wire(site.phone_1).keepalives == 2


def test_audio_over_ipv6(routed: Network) -> None:
    (phone, _), server = PLACES[6]
    near, far = Endpoint(phone, 4000), Endpoint(server, 40000)
    with RtpStream(routed.lan, near) as here, RtpStream(routed.wan, far) as there:
        here.send_to(far)
        assert wait_until(lambda: there.sources[near] > 20, 5.0)
