"""Transport addresses.

An `Endpoint` is a plain tuple, so that it hashes and compares at C speed: the packet path looks up
two of them for every message. Addresses are kept as canonical text (no leading zeros, IPv6
compressed), because text is what SIP, SDP and the command line speak; only `rules` packs them.

Phones and servers are few and speak often, so an endpoint that was made lately is not made again:
`endpoint_of` and `unpack_endpoint` remember those. What is remembered is forgotten as a whole when
it is full, so that a flood of new ones costs little more than to make them.
"""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, NamedTuple

_PRIVATE = tuple(
    ipaddress.ip_network(each)
    for each in (
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",
        "fc00::/7",
        "fe80::/10",
    )
)


class Transport(enum.Enum):
    """A transport protocol; the value is its IP protocol number."""

    UDP = 17
    TCP = 6

    __hash__ = object.__hash__  # Enum's is Python, and a socket is looked up for every message

    @property
    def label(self) -> str:
        """Returns the name that the command line and JSON print: "udp" or "tcp"."""
        return self.name.lower()


UDP: Final = Transport.UDP
TCP: Final = Transport.TCP
"""The same by themselves: a name of the module is found in a fifth of the time of a member."""


class Endpoint(NamedTuple):
    """An address and a port."""

    address: str
    port: int

    def __str__(self) -> str:
        return render_endpoint(self)


_LONGEST_ADDRESS: Final = 64
_MOST_REMEMBERED: Final = 16384  # of each way to make them; some two megabytes
_by_text: Final[dict[tuple[str, int], Endpoint]] = {}
_by_bytes: Final[dict[bytes, Endpoint]] = {}


def endpoint_of(address: str, port: int) -> Endpoint:
    """Returns the endpoint, mostly one that was made before.

    The address is text of any kind, and not checked.
    """
    key = (address, port)
    known = _by_text.get(key)
    if known is None:
        if len(_by_text) >= _MOST_REMEMBERED:
            _by_text.clear()
        known = tuple.__new__(Endpoint, key)
        if len(address) <= _LONGEST_ADDRESS:
            _by_text[known] = known
    return known


def unpack_endpoint(packed: bytes) -> Endpoint:
    """Returns the endpoint of an address (4 or 16 bytes) with a port (2 bytes) behind it.

    Raises ValueError for another length.
    """
    known = _by_bytes.get(packed)
    if known is None:
        if len(_by_bytes) >= _MOST_REMEMBERED:
            _by_bytes.clear()
        address = str(ipaddress.ip_address(packed[:-2]))
        known = _by_bytes[packed] = endpoint_of(address, int.from_bytes(packed[-2:], "big"))
    return known


def is_ipv6(address: str) -> bool:
    """Whether an address is one of IPv6."""
    return ":" in address


def is_one_family(one: Endpoint, other: Endpoint) -> bool:
    """Whether both addresses are of IPv4, or both of IPv6."""
    return (":" in one[0]) is (":" in other[0])


def of_one_family(addresses: Iterable[str], *, of_ipv6: bool) -> tuple[str, ...]:
    """Returns the addresses of IPv6, or those of IPv4."""
    return tuple(each for each in addresses if is_ipv6(each) is of_ipv6)


@lru_cache(1024)
def is_private(address: str) -> bool:
    """Whether an address is of a site, a carrier or a link (RFC 1918, 4193, 6598, 4291 §2.5.6)."""
    parsed = ipaddress.ip_address(address)
    return any(parsed in network for network in _PRIVATE)


def is_unicast(address: str) -> bool:
    """Whether a host on the Internet, or of a carrier's network, can have this IPv4 address."""
    if is_ipv6(address):
        return False
    parsed = ipaddress.IPv4Address(address)
    is_special = parsed.is_multicast or parsed.is_unspecified or parsed.is_loopback
    return not (is_special or parsed.is_reserved)


Socket = tuple[Transport, Endpoint]
"""What a host sends and receives by: a port of one transport has nothing to do with another's."""


def render_endpoint(endpoint: Endpoint) -> str:
    """Renders "192.0.2.1:5060", or "[2001:db8::1]:5060" (RFC 3986 §3.2.2)."""
    address, port = endpoint
    return f"[{address}]:{port}" if is_ipv6(address) else f"{address}:{port}"


def parse_endpoint(text: str) -> Endpoint:
    """Parses what `render_endpoint` renders; raises ValueError on anything else."""
    host, separator, port = text.rpartition(":")
    if not separator or not (port.isascii() and port.isdecimal()) or int(port) > 65535:
        raise ValueError(f"{text!r} is not address:port")
    return endpoint_of(_canonical(host), int(port))


def parse_host(text: str) -> Endpoint:
    """Parses an address alone, which has port 0, or an endpoint; raises ValueError."""
    try:
        return endpoint_of(str(ipaddress.ip_address(text)), 0)
    except ValueError:
        return parse_endpoint(text)


@lru_cache(1024)
def _canonical(host: str) -> str:
    """Returns the one spelling of an address; a stored table names each many times in a row."""
    if host.startswith("[") and host.endswith("]"):
        return str(ipaddress.IPv6Address(host[1:-1]))
    return str(ipaddress.IPv4Address(host))
