"""Which of a router's links is external and which are internal: proposed from what they are.

    external   the link of the default route, or without one the only link with a public address
    internal   every other link with a private network, unless it is an uplink too

What others have made for themselves (VPN, containers, virtual machines) is never proposed.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from nat_table.endpoint import is_private
from rules.links import DefaultRoute, Link

_VPN_KINDS = ("tun", "wireguard", "ipsec", "xfrm", "vti", "vti6", "gre", "gretap", "ipip")
_MADE_BY = {
    "Docker": r"docker\d+|docker_gwbridge|br-[0-9a-f]{12}",
    "Podman": r"podman\d+|cni-podman\d+",
    "Kubernetes": r"cni\d+|cali[0-9a-f]+|flannel.*|cilium_.*|kube-.*",
    "LXD": r"lxdbr\d+|incusbr\d+|lxcbr\d+",
    "libvirt": r"virbr\d+|vnet\d+",
    "a container": r"veth.+",
}

UPLINK = "the default route leaves by it"
UPLINK_TOO = "has a default route too"
PRIVATE = "private network"


class NoRoles(Exception):
    """No interface is fit to be proposed; the message is one sentence."""


@dataclass(frozen=True, slots=True)
class Part:
    """What a link is to be: "external", "internal" or ""; `what` are a few words on what it is."""

    link: Link
    role: str
    what: str


def choose_roles(
    links: Sequence[Link],
    routes: Sequence[DefaultRoute],
    internal: Collection[str] = (),
    external: str = "",
) -> list[Part]:
    """Returns the part of each link; what is given is not chosen. Raises NoRoles.

    The routes are in the order in which they are taken.
    """
    uplinks = list(dict.fromkeys(each.interface for each in routes))
    what = {link.name: _what(link, uplinks) for link in links}
    external = external or _external(links, uplinks)
    fit = [name for name, each in what.items() if each == PRIVATE and name != external]
    inside = internal or fit
    if external in inside:
        raise NoRoles(f"{external} is the external interface, so it cannot be an internal one")
    if not inside:
        raise NoRoles(
            f"no interface but {external} is up and has a private network of phones"
            f"{_others(links, what, external)}: give --internal IFACE"
        )
    return [Part(link, _role(link.name, inside, external), what[link.name]) for link in links]


def is_notable(link: Link) -> bool:
    """Tells whether somebody may wonder why it is left out: it has addresses, or is hardware."""
    return bool(link.addresses or link.addresses6) or not (link.kind or link.is_port)


def _others(links: Sequence[Link], what: Mapping[str, str], external: str) -> str:
    """Returns " (lan1: is down)", with each link that somebody may have meant."""
    named = [f"{link.name}: {what[link.name]}" for link in links if is_notable(link)]
    others = [each for each in named if not each.startswith(f"{external}: ")]
    return f" ({', '.join(others)})" if others else ""


def _role(name: str, internal: Collection[str], external: str) -> str:
    return "external" if name == external else "internal" if name in internal else ""


def _external(links: Sequence[Link], uplinks: Sequence[str]) -> str:
    """Returns the link to the Internet; raises NoRoles."""
    made = {link.name: maker for link in links if (maker := _maker(link))}
    for name in uplinks:
        if name not in made:
            return name
    if uplinks:
        raise NoRoles(
            f"the only default route leaves by {uplinks[0]} ({made[uplinks[0]]}): "
            f"give --external {uplinks[0]} if calls go there, or another interface"
        )
    public = [link.name for link in links if link.name not in made and _is_public(link)]
    if len(public) == 1:
        return public[0]
    raise NoRoles("no interface has a default route: give --external IFACE, the one to the servers")


def _what(link: Link, uplinks: Sequence[str]) -> str:
    if maker := _maker(link):
        return maker
    if not link.is_up:
        return "is down"
    if link.name in uplinks:
        return UPLINK if link.name == uplinks[0] else UPLINK_TOO
    if link.carries_pppoe:
        return "carries PPPoE"
    if not link.addresses:
        return "has IPv6 alone" if link.addresses6 else "has no address"
    return "public network" if _is_public(link) else PRIVATE


def _maker(link: Link) -> str:
    """Returns who made a link for purposes of his own, "" where nobody did."""
    if link.kind in _VPN_KINDS:
        return "VPN"
    return next((by for by, names in _MADE_BY.items() if re.fullmatch(names, link.name)), "")


def _is_public(link: Link) -> bool:
    return any(not is_private(str(each.ip)) for each in link.addresses)
