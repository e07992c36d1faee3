"""Links and addresses of the router, as far as the gateway must know them."""

from __future__ import annotations

import fcntl
import socket
import struct
import sys
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute

from rules.rtnetlink import with_routes

_SCOPE_GLOBAL, _SCOPE_LINK = 0, 253
_UNICAST = 1  # RTN_UNICAST of linux/rtnetlink.h: no address of ours, no broadcast, no multicast
_NEW_ROUTE, _GET_ROUTE, _REQUEST = 24, 26, 1
_TO, _FROM, _OUT_BY = 1, 2, 4  # RTA_DST, RTA_SRC, RTA_OIF
_MESSAGE = struct.Struct("=IHHII")
_ROUTE = struct.Struct("=8BI")
_ATTRIBUTE = struct.Struct("=HH")
_GET_FLAGS, _GET_MTU = 0x8913, 0x8921  # SIOCGIFFLAGS, SIOCGIFMTU (netdevice(7))
_INTERFACE_FLAGS, _INTERFACE_MTU = struct.Struct("=16sH22x"), struct.Struct("=16si20x")
_UP, _RUNNING = 0x01, 0x40  # linux/if.h
_FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
_FORWARDING6 = Path("/proc/sys/net/ipv6/conf/all/forwarding")
_TEMPORARY, _DUPLICATE, _DEPRECATED, _TENTATIVE = 0x01, 0x08, 0x20, 0x40  # linux/if_addr.h
_FLEETING = _TEMPORARY | _DUPLICATE | _DEPRECATED | _TENTATIVE
_UNIQUE_LOCAL = IPv6Network("fc00::/7")


class InterfaceMissing(Exception):
    """There is no such interface; the message is one sentence."""

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no interface {name}")


class NoAddress(Exception):
    """The interface has no global IPv4 address; the message is one sentence."""


def index_of(name: str) -> int:
    """Returns the index of an interface; raises InterfaceMissing."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        raise InterfaceMissing(name) from None


def faults(external: str, internal: Iterable[str]) -> Iterator[str]:
    """Yields in a sentence each what keeps the interfaces from carrying packets; takes 2 ms."""
    for name in (external, *internal):
        try:
            if fault := _link_fault(name):
                yield fault
            elif name == external:
                external_addresses(name)
        except (InterfaceMissing, NoAddress) as error:
            yield str(error)


def external_addresses(name: str) -> tuple[str, ...]:
    """Returns the interface's global IPv4 addresses, primary ones first, as the kernel lists them.

    Raises InterfaceMissing, NoAddress.
    """
    index_of(name)
    addresses = tuple(
        _own_address(message)
        for message in _addresses(name, socket.AF_INET)
        if message["scope"] == _SCOPE_GLOBAL
    )
    if not addresses:
        raise NoAddress(f"interface {name} has no IPv4 address")
    return addresses


def external_addresses6(name: str) -> tuple[str, ...]:
    """Returns the interface's IPv6 addresses that mappings may be on, global unicast ones first.

    They are none that are temporary, deprecated or not proven to be unique (RFC 4862, 8981).
    """
    found = [
        _own_address(message)
        for message in _addresses(name, socket.AF_INET6)
        if message["scope"] == _SCOPE_GLOBAL and not _flags(message) & _FLEETING
    ]
    return tuple(sorted(found, key=is_unique_local))


def is_unique_local(address: str) -> bool:
    """Tells whether an IPv6 address is of a site's own (RFC 4193)."""
    return IPv6Address(address) in _UNIQUE_LOCAL


def default_gateway(name: str) -> str | None:
    """Returns the IPv4 address of the next hop to everywhere by an interface, None without one."""

    def dump(routes: IPRoute) -> list[Any]:
        return list(routes.get_default_routes(family=socket.AF_INET))

    try:
        index = index_of(name)
    except InterfaceMissing:
        return None
    ways = [each for each in with_routes(dump) if each.get_attr("RTA_OIF") == index]
    ways.sort(key=lambda way: way.get_attr("RTA_PRIORITY") or 0)
    return next((str(hop) for way in ways if (hop := way.get_attr("RTA_GATEWAY"))), None)


def own_addresses() -> frozenset[str]:
    """Returns every address of the router in this network namespace that packets are routed to."""
    return frozenset(
        _own_address(message)
        for message in _dump_addresses(socket.AF_UNSPEC)
        if message["family"] == socket.AF_INET or message["scope"] != _SCOPE_LINK
    )


