"""What a router's links are, and by which of them the Internet is reached, as the kernel tells."""

from __future__ import annotations

import socket
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute

from rules.rtnetlink import with_routes

_IFF_UP, _IFF_LOOPBACK, _IFF_RUNNING = 0x01, 0x08, 0x40  # linux/if.h
_SCOPE_GLOBAL = 0
_PERMANENT = 0x80  # IFA_F_PERMANENT of linux/if_addr.h
_UNICAST, _MAIN_TABLE = 1, 254  # RTN_UNICAST, RT_TABLE_MAIN of linux/rtnetlink.h
_PPPOE = Path("/proc/thread-self/net/pppoe")


@dataclass(frozen=True, slots=True)
class Link:
    """A link, but the loopback; `kind` is what `ip -details link` calls it, "" for hardware.

    `is_leased` where its first IPv4 address has an end, as those of DHCP do. `addresses6` are the
    global ones.
    """

    name: str
    kind: str = ""
    is_up: bool = True
    has_carrier: bool = True
    is_port: bool = False
    """Whether it is part of a bridge, a bond or the like."""

    addresses: tuple[IPv4Interface, ...] = ()
    addresses6: tuple[IPv6Interface, ...] = ()
    is_leased: bool = False
    carries_pppoe: bool = False


@dataclass(frozen=True, slots=True)
class DefaultRoute:
    """A way to everywhere by IPv4, or by IPv6."""

    interface: str
    is_ipv6: bool = False
    is_main: bool = True
    """Whether it is in the main routing table, not in one of policy routing."""

    metric: int = 0


def read_links() -> tuple[Link, ...]:
    """Returns all links of this network namespace, as the kernel lists them."""

    def dump(routes: IPRoute) -> tuple[list[Any], list[Any]]:
        return list(routes.get_links()), list(routes.get_addr())

    found, addresses = with_routes(dump)
    carriers = _pppoe_carriers()
    return tuple(
        _link(message, [each for each in addresses if each["index"] == message["index"]], carriers)
        for message in found
        if not message["flags"] & _IFF_LOOPBACK
    )


def read_default_routes() -> tuple[DefaultRoute, ...]:
    """Returns the routes to everywhere, those of IPv4 first, and what is taken before others."""

    def dump(routes: IPRoute) -> list[Any]:
        families = (socket.AF_INET, socket.AF_INET6)
        return [each for family in families for each in routes.get_routes(family=family)]

    names = dict(socket.if_nameindex())
    found = [
        _route(message, names[index])
        for message in with_routes(dump)
        if message["dst_len"] == 0 and message["type"] == _UNICAST
        for index in _ways_out(message)
        if index in names
    ]
    return tuple(sorted(found, key=lambda route: (route.is_ipv6, not route.is_main, route.metric)))


def _link(message: Any, addresses: Collection[Any], carriers: Collection[str]) -> Link:
    name, flags = message.get_attr("IFLA_IFNAME"), message["flags"]
    information = message.get_attr("IFLA_LINKINFO")
    held = [each for each in addresses if each["scope"] == _SCOPE_GLOBAL]
    ipv4 = [each for each in held if each["family"] == socket.AF_INET]
    ipv6 = [each for each in held if each["family"] == socket.AF_INET6]
    return Link(
        name,
        kind=(information.get_attr("IFLA_INFO_KIND") or "") if information else "",
        is_up=bool(flags & _IFF_UP),
        has_carrier=bool(flags & _IFF_RUNNING),
        is_port=message.get_attr("IFLA_MASTER") is not None,
        addresses=tuple(IPv4Interface(_own(each)) for each in ipv4),
        addresses6=tuple(IPv6Interface(_own(each)) for each in ipv6),
        is_leased=any(not each["flags"] & _PERMANENT for each in ipv4[:1]),
        carries_pppoe=name in carriers,
    )


def _own(message: Any) -> tuple[str, int]:
    """Returns the router's address; on a link that is not point-to-point IPv6 says it once."""
    address = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
    return str(address), message["prefixlen"]


def _route(message: Any, name: str) -> DefaultRoute:
    table = message.get_attr("RTA_TABLE") or message["table"]
    return DefaultRoute(
        name,
        is_ipv6=message["family"] == socket.AF_INET6,
        is_main=table == _MAIN_TABLE,
        metric=message.get_attr("RTA_PRIORITY") or 0,
    )


def _ways_out(message: Any) -> Iterator[int]:
    """Yields the index of each interface of a route."""
    if index := message.get_attr("RTA_OIF"):
        yield index
    for hop in message.get_attr("RTA_MULTIPATH") or ():
        yield hop["oif"]


def _pppoe_carriers() -> frozenset[str]:
    """Returns the interfaces that PPPoE sessions go over; lines are "Id Address Device"."""
    lines = _PPPOE.read_text().splitlines()[1:] if _PPPOE.exists() else []
    return frozenset(line.split()[-1] for line in lines if line.strip())
