"""SIP over TCP and IPv6 through the real gateway, in each of its modes.

The router's own firewall drops by default: what comes in for the relay is known by its mark.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator

import pytest

from nat_table.endpoint import Endpoint
from tests.lab.agents import wait_until
from tests.lab.carrier import TcpCarrier
from tests.lab.gateway import Gateway
from tests.lab.message import uri_endpoint, via_sent_by
from tests.lab.network import (
    LAN_ROUTED6,
    LAN_UNIQUE_LOCAL6,
    SERVER6,
    Network,
)
from tests.lab.sdp import media_endpoint
from tests.lab.site import Site
from tests.netns.connections import connected, listening
from tests.netns.kernel6 import FIREWALL, MASQUERADE6, ROUTED, keys_of, network_in, outside_of

pytestmark = [pytest.mark.netns, pytest.mark.timeout(90)]

PROXY6 = Endpoint(SERVER6, 5060)
BULK = 4 << 20

ROUTERS_OWN = f"""
table ip6 admin_input {{
    chain input {{
        type filter hook input priority filter; policy drop;
        iifname "lo" accept
        meta l4proto tcp ct state invalid counter drop
        ct state established,related accept
        meta mark & {ROUTED.relay_mark:#x} != 0 accept
        icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert }} accept
    }}
    chain output {{
        type filter hook output priority filter; policy accept;
        meta l4proto tcp ct state invalid counter drop
    }}
}}
"""


@pytest.fixture
def network(mode: str) -> Iterator[Network]:
    rules = (FIREWALL + MASQUERADE6 if mode == "nat66" else FIREWALL) + ROUTERS_OWN
    with network_in(mode, rules) as network:
        yield network


@pytest.fixture
def gateway(mode: str, network: Network) -> Iterator[Gateway]:
    with Gateway(network.router, **keys_of(mode)) as gateway:
        yield gateway


@pytest.fixture
def site(mode: str, network: Network, gateway: Gateway) -> Iterator[Site]:
    with _site(mode, network) as site:
        yield site


def test_a_call_over_tcp_has_audio_both_ways(
    mode: str, network: Network, gateway: Gateway, site: Site
) -> None:
    phone, server = site.phone_1, site.server
    outside = outside_of(mode, phone.endpoint.address)
    site.register(phone)
    registered = uri_endpoint(server.registrations[phone.user])
    assert registered.address == outside
    sent, arrived = site.call_out(phone)
    assert via_sent_by(arrived["Via"]).address == arrived.source.address == outside
    assert (arrived.raw == sent.raw) is (mode == "pinhole")
    assert media_endpoint(arrived.body).address == outside
    with site.talk(phone, arrived, site.server_media_1) as talk:
        assert talk.flows_on()
        [row] = gateway.show_connections()
        assert (row["server"], row["mapping"]) == (f"[{SERVER6}]:5060", str(arrived.source))
        assert (row["phone"] == row["mapping"]) is (mode == "pinhole")
    site.hang_up(phone, server, sent)
    assert wait_until(lambda: not gateway.show_mappings("rtp", "rtcp"), 5.0)


def test_a_server_connects_to_the_contact(
    mode: str, network: Network, gateway: Gateway, site: Site
) -> None:
    site.register(site.phone_2)
    carrier = site.server.carrier
    assert isinstance(carrier, TcpCarrier)
    carrier.hang_up()
    called, answered = site.call_in(site.phone_2)
    outside = outside_of(mode, site.phone_2.endpoint.address)
    assert media_endpoint(answered.body).address == outside
    with site.talk(site.phone_2, answered, site.server_media_1) as talk:
        assert talk.flows_on()
    site.hang_up(site.server, site.phone_2, called)


def test_conntrack_finds_nothing_invalid_on_either_side_of_the_relay(
    mode: str, network: Network, gateway: Gateway
) -> None:
    lan = LAN_ROUTED6 if mode == "pinhole" else LAN_UNIQUE_LOCAL6
    with (
        listening(network.wan, PROXY6) as server,
        connected(network.lan, Endpoint(f"{lan}20", 49152), PROXY6) as calling,
        server.accept()[0] as called,
    ):
        for sender, receiver in ((calling, called), (called, calling)):
            sending = threading.Thread(target=sender.sendall, args=(bytes(BULK),))
            sending.start()
            came = 0
            while came < BULK:
                came += len(receiver.recv(1 << 20))
            sending.join()
        assert gateway.show_connections()[0]["state"] == "opaque"
        rules = network.router.run("nft", "list", "table", "ip6", "admin_input")
    assert re.findall(r"invalid counter packets (\d+)", rules) == ["0", "0"]


@pytest.mark.parametrize("mode", ["pinhole", "nat66"], indirect=True)
def test_connections_pass_while_the_daemon_is_down(
    mode: str, network: Network, gateway: Gateway
) -> None:
    gateway.kill()
    with _site(mode, network) as site:
        site.register(site.phone_1)
        gateway.start()
    with _site(mode, network) as site:
        site.register(site.phone_1)
        assert gateway.show_connections()
    assert gateway.stop() == 0


def _site(mode: str, network: Network) -> Site:
    lan = LAN_ROUTED6 if mode == "pinhole" else LAN_UNIQUE_LOCAL6
    return Site(network, transport="tcp", phones=(f"{lan}20", f"{lan}21"), server=SERVER6)