def networks_of(names: Iterable[str]) -> tuple[IPv4Network | IPv6Network, ...]:
    """Returns the networks on the links of these interfaces; one that is missing has none.

    On a point-to-point link that is the peer. Link-local networks of IPv6 are not among them: each
    link has the same.
    """
    found = (
        ip_network((message.get_attr("IFA_ADDRESS"), message["prefixlen"]), strict=False)
        for name in names
        for family in (socket.AF_INET, socket.AF_INET6)
        for message in _addresses(name, family)
        if family == socket.AF_INET or message["scope"] == _SCOPE_GLOBAL
    )
    return tuple(dict.fromkeys(found))


def is_reached_by(names: Iterable[str], address: str, source: str = "") -> bool:
    """Tells whether packets are routed to a host by one of these interfaces.

    They are from `source`, an address of the router of that family, or from whichever it would
    take. To a link-local address they are not. Anybody inside may have this asked, for addresses
    that nobody has, so it must not take the 2 ms that it takes with pyroute2.
    """
    parsed = ip_address(address)
    if parsed.is_link_local:
        return False
    family = socket.AF_INET if parsed.version == 4 else socket.AF_INET6
    length = parsed.max_prefixlen
    asked = _ROUTE.pack(family, length, length if source else 0, 0, 0, 0, 0, 0, 0)
    for kind, each in {_TO: address, **({_FROM: source} if source else {})}.items():
        packed = ip_address(each).packed
        asked += _ATTRIBUTE.pack(_ATTRIBUTE.size + len(packed), kind) + packed
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as routes:
            routes.send(
                _MESSAGE.pack(_MESSAGE.size + len(asked), _GET_ROUTE, _REQUEST, 0, 0) + asked
            )
            leaves_by = _way_out(routes.recv(4096))
        return leaves_by is not None and socket.if_indextoname(leaves_by) in names
    except OSError:
        return False


def has_route(address: str) -> bool:
    """Tells whether packets are routed to a host by any interface."""
    return is_reached_by([name for _, name in socket.if_nameindex()], address)


def _way_out(answer: bytes) -> int | None:
    """Returns the interface of the unicast route in an answer (rtnetlink(7))."""
    size, kind, *_ = _MESSAGE.unpack_from(answer)
    if kind != _NEW_ROUTE or _ROUTE.unpack_from(answer, _MESSAGE.size)[7] != _UNICAST:
        return None
    offset = _MESSAGE.size + _ROUTE.size
    while offset < size:
        length, attribute = _ATTRIBUTE.unpack_from(answer, offset)
        if attribute == _OUT_BY:
            return int.from_bytes(answer[offset + _ATTRIBUTE.size :][:4], sys.byteorder)
        offset += length + -length % 4
    return None


def is_forwarding() -> bool:
    """Tells whether the kernel forwards IPv4 packets at all."""
    return _FORWARDING.read_text().strip() != "0"


def is_forwarding6() -> bool:
    """Tells whether the kernel forwards IPv6 packets at all."""
    return _FORWARDING6.exists() and _FORWARDING6.read_text().strip() != "0"


def mtu_of(index: int) -> int:
    """Returns the MTU of the interface with this index, in bytes; raises OSError."""
    mtu: int
    _, mtu = _ask(_GET_MTU, _INTERFACE_MTU, socket.if_indextoname(index))
    return mtu


def _link_fault(name: str) -> str | None:
    try:
        _, flags = _ask(_GET_FLAGS, _INTERFACE_FLAGS, name)
    except OSError:
        raise InterfaceMissing(name) from None
    if not flags & _UP:
        return f"interface {name} is down"
    return None if flags & _RUNNING else f"interface {name} has no carrier"


def _ask(what: int, form: struct.Struct, name: str) -> tuple[Any, ...]:
    """Returns what the kernel answers about an interface, by ioctl; raises OSError."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        return form.unpack(fcntl.ioctl(asking, what, form.pack(name.encode(), 0)))


def _own_address(message: Any) -> str:
    """Returns the router's address; on a link that is not point-to-point IPv6 says it once."""
    return str(message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS"))


def _flags(message: Any) -> int:
    flags: int = message.get_attr("IFA_FLAGS") or message["flags"]
    return flags


def _addresses(name: str, family: int) -> list[Any]:
    """Returns the kernel's messages about the interface's addresses, none if it is missing.

    Asked for a family that it does not have, it answers with all others (`ipv6.disable=1`).
    """
    try:
        index = index_of(name)
    except InterfaceMissing:
        return []
    found = _dump_addresses(family, index=index)
    return [message for message in found if message["family"] == family]


def _dump_addresses(family: int, **match: int) -> list[Any]:
    def dump(routes: IPRoute) -> list[Any]:
        return list(routes.get_addr(family=family, **match))

    return with_routes(dump)
