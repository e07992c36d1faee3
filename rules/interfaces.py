"""Links, addresses and sockets of the router, as far as the gateway must know them."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute

_SCOPE_GLOBAL = 0
_SOCKETS = (Path("/proc/thread-self/net/udp"), Path("/proc/thread-self/net/udp6"))
_LOOPBACK = 127
_FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")


class InterfaceMissing(Exception):
    """There is no such interface; the message is one sentence."""


class NoAddress(Exception):
    """The interface has no global IPv4 address; the message is one sentence."""


def interface_exists(name: str) -> bool:
    """Tells whether there is an interface of this name."""
    try:
        socket.if_nametoindex(name)
    except OSError:
        return False
    return True


def external_addresses(name: str) -> tuple[str, ...]:
    """Returns the interface's global IPv4 addresses, primary ones first, as the kernel lists them.

    Raises InterfaceMissing, NoAddress.
    """
    if not interface_exists(name):
        raise InterfaceMissing(f"there is no interface {name}")
    addresses = tuple(
        str(message.get_attr("IFA_LOCAL"))
        for message in _addresses(name)
        if message["scope"] == _SCOPE_GLOBAL
    )
    if not addresses:
        raise NoAddress(f"interface {name} has no IPv4 address")
    return addresses


def own_addresses() -> frozenset[str]:
    """Returns every IPv4 address of the router in this network namespace."""
    return frozenset(str(message.get_attr("IFA_LOCAL")) for message in _dump_addresses())


def networks_of(names: Iterable[str]) -> tuple[IPv4Network, ...]:
    """Returns the networks on the links of these interfaces; one that is missing has none.

    On a point-to-point link that is the peer.
    """
    found = (
        IPv4Network((message.get_attr("IFA_ADDRESS"), message["prefixlen"]), strict=False)
        for name in names
        for message in _addresses(name)
    )
    return tuple(dict.fromkeys(found))


def is_forwarding() -> bool:
    """Tells whether the kernel forwards IPv4 packets at all."""
    return _FORWARDING.read_text().strip() != "0"


def local_udp_ports() -> frozenset[int]:
    """Returns the ports of the router's own UDP sockets, but those bound to loopback alone."""
    return frozenset(
        port
        for table in _SOCKETS
        if table.exists()
        for line in table.read_text().splitlines()[1:]
        if (port := _local_port(line.split()[1])) is not None
    )


def _addresses(name: str) -> list[Any]:
    """Returns the kernel's messages about the interface's addresses, none if it is missing."""
    try:
        index = socket.if_nametoindex(name)
    except OSError:
        return []
    return _dump_addresses(index=index)


def _dump_addresses(**match: int) -> list[Any]:
    """Asks in a thread: pyroute2 runs an event loop, and the caller may be in one already."""

    def dump() -> list[Any]:
        with IPRoute() as links:
            return list(links.get_addr(family=socket.AF_INET, **match))

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(dump).result()


def _local_port(local: str) -> int | None:
    """Parses "0100007F:13C4" (words in host byte order)."""
    address, _, port = local.partition(":")
    words = [int(address[start : start + 8], 16) for start in range(0, len(address), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    is_loopback = packed[0] == _LOOPBACK if len(packed) == 4 else packed == b"\0" * 15 + b"\x01"
    return None if is_loopback else int(port, 16)
