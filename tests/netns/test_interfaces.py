"""What the router has: addresses, networks and sockets, as the kernel lists them."""

from __future__ import annotations

from contextlib import closing
from ipaddress import IPv4Network

import pytest

from nat_table.endpoint import Endpoint
from rules.interfaces import (
    InterfaceMissing,
    NoAddress,
    external_addresses,
    is_reached_by,
    networks_of,
    own_addresses,
)
from rules.listeners import local_ports
from tests.lab.network import (
    EXTERNAL,
    EXTERNAL_INTERFACE,
    INTERNAL_INTERFACE,
    LAN_ROUTED6,
    LAN_ROUTER,
    PHONE_1,
    SERVER,
    STRANGER,
    Network,
)
from tests.netns.connections import listening, tcp_socket

pytestmark = pytest.mark.netns


def ip(network: Network, command: str) -> None:
    network.router.run("ip", *command.split())


def test_external_addresses_are_the_global_ones_primary_first(network: Network) -> None:
    call = network.router.call
    assert call(lambda: external_addresses(EXTERNAL_INTERFACE)[0]) == EXTERNAL
    assert call(lambda: external_addresses(INTERNAL_INTERFACE)[0]) == LAN_ROUTER
    ip(network, "addr add 203.0.113.2/24 dev wan0")
    ip(network, "addr add 198.51.100.7/32 dev wan0 label wan0:vip")
    ip(network, "addr add 169.254.1.1/16 scope link dev wan0")
    assert call(lambda: external_addresses(EXTERNAL_INTERFACE)) == (
        EXTERNAL,
        "198.51.100.7",
        "203.0.113.2",
    )
    ip(network, "addr del 203.0.113.1/24 dev wan0")
    assert call(lambda: external_addresses(EXTERNAL_INTERFACE))[0] == "198.51.100.7"
    ip(network, "addr flush dev wan0 scope global")
    with pytest.raises(NoAddress, match="interface wan0 has no IPv4 address"):
        call(lambda: external_addresses(EXTERNAL_INTERFACE))
    with pytest.raises(InterfaceMissing, match="there is no interface ppp7"):
        call(lambda: external_addresses("ppp7"))


def test_A87_own_addresses_are_those_of_every_interface(network: Network) -> None:
    ip(network, "link add vpn0 type veth")
    ip(network, "addr add 192.168.7.1/24 dev vpn0")
    own = network.router.call(own_addresses)
    assert own == {"127.0.0.1", "::1", EXTERNAL, LAN_ROUTER, "192.168.7.1"}


def test_networks_of_interfaces(network: Network) -> None:
    ip(network, "addr add 10.0.0.2/24 dev lan0")
    ip(network, "addr add 192.168.8.1/22 dev lan0")
    ip(network, "addr add 192.0.2.1 peer 192.0.2.9 dev wan0")
    networks = network.router.call(lambda: networks_of(["lan0", "ppp7", "wan0"]))
    assert networks == (
        IPv4Network("10.0.0.0/24"),
        IPv4Network("192.168.8.0/22"),
        IPv4Network("203.0.113.0/24"),
        IPv4Network("192.0.2.9/32"),
    )


def test_ports_of_the_router_but_those_on_loopback(network: Network) -> None:
    here = Endpoint(EXTERNAL, 8080)
    with (
        listening(network.router, here) as listener,
        tcp_socket(network.lan, Endpoint(PHONE_1, 40000)) as client,
        listening(network.router, Endpoint("127.0.0.1", 8081)),
        tcp_socket(network.router, Endpoint(EXTERNAL, 8082)),
        closing(network.router.udp_socket("0.0.0.0", 5353)),
        closing(network.router.udp_socket("127.0.0.1", 5354)),
    ):
        client.connect(here)
        with listener.accept()[0]:
            assert network.router.call(local_ports) == {5353, 8080}


def test_a_host_is_reached_by_the_interface_that_its_packets_leave_by() -> None:
    with Network(lan6=LAN_ROUTED6) as network:
        reached = network.router.call(
            lambda: [
                host
                for host in (PHONE_1, f"{LAN_ROUTED6}20", LAN_ROUTER, SERVER, STRANGER, "fe80::1")
                if is_reached_by([INTERNAL_INTERFACE], host)
            ]
        )
    assert reached == [PHONE_1, f"{LAN_ROUTED6}20"]
