"""Which links are proposed as internal and external, on routers of every kind."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Interface, IPv6Interface

import pytest

from rules.links import DefaultRoute, Link
from rules.roles import NoRoles, choose_roles

WAN = Link("eth0", addresses=(IPv4Interface("198.51.100.7/24"),))
LAN = Link("eth1", addresses=(IPv4Interface("192.168.1.1/24"),))
BY_WAN = DefaultRoute("eth0")


def link(name: str, *addresses: str, kind: str = "") -> Link:
    return Link(name, kind, addresses=tuple(map(IPv4Interface, addresses)))


def roles(
    links: list[Link], *routes: DefaultRoute, internal: tuple[str, ...] = (), external: str = ""
) -> tuple[str, list[str], dict[str, str]]:
    """Returns the external link, the internal ones, and what every link is."""
    parts = choose_roles(links, routes, internal, external)
    (outside,) = (part.link.name for part in parts if part.role == "external")
    inside = [part.link.name for part in parts if part.role == "internal"]
    return outside, inside, {part.link.name: part.what for part in parts}


def test_the_default_route_is_external_and_private_networks_are_internal() -> None:
    guests = link("eth2.5", "10.5.0.1/16", kind="vlan")
    outside, inside, what = roles([WAN, LAN, guests], BY_WAN)
    assert (outside, inside) == ("eth0", ["eth1", "eth2.5"])
    assert what == {
        "eth0": "the default route leaves by it",
        "eth1": "private network",
        "eth2.5": "private network",
    }


@pytest.mark.parametrize(
    ("name", "kind", "what"),
    [
        ("docker0", "bridge", "Docker"),
        ("br-0123456789ab", "bridge", "Docker"),
        ("vethc0ffee1", "veth", "a container"),
        ("virbr0", "bridge", "libvirt"),
        ("lxdbr0", "bridge", "LXD"),
        ("podman1", "bridge", "Podman"),
        ("cni0", "bridge", "Kubernetes"),
        ("wg0", "wireguard", "VPN"),
        ("tun0", "tun", "VPN"),
        ("hq", "vti", "VPN"),
    ],
)
def test_what_others_have_made_is_taken_only_if_it_is_asked_for(
    name: str, kind: str, what: str
) -> None:
    other = link(name, "172.17.0.1/16", kind=kind)
    assert roles([WAN, LAN, other], BY_WAN)[1:] == (["eth1"], {**told(), name: what})
    assert roles([WAN, LAN, other], BY_WAN, internal=("eth1", name))[1] == ["eth1", name]
    assert roles([WAN, LAN, other], BY_WAN, external=name)[0] == name


def told() -> dict[str, str]:
    return roles([WAN, LAN], BY_WAN)[2]


@pytest.mark.parametrize("name", ["br-lan", "br0", "lan0", "eth1.20", "wlan0", "bond0"])
def test_bridges_and_links_of_the_site_itself_are_internal(name: str) -> None:
    site = link(name, "192.168.1.1/24", kind="bridge" if name.startswith("br") else "")
    assert roles([WAN, site], BY_WAN)[:2] == ("eth0", [name])


def test_pppoe_and_the_modem_behind_it() -> None:
    modem = replace(link("eth0", "192.168.100.2/24"), carries_pppoe=True)
    uplink = link("ppp0", "198.51.100.7/32")
    outside, inside, what = roles([modem, LAN, uplink], DefaultRoute("ppp0"))
    assert (outside, inside) == ("ppp0", ["eth1"])
    assert what["eth0"] == "carries PPPoE"


def test_of_several_uplinks_the_first_is_taken_and_the_others_are_no_sites() -> None:
    mobile = link("wwan0", "10.64.0.9/30")
    routes = (BY_WAN, DefaultRoute("wwan0", metric=200))
    outside, inside, what = roles([mobile, WAN, LAN], *routes)
    assert (outside, inside) == ("eth0", ["eth1"])
    assert what["wwan0"] == "has a default route too"
    assert roles([mobile, WAN, LAN], *routes, external="wwan0")[:2] == ("wwan0", ["eth1"])


def test_an_uplink_of_ipv6_alone_is_no_site() -> None:
    tunnel = Link("he6", "sit", addresses6=(IPv6Interface("2001:db8::2/64"),))
    fiber = link("eth2", "10.0.0.2/24")
    routes = (BY_WAN, DefaultRoute("he6", is_ipv6=True), DefaultRoute("eth2", is_ipv6=True))
    assert roles([WAN, LAN, tunnel, fiber], *routes)[1] == ["eth1"]


def test_a_tunnel_for_everything_does_not_make_a_vpn_the_uplink() -> None:
    tunnel = link("wg0", "10.2.0.2/32", kind="wireguard")
    routes = (BY_WAN, DefaultRoute("wg0", is_main=False))
    assert roles([WAN, LAN, tunnel], *routes)[:2] == ("eth0", ["eth1"])
    with pytest.raises(NoRoles, match=r"leaves by wg0 \(VPN\): give --external wg0"):
        roles([WAN, LAN, tunnel], DefaultRoute("wg0"))


def test_without_a_default_route_the_only_public_address_tells() -> None:
    assert roles([LAN, WAN])[:2] == ("eth0", ["eth1"])
    for links in ([LAN], [LAN, WAN, link("eth2", "203.0.113.7/24")]):
        with pytest.raises(NoRoles, match="no interface has a default route: give --external"):
            roles(links)


def test_what_cannot_be_internal_says_why() -> None:
    links = [
        WAN,
        LAN,
        replace(link("eth2", "10.2.0.1/24"), is_up=False),
        link("eth3", "203.0.113.65/27"),
        link("eth4"),
        Link("eth5", addresses6=(IPv6Interface("fd00::1/64"),)),
    ]
    outside, inside, what = roles(links, BY_WAN)
    assert (outside, inside) == ("eth0", ["eth1"])
    assert what["eth2"] == "is down"
    assert what["eth3"] == "public network"
    assert what["eth4"] == "has no address"
    assert what["eth5"] == "has IPv6 alone"


def test_an_external_interface_may_have_a_private_network_and_no_default_route() -> None:
    trunk = link("trunk0", "10.99.0.2/30")
    outside, inside, what = roles([WAN, LAN, trunk], BY_WAN, external="trunk0")
    assert (outside, inside) == ("trunk0", ["eth1"])
    assert what["trunk0"] == "private network"


def test_a_machine_that_is_no_router() -> None:
    down = replace(LAN, is_up=False)
    with pytest.raises(NoRoles, match=r"no interface but eth0 .* \(eth1: is down\): give"):
        roles([WAN, down, link("eth1.7", kind="vlan")], BY_WAN)


def test_no_interface_is_both() -> None:
    with pytest.raises(NoRoles, match="eth0 is the external interface"):
        roles([WAN, LAN], BY_WAN, internal=("eth1", "eth0"))
