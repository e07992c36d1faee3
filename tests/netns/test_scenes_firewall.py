"""Whole calls through a router whose other firewall drops what it forwards (A75)."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from alg.daemon.diversion import ENOUGH
from alg.daemon.upkeep import CHECK_INTERVAL
from nat_table.endpoint import Endpoint
from tests.lab.agents import receive_all
from tests.lab.gateway import Gateway
from tests.lab.network import (
    EXTERNAL,
    INTERNAL_INTERFACE,
    LAN_ROUTER,
    PHONE_1,
    SERVER,
    Network,
)
from tests.lab.site import SERVER_MEDIA_1, Site
from tests.netns.calls import check_audio, media_is_released
from tests.netns.connections import accepted, check_passes, check_silent, listening, tcp_socket
from tests.netns.firewalls import DOCKER, FW4, filter_rules
from tests.netns.kernel import SETTINGS
from tests.netns.streams import connect

pytestmark = [pytest.mark.netns, pytest.mark.timeout(90)]

# What a host gives itself where nobody gives it an address (RFC 3927).
NO_LEASE = "169.254.9.9"
REGISTER = f"""\
REGISTER sip:example.com SIP/2.0\r
Via: SIP/2.0/UDP {PHONE_1}:5060;branch=z9hG4bK75\r
From: <sip:alice@example.com>;tag=75\r
To: <sip:alice@example.com>\r
Call-ID: 75@{PHONE_1}\r
CSeq: 1 REGISTER\r
Contact: <sip:alice@{PHONE_1}:5060>\r
Max-Forwards: 70\r
Content-Length: 0\r
\r
""".encode()


def check_calls(site: Site, gateway: Gateway) -> None:
    """Registers a phone, calls out and in, each with audio, and hangs up."""
    phone, server = site.phone_1, site.server
    site.register(phone)
    sent, arrived = site.call_out(phone)
    check_audio(site.talk(phone, arrived, SERVER_MEDIA_1))
    site.hang_up(phone, server, sent)
    assert media_is_released(gateway)


def test_a75_calls_pass_docker_and_its_rules_are_as_before_after_a_stop(network: Network) -> None:
    network.router.run("iptables-restore", text=DOCKER)
    before = filter_rules(network)
    with Gateway(network.router, install_accept="auto") as gateway, Site(network) as site:
        assert any("Docker" in line for line in gateway.log)
        check_calls(site, gateway)
        gateway.stop()
        assert filter_rules(network) == before


def test_a75_first_message_passes_a_firewall_that_knows_only_the_mark_of_mappings(
    network: Network,
) -> None:
    """The rules see that message before there is a mapping; it is sent once."""
    network.router.run(
        "nft",
        "table inet admin { chain forward { type filter hook forward priority filter; policy drop;"
        f" meta mark & {SETTINGS.open_mark:#x} != 0 accept; }}; }}",
    )
    phone = network.lan.udp_socket(PHONE_1, 5060)
    server = network.wan.udp_socket(SERVER, 5060)
    with Gateway(network.router), phone, server:
        phone.sendto(REGISTER, (SERVER, 5060))
        [(raw, source)] = receive_all(server)
        assert source.address == EXTERNAL and EXTERNAL.encode() in raw


def test_a75_audio_goes_on_through_docker_while_the_gateway_is_down(network: Network) -> None:
    network.router.run("iptables-restore", text=DOCKER)
    before = filter_rules(network)
    with Gateway(network.router, install_accept="auto") as gateway, Site(network) as site:
        sent, arrived = site.call_out(site.phone_1)
        talk = site.talk(site.phone_1, arrived, SERVER_MEDIA_1)
        assert talk.flows_on()
        gateway.stop()
        assert talk.flows_on()
        gateway.start()
        site.hang_up(site.phone_1, site.server, sent)
        assert media_is_released(gateway)
        gateway.stop()
        assert filter_rules(network) == before


def test_a75_calls_pass_ufw_with_its_drop_policy(network: Network, ufw: Callable[..., str]) -> None:
    ufw("--force", "enable")
    assert "deny (routed)" in ufw("status", "verbose")
    with Gateway(network.router, install_accept="auto") as gateway, Site(network) as site:
        check_calls(site, gateway)


def test_a75_requests_are_let_in_from_when_they_are_answered(network: Network) -> None:
    network.router.run("nft", "-f", "-", text=FW4)
    keys = {"tcp": False, "install_accept": "auto"}
    with Gateway(network.router, pcp=False, **keys) as gateway:
        assert "sipnat" not in network.router.run("nft", "list", "chain", "inet", "fw4", "input")
        gateway.configure(pcp=True, **keys)
        gateway.ask("reload")
        asked = network.lan.run("natpmpc", "-g", LAN_ROUTER, "-a", "7000", "4000", "udp", "3600")
        assert "Mapped public port 7000" in asked


def test_a75_without_leave_no_rule_goes_into_another_firewall(network: Network) -> None:
    network.router.run("iptables-restore", text=DOCKER)
    before = filter_rules(network)
    with Gateway(network.router):
        assert filter_rules(network) == before


def test_a69_senders_to_whom_there_is_no_way_back_are_no_firewall(
    network: Network, gateway: Gateway
) -> None:
    for interface in ("all", INTERNAL_INTERFACE):
        network.router.set_sysctl(f"net.ipv4.conf.{interface}.rp_filter", "1")
    network.lan.run("ip", "address", "add", f"{NO_LEASE}/32", "dev", "eth0")
    for port in range(40000, 40000 + 2 * ENOUGH):
        check_silent(network.lan, Endpoint(NO_LEASE, port), Endpoint(SERVER, 5060))
    time.sleep(CHECK_INTERVAL)
    with connect(network, Endpoint(PHONE_1, 40000)) as line:
        line.exchange()
        assert gateway.show_connections()


@pytest.mark.parametrize("on_failure", ["pass", "hold"])
def test_a69_connections_that_a_firewall_keeps_from_the_relay_pass_as_they_are(
    network: Network, on_failure: str
) -> None:
    drop = "chain input { type filter hook input priority filter; policy drop; }"
    network.router.run("nft", f"table inet admin {{ {drop}; }}")
    server, phone = Endpoint(SERVER, 5060), Endpoint(PHONE_1, 40000)
    with (
        Gateway(network.router, on_failure=on_failure) as gateway,
        listening(network.wan, server) as listener,
        tcp_socket(network.lan, phone) as calling,
    ):
        calling.settimeout(20.0)
        if on_failure == "hold":
            with pytest.raises(TimeoutError):
                calling.connect(server)
        else:
            calling.connect(server)
            with accepted(listener, server, Endpoint(EXTERNAL, phone.port)) as called:
                check_passes(calling, called)
        assert any("0x4000000/0x4000000" in line for line in gateway.log)
