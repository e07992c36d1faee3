"""What the router tells about IPv6: addresses, networks, and from these what becomes of it."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from contextlib import closing
from ipaddress import IPv4Network, IPv6Network

import pytest

from nat_table.behavior import Mode6
from rules.interfaces import (
    external_addresses6,
    is_forwarding6,
    mtu_of,
    networks_of,
    own_addresses,
)
from rules.mode6 import Prefixes, detect_mode6, translated_prefixes
from rules.watch import AddressesChanged, DefaultRouteChanged, ForwardingChanged, Watch
from tests.lab.network import (
    EXTERNAL6,
    EXTERNAL_INTERFACE,
    INTERNAL_INTERFACE,
    LAN_ROUTED6,
    LAN_UNIQUE_LOCAL6,
    SERVER6,
    Network,
)
from tests.netns.kernel6 import NPT, PREFIXES

pytestmark = pytest.mark.netns

UNKNOWN_FAMILY = 12  # DECnet, which is no more
ADDRESSES = AddressesChanged(EXTERNAL_INTERFACE)


@pytest.fixture(params=[LAN_UNIQUE_LOCAL6])
def network(request: pytest.FixtureRequest) -> Iterator[Network]:
    with Network(lan6=request.param) as network:
        yield network


routed = pytest.mark.parametrize("network", [LAN_ROUTED6], indirect=True)


def ip(network: Network, command: str) -> None:
    network.router.run("ip", "-6", *command.split())


def mode(network: Network, prefixes: Prefixes | None = None) -> Mode6:
    interfaces = [INTERNAL_INTERFACE, "lan7"]
    return network.router.call(lambda: detect_mode6(interfaces, EXTERNAL_INTERFACE, prefixes))


@routed
def test_a59_global_addresses_inside_are_routed(network: Network) -> None:
    assert mode(network) is mode(network, PREFIXES) is Mode6.PINHOLE
    ip(network, f"addr add {LAN_UNIQUE_LOCAL6}1/64 dev lan0 nodad")
    assert mode(network) is Mode6.PINHOLE
    ip(network, "addr flush dev wan0 scope global")  # as on many lines by PPPoE
    assert mode(network) is Mode6.PINHOLE
    network.router.set_sysctl("net.ipv6.conf.all.forwarding", "0")
    assert not network.router.call(is_forwarding6)
    assert mode(network) is Mode6.OFF


def test_a59_unique_local_addresses_inside_are_translated(network: Network) -> None:
    assert mode(network) is Mode6.NAT66
    assert mode(network, PREFIXES) is Mode6.NPTV6
    ip(network, f"addr del {EXTERNAL6}/64 dev wan0")
    assert mode(network) is Mode6.OFF
    ip(network, "addr add fd00:9::1/64 dev wan0 nodad")
    assert mode(network) is Mode6.OFF


def test_a59_without_an_address_inside_ipv6_is_off(network: Network) -> None:
    ip(network, "addr flush dev lan0 scope global")
    assert mode(network) is Mode6.OFF


def test_prefixes_are_read_from_ip6tables(network: Network) -> None:
    def prefixes() -> Prefixes | None:
        return network.router.call(lambda: translated_prefixes(EXTERNAL_INTERFACE))

    def add(rule: str) -> None:
        network.router.run("ip6tables", "-t", "mangle", "-A", *rule.split())

    assert prefixes() is None
    add(NPT[0].replace(EXTERNAL_INTERFACE, "wan1"))
    assert prefixes() is None
    for interface in (EXTERNAL_INTERFACE, "wan+"):
        network.router.run("ip6tables", "-t", "mangle", "-F")
        add(NPT[0].replace(EXTERNAL_INTERFACE, interface))
        assert prefixes() == PREFIXES
    network.router.run("ip6tables", "-t", "mangle", "-F")
    add("POSTROUTING -j SNPT --src-pfx fd00:1::/48 --dst-pfx 2001:db8:9:100::/56")
    assert prefixes() == (IPv6Network("fd00:1::/56"), IPv6Network("2001:db8:9:100::/56"))


def test_external_addresses_are_lasting_and_global_ones_come_first(network: Network) -> None:
    for address, how in (
        ("fd00:9::1", "nodad"),
        ("2001:db8:2::7", "nodad"),
        ("2001:db8:2::8", "nodad preferred_lft 0"),
        ("fe80::7", "scope link nodad"),
    ):
        ip(network, f"addr add {address}/64 dev wan0 {how}")
    network.wan.run("ip", "-6", "addr", "add", "2001:db8:2::9/64", "dev", "eth0", "nodad")
    ip(network, "addr add 2001:db8:2::9/64 dev wan0")
    found = network.router.call(lambda: external_addresses6(EXTERNAL_INTERFACE))
    assert set(found[:2]) == {EXTERNAL6, "2001:db8:2::7"} and found[2:] == ("fd00:9::1",)
    assert network.router.call(lambda: external_addresses6("ppp7")) == ()


def test_A87_own_addresses_and_networks_are_of_both_families(network: Network) -> None:
    own = network.router.call(own_addresses)
    assert own >= {"10.0.0.1", f"{LAN_UNIQUE_LOCAL6}1", EXTERNAL6}
    assert not any(address.startswith("fe80") for address in own)
    networks = network.router.call(lambda: networks_of([INTERNAL_INTERFACE]))
    assert networks == (IPv4Network("10.0.0.0/24"), IPv6Network(f"{LAN_UNIQUE_LOCAL6}/64"))


def test_a_kernel_without_ipv6_has_no_address_of_it(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked for a family that it does not know, a kernel answers with all others."""
    monkeypatch.setattr(socket, "AF_INET6", UNKNOWN_FAMILY)
    assert network.router.call(lambda: external_addresses6(EXTERNAL_INTERFACE)) == ()
    networks = network.router.call(lambda: networks_of([INTERNAL_INTERFACE]))
    assert networks == (IPv4Network("10.0.0.0/24"),)


def test_mtu_is_that_of_the_interface(network: Network) -> None:
    ip(network, "link set wan0 mtu 1400")
    index = int(network.router.run("cat", "/sys/class/net/wan0/ifindex"))
    assert network.router.call(lambda: mtu_of(index)) == 1400
    with pytest.raises(OSError):
        network.router.call(lambda: mtu_of(9999))


def test_A33_changes_of_ipv6_are_told_but_not_those_of_the_link_alone(network: Network) -> None:
    with closing(network.router.call(Watch)) as watch:
        ip(network, "addr add fe80::7/64 dev wan0 nodad")
        ip(network, f"route add 2001:db8:99::/64 via {SERVER6}")
        readable, _, _ = select.select([watch], [], [], 0.1)
        assert not readable or watch.events() == []
        ip(network, "addr add 2001:db8:2::7/64 dev wan0 nodad")
        assert watch.events() == [ADDRESSES]
        ip(network, f"addr del {EXTERNAL6}/64 dev wan0")
        assert ADDRESSES in watch.events()
        ip(network, f"route add default via {SERVER6}")
        assert watch.events() == [DefaultRouteChanged()]
        network.router.set_sysctl("net.ipv6.conf.all.forwarding", "0")
        assert watch.events() == [ForwardingChanged()]
