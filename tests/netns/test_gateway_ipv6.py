"""The whole gateway on IPv6: what it finds, a call with audio in each mode, other addresses."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest

from nat_table.endpoint import Endpoint
from tests.alg.playbook import invite, register, request, response, sdp
from tests.lab.agents import wait_until
from tests.lab.gateway import Gateway
from tests.lab.network import (
    EXTERNAL6,
    LAN_ROUTED6,
    REMOTE6_1,
    SERVER6,
    Network,
)
from tests.netns.connections import connected, listening
from tests.netns.kernel import Peer
from tests.netns.kernel6 import (
    FIREWALL,
    LOCAL_1,
    MASQUERADE6,
    NPT,
    ROUTED_1,
    Bind,
    keys_of,
    network_in,
    outside_of,
)
from tests.netns.test_gateway_process import check_refused

pytestmark = pytest.mark.netns

CUT = 0.5
"""Flows of the former address are cut in the background."""

OTHER_EXTERNAL6 = "2001:db8:2::2"
MTU = 1500
HEADERS = 48


@pytest.fixture
def network(mode: str) -> Iterator[Network]:
    with network_in(mode, MASQUERADE6 if mode == "nat66" else FIREWALL) as network:
        yield network


only_nat66 = pytest.mark.parametrize("mode", ["nat66"], indirect=True)
only_pinhole = pytest.mark.parametrize("mode", ["pinhole"], indirect=True)
only_nptv6 = pytest.mark.parametrize("mode", ["nptv6"], indirect=True)


def found(gateway: Gateway) -> str:
    """Returns the mode that the gateway says it is in."""
    (mode,) = re.findall(r"IPv6 (\w+),", "\n".join(gateway.log))
    assert isinstance(mode, str)
    return mode


def test_A22_a_call_has_audio_both_ways(mode: str, network: Network, bind: Bind) -> None:
    address = ROUTED_1 if mode == "pinhole" else LOCAL_1
    me = Endpoint(address, 5060)
    phone, server = bind(*me), bind(SERVER6, 5060)
    audio, far_audio, stranger = bind(address), bind(SERVER6, 6000), bind(REMOTE6_1)
    with Gateway(network.router, **keys_of(mode)) as gateway:
        assert found(gateway) == mode
        came = passed(phone, register(me), server, Endpoint(SERVER6, 5060))
        outside = outside_of(mode, address)
        assert f"Contact: <sip:alice@[{outside}]:5060>".encode() in came
        offer = invite(me, sdp(address, 4000))
        came = passed(phone, offer, server, Endpoint(SERVER6, 5060))
        assert (came == offer) is (mode == "pinhole")
        media = Endpoint(outside, int(re.findall(rb"m=audio (\d+)", came)[0]))
        assert f"c=IN IP6 {outside}\r\n".encode() in came
        answer = response(came, 200, body=sdp(SERVER6, 6000), contact=f"<sip:bob@[{SERVER6}]>")
        assert passed(server, answer, phone, Endpoint(outside, 5060)).startswith(b"SIP/2.0 200")
        far_audio.send(b"audio", *media)
        assert audio.expect(b"audio") == (SERVER6, 6000)
        audio.send(b"audio too", SERVER6, 6000)
        assert far_audio.expect(b"audio too") == media
        stranger.send(b"INVITE", outside, 5060)
        phone.expect_nothing()
        kinds = {row["kind"] for row in gateway.show_mappings()}
        assert kinds == {"sip", "rtp", "rtcp"}
        gateway.kill()
        far_audio.send(b"without the daemon", *media)
        audio.expect(b"without the daemon")
        gateway.start()
        assert len(gateway.show_mappings("rtp", "rtcp")) == 2
        far_audio.send(b"after it", *media)
        audio.expect(b"after it")


def passed(sender: Peer, message: bytes, receiver: Peer, target: Endpoint) -> bytes:
    """Sends a message through the gateway and returns it as it arrives."""
    sender.udp.sendto(message, target)
    arrived, _source = receiver.udp.recvfrom(0xFFFF)
    return arrived


@only_nat66
def test_A71_a_message_that_outgrows_the_mtu_arrives_in_fragments(
    network: Network, bind: Bind
) -> None:
    me = Endpoint(LOCAL_1, 5060)
    phone, server = bind(*me), bind(SERVER6, 5060)
    short = len(invite(me, sdp(LOCAL_1, 4000), "Subject: "))
    offer = invite(me, sdp(LOCAL_1, 4000), "Subject: " + "x" * (MTU - HEADERS - short))
    assert len(offer) + HEADERS == MTU
    with Gateway(network.router) as gateway:
        for _ in range(2):
            came = passed(phone, offer, server, Endpoint(SERVER6, 5060))
            assert len(came) + HEADERS > MTU
            assert f"c=IN IP6 {EXTERNAL6}\r\n".encode() in came
        larger = response(came, 200, "Subject: " + "y" * 4000, body=sdp(SERVER6, 6000))
        assert len(passed(server, larger, phone, Endpoint(EXTERNAL6, 5060))) > 4000
        assert gateway.is_running


@only_nat66
def test_A69_a_phone_registers_over_tcp_and_is_called_there(network: Network) -> None:
    me, target = Endpoint(LOCAL_1, 5060), Endpoint(SERVER6, 5060)
    over_tcp = register(me).replace(b"SIP/2.0/UDP", b"SIP/2.0/TCP")
    over_tcp = over_tcp.replace(b"]:5060>", b"]:5060;transport=tcp>")
    with (
        Gateway(network.router),
        listening(network.wan, target) as registrar,
        connected(network.lan, me, target) as phone,
        registrar.accept()[0] as server,
    ):
        assert server.getpeername()[0] == EXTERNAL6
        phone.sendall(over_tcp)
        came = server.recv(0xFFFF)
        assert f"Contact: <sip:alice@[{EXTERNAL6}]:".encode() in came
        assert LOCAL_1.encode() not in came
        server.sendall(response(came, 200))
        assert phone.recv(0xFFFF).startswith(b"SIP/2.0 200")


@only_nat66
def test_A33_mappings_follow_another_external_address(network: Network, bind: Bind) -> None:
    me = Endpoint(LOCAL_1, 5060)
    phone, server = bind(*me), bind(SERVER6, 5060)
    router = network.router
    with Gateway(router) as gateway:
        passed(phone, register(me), server, Endpoint(SERVER6, 5060))
        where = f"{OTHER_EXTERNAL6}/64 dev wan0 nodad"
        router.run("ip", "-6", "address", "add", *where.split())
        router.run("ip", "-6", "address", "del", f"{EXTERNAL6}/64", "dev", "wan0")
        assert wait_until(lambda: any("mappings moved" in line for line in gateway.log), 5.0)
        time.sleep(CUT)
        phone.udp.sendto(register(me, cseq=2), (SERVER6, 5060))
        came, source = server.udp.recvfrom(0xFFFF)
        assert f"<sip:alice@[{OTHER_EXTERNAL6}]:5060>".encode() in came
        assert source[0] == OTHER_EXTERNAL6


@only_nptv6
def test_prefixes_are_read_from_the_administrators_own_rules(network: Network) -> None:
    for rule in NPT:
        network.router.run("ip6tables", "-t", "mangle", "-A", *rule.split())
    with Gateway(network.router) as gateway:
        assert found(gateway) == "nptv6"


@only_nat66
def test_without_forwarding_or_by_configuration_ipv6_is_off(network: Network) -> None:
    with Gateway(network.router, mode6="off") as gateway:
        assert found(gateway) == "off"
        assert "6 {" not in network.router.run("nft", "list", "table", "inet", "sipnat")
        gateway.stop()
    network.router.set_sysctl("net.ipv6.conf.all.forwarding", "0")
    with Gateway(network.router) as gateway:
        assert found(gateway) == "off"


@only_nat66
def test_ipv6_that_comes_after_the_start_is_said(network: Network) -> None:
    where = f"{EXTERNAL6}/64 dev wan0"
    network.router.run("ip", "-6", "address", "del", *where.split())
    with Gateway(network.router) as gateway:
        assert found(gateway) == "off"
        network.router.run("ip", "-6", "address", "add", *where.split(), "nodad")
        assert wait_until(lambda: any("IPv6 has come up" in line for line in gateway.log), 5.0)


@only_nat66
def test_ipv6_that_is_forwarded_after_the_start_is_said(network: Network) -> None:
    network.router.set_sysctl("net.ipv6.conf.all.forwarding", "0")
    with Gateway(network.router) as gateway:
        assert found(gateway) == "off"
        network.router.set_sysctl("net.ipv6.conf.all.forwarding", "1")
        assert wait_until(lambda: any("IPv6 has come up" in line for line in gateway.log), 5.0)


@only_nat66
def test_global_addresses_that_come_after_the_start_are_said(network: Network) -> None:
    with Gateway(network.router) as gateway:
        assert found(gateway) == "nat66"
        where = f"{LAN_ROUTED6}1/64 dev lan0 nodad"
        network.router.run("ip", "-6", "address", "add", *where.split())
        said = "global IPv6 addresses by now"
        assert wait_until(lambda: any(said in line for line in gateway.log), 5.0)


@only_pinhole
def test_without_ipv6_on_loopback_only_tcp_is_left_alone(network: Network, bind: Bind) -> None:
    network.router.set_sysctl("net.ipv6.conf.lo.disable_ipv6", "1")
    me = Endpoint(ROUTED_1, 5060)
    phone, server = bind(*me), bind(SERVER6, 5060)
    with Gateway(network.router) as gateway:
        assert any("lo has no IPv6" in line for line in gateway.log)
        passed(phone, register(me), server, Endpoint(SERVER6, 5060))
        assert gateway.show_mappings("sip")


@only_nat66
def test_what_cannot_be_done_is_refused_in_one_sentence(network: Network) -> None:
    gateway = Gateway(network.router, mode6="nptv6")
    check_refused(network, gateway.arguments(), "internal_prefix6")
    network.router.run("ip", "-6", "address", "flush", "dev", "wan0", "scope", "global")
    gateway.configure(mode6="nat66")
    check_refused(network, gateway.arguments(), "wan0 has no global IPv6 address")
    gateway.close()


@only_pinhole
def test_other_requests_pass_unchanged_where_nothing_is_translated(
    network: Network, bind: Bind
) -> None:
    me = Endpoint(ROUTED_1, 5060)
    phone, server = bind(*me), bind(SERVER6, 5060)
    with Gateway(network.router):
        for message in (request("OPTIONS", me), register(me), b"\r\n\r\n", b"no SIP at all"):
            assert passed(phone, message, server, Endpoint(SERVER6, 5060)) == message
