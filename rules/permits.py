"""The elements of permits: remotes that a client lets in, whatever the policy of its mapping is.

Who lets everybody in has one element in `unfiltered`, a plain set. Only a real filter has intervals
in `permitted`: a commit to that costs as much as all that is in it. The kernel refuses an interval
that overlaps another, and which of two depends on the order in which they come. So a permit that
another one covers has no element, and one for all ports of a network leaves out a port that is open
to a larger network.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import ip_network
from typing import NamedTuple

from nat_table.binding import ANYONE, Binding, Permit
from nat_table.endpoint import is_ipv6
from rules.elements import PERMITTED, UNFILTERED, Element, admission_key, of_family
from rules.settings import Settings


def permitting(binding: Binding, permits: Iterable[Permit], settings: Settings) -> set[Element]:
    """Returns the elements that let these remotes in; those of another family say nothing."""
    ranges = _ranges(binding, permits)
    if not ranges:
        return set()
    key = admission_key(binding, settings)
    if ranges >= _ranges(binding, [ANYONE]):
        return {Element(of_family(UNFILTERED, key), key)}
    name = of_family(PERMITTED, key)
    return {
        Element(name, key + each.address + each.port + key + each.last_address + each.last_port)
        for each in _disjoint(ranges)
    }


def has_lost(binding: Binding, before: Iterable[Permit], after: Iterable[Permit]) -> bool:
    """Tells whether somebody was let in before who is not afterwards."""
    left = _ranges(binding, after)
    return not all(any(each.covers(one) for each in left) for one in _ranges(binding, before))


class _Range(NamedTuple):
    """Addresses and ports from the first to the last, packed as the kernel compares them."""

    address: bytes
    last_address: bytes
    port: bytes
    last_port: bytes

    def covers(self, other: _Range) -> bool:
        """Tells whether all of another range is in this one."""
        return self._has_addresses(other) and self._has_ports(other)

    def is_around(self, other: _Range) -> bool:
        """Tells whether this is of more addresses and fewer ports than another range."""
        return self._has_addresses(other) and other._has_ports(self) and not other.covers(self)

    def _has_addresses(self, other: _Range) -> bool:
        return self.address <= other.address and other.last_address <= self.last_address

    def _has_ports(self, other: _Range) -> bool:
        return self.port <= other.port and other.last_port <= self.last_port


def _disjoint(ranges: set[_Range]) -> Iterator[_Range]:
    """Yields ranges of which no two overlap and that are all of these together.

    Networks are within each other or have nothing in common, and ports are one or all.
    """
    for each in ranges:
        others = ranges - {each}
        if any(other.covers(each) for other in others):
            continue
        around = (other for other in others if other.is_around(each))
        begin, last = _unpack_port(each.port), _unpack_port(each.last_port)
        for port in sorted({_unpack_port(other.port) for other in around}):
            if begin < port:
                yield each._replace(port=_pack_port(begin), last_port=_pack_port(port - 1))
            begin = port + 1
        if begin <= last:
            yield each._replace(port=_pack_port(begin))


def _ranges(binding: Binding, permits: Iterable[Permit]) -> set[_Range]:
    """Returns what the permits mean to a binding of its family."""
    of_ipv6 = is_ipv6(binding.internal.address)
    everywhere = "::/0" if of_ipv6 else "0.0.0.0/0"
    return {
        _Range(
            network.network_address.packed,
            network.broadcast_address.packed,
            _pack_port(port),
            _pack_port(port or 0xFFFF),
        )
        for named, port in permits
        if is_ipv6(named or everywhere) is of_ipv6
        for network in [ip_network(named or everywhere, strict=False)]
    }


def _pack_port(port: int) -> bytes:
    return port.to_bytes(2, "big") + b"\0\0"


def _unpack_port(packed: bytes) -> int:
    return int.from_bytes(packed[:2], "big")
