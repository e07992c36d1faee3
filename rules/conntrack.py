"""Cutting conntrack entries, so that a flow meets the maps anew.

NAT is decided by a flow's first packet; what stands in conntrack outlives a change of the maps. A
flow concerns a mapping if its internal endpoint sends (original source) or answers (reply source),
or its external endpoint is called (original destination) or is answered to (reply destination).

Finding entries by one endpoint means a walk through the whole conntrack table, 0.35 us an entry, in
the kernel where it can delete by filter (6.12); older ones are asked for a filtered dump, then for
exact deletes. Many endpoints at once are cheaper by one dump for all of them.

The filter must not name an IPv6 address: the kernel has that comparison the wrong way round (seen
with 6.18) and would cut everybody else's flow. Ports are compared right.
"""

from __future__ import annotations

import enum
import errno
import socket
import struct
from collections.abc import Container, Iterable, Iterator, Sequence
from typing import NamedTuple

from nat_table.endpoint import Endpoint, Transport, is_ipv6
from rules.elements import pack_endpoint
from rules.encoding import attribute, nested
from rules.netlink import KernelRefused, Netlink

_GET, _DELETE = 1 << 8 | 1, 1 << 8 | 2
_TUPLE_ORIGINAL, _TUPLE_REPLY, _MARK, _MARK_MASK, _FILTER = 1, 2, 8, 21, 25
_HEADER = struct.Struct("=BBH")  # family, version, resource

# A tuple as the kernel has written it ever since: addresses, protocol, ports (ICMP's is longer).
_TUPLE = struct.Struct("=HH 8x4s 4x4s 4x 4xB3x 4x2s2x 4x2s2x")
_TUPLE6 = struct.Struct("=HH 8x16s 4x16s 4x 4xB3x 4x2s2x 4x2s2x")
_IPV4_SIZE = 8
_CALLED, _CALLED_PORT = slice(24, 28), slice(52, 54)
_ANSWERED, _ANSWERED_PORT = slice(76, 80), slice(104, 106)
"""Where the destination of each tuple stands in an entry of IPv4."""

_MAX_WALKS = 16


class Side(enum.Enum):
    """Where in a conntrack entry an endpoint stands; the value is its index in `Flow`."""

    ORIGINAL_SOURCE = 1
    ORIGINAL_DESTINATION = 2
    REPLY_SOURCE = 3
    REPLY_DESTINATION = 4


class End(NamedTuple):
    """One endpoint on one side: what a cut looks for."""

    side: Side
    transport: Transport
    endpoint: Endpoint


class Flow(NamedTuple):
    """A conntrack entry; endpoints are packed as in `rules.elements`."""

    protocol: int
    original_source: bytes
    original_destination: bytes
    reply_source: bytes
    reply_destination: bytes
    original_tuple: bytes

    @property
    def family(self) -> int:
        """Returns the address family."""
        return socket.AF_INET if len(self.original_source) == _IPV4_SIZE else socket.AF_INET6

    def internal(self) -> Iterator[bytes]:
        """Yields the endpoints that another stands for, which are internal; any of IPv6 may be."""
        may_be_both = self.family == socket.AF_INET6
        if may_be_both or self.reply_destination != self.original_source:
            yield self.original_source
        if may_be_both or self.reply_source != self.original_destination:
            yield self.reply_source


class Conntrack:
    """Reads and cuts the conntrack entries of one network namespace.

    They are those of one address family, or of both (AF_UNSPEC).
    """

    def __init__(self, family: int = socket.AF_INET) -> None:
        self._family = family
        self._netlink = Netlink()
        self._has_filtered_delete = True

    def close(self) -> None:
        """Closes the socket."""
        self._netlink.close()

    def cut(self, ends: Sequence[End]) -> None:
        """Deletes all entries in which one of the endpoints stands; raises KernelRefused."""
        if len(ends) > _MAX_WALKS:
            self._cut_from(self.flows(), ends)
            return
        left = list(ends)
        if self._has_filtered_delete and self._cut_by_filter(filter(_is_ipv4, ends)):
            left = [end for end in ends if not _is_ipv4(end)]
        for end in left:
            self._cut_from(self._dump(_filtered(end)), [end])

    def flows(self) -> list[Flow]:
        """Returns the UDP and TCP entries."""
        return self._dump(_HEADER.pack(self._family, 0, 0))

    def find(self, end: End) -> list[Flow]:
        """Returns the entries in which the endpoint stands on that side."""
        packed = pack_endpoint(end.endpoint)
        return [
            flow
            for flow in self._dump(_filtered(end))
            if flow[end.side.value] == packed and flow.protocol == end.transport.value
        ]

    def marked(self, mark: int) -> Iterator[tuple[Flow, bytes]]:
        """Yields the UDP and TCP entries that have this mark bit, and what else is told of each.

        No other request may be sent before the last one is taken.
        """
        for message in self._netlink.dump(_GET, self._marked(mark)):
            if flow := _parse_flow(message):
                yield flow, message[_HEADER.size + 2 * len(flow.original_tuple) :]

    def sweep(self, mark: int, endpoints: Container[bytes]) -> None:
        """Deletes the UDP flows of IPv4 with this mark bit that go to, or answer from, an endpoint.

        The endpoints are external ones, packed without padding. Few of very many flows are theirs,
        so the others are not parsed.
        """
        request = self._marked(mark)
        found = []
        for message in self._netlink.dump(_GET, request):
            called = message[_CALLED] + message[_CALLED_PORT]
            answered = message[_ANSWERED] + message[_ANSWERED_PORT]
            if (called in endpoints or answered in endpoints) and (flow := _parse_flow(message)):
                found.append(flow)
        self.delete(each for each in found if each.protocol == Transport.UDP.value)

    def delete(self, flows: Iterable[Flow]) -> None:
        """Deletes exactly these entries; those gone meanwhile do no harm."""
        self._send_deletes(
            [_HEADER.pack(flow.family, 0, 0) + flow.original_tuple for flow in flows]
        )

    def _marked(self, mark: int) -> bytes:
        bit = struct.pack("!I", mark)
        head = _HEADER.pack(self._family, 0, 0)
        return head + attribute(_MARK, bit) + attribute(_MARK_MASK, bit)

    def _dump(self, request: bytes) -> list[Flow]:
        """Returns what a request asks for, or more: kernels before 5.8 ignore its filter."""
        messages = self._netlink.dump(_GET, request)
        return [flow for flow in map(_parse_flow, messages) if flow]

    def _cut_from(self, flows: Iterable[Flow], ends: Iterable[End]) -> None:
        wanted = {
            (end.side.value, end.transport.value, pack_endpoint(end.endpoint)) for end in ends
        }
        self.delete(
            flow
            for flow in flows
            if any((side, flow.protocol, flow[side]) in wanted for side in range(1, 5))
        )

    def _cut_by_filter(self, ends: Iterable[End]) -> bool:
        try:
            self._send_deletes([_filtered(end) for end in ends])
        except KernelRefused as refusal:
            if refusal.number not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise
            self._has_filtered_delete = False
        return self._has_filtered_delete

    def _send_deletes(self, bodies: Sequence[bytes]) -> None:
        for start in range(0, len(bodies), 256):
            requests = [(_DELETE, body) for body in bodies[start : start + 256]]
            for number in self._netlink.ask(requests):
                if number not in (0, errno.ENOENT):
                    raise KernelRefused(number, "conntrack delete")


def _is_ipv4(end: End) -> bool:
    return not is_ipv6(end.endpoint.address)


def _filtered(end: End) -> bytes:
    """Encodes the family, the tuple that holds the endpoint, and which of its fields count.

    That is CTA_FILTER's part. Of IPv6 endpoints only protocol and port count.
    """
    is_source = end.side in (Side.ORIGINAL_SOURCE, Side.REPLY_SOURCE)
    is_original = end.side in (Side.ORIGINAL_SOURCE, Side.ORIGINAL_DESTINATION)
    packed = pack_endpoint(end.endpoint)
    family, fields, address = socket.AF_INET6, 0b011000 if is_source else 0b101000, b""
    if _is_ipv4(end):
        family, fields = socket.AF_INET, fields | (1 if is_source else 2)
        address = nested(1, attribute(1 if is_source else 2, packed[:4]))
    ports = nested(
        2,
        attribute(1, bytes([end.transport.value])),
        attribute(2 if is_source else 3, packed[-4:-2]),
    )
    return b"".join(
        (
            _HEADER.pack(family, 0, 0),
            nested(_TUPLE_ORIGINAL if is_original else _TUPLE_REPLY, address, ports),
            nested(
                _FILTER,
                attribute(1, struct.pack("=I", fields if is_original else 0)),
                attribute(2, struct.pack("=I", 0 if is_original else fields)),
            ),
        )
    )


def _parse_flow(message: bytes) -> Flow | None:
    start = _HEADER.size
    layout = _TUPLE if message[0] == socket.AF_INET else _TUPLE6
    if len(message) < start + 2 * layout.size:
        return None
    size, kind, source, target, protocol, sport, dport = layout.unpack_from(message, start)
    if (size, kind & 0x3FFF) != (layout.size, _TUPLE_ORIGINAL):
        return None
    if protocol not in (Transport.UDP.value, Transport.TCP.value):
        return None
    reply = layout.unpack_from(message, start + size)
    return Flow(
        protocol,
        source + sport + b"\0\0",
        target + dport + b"\0\0",
        reply[2] + reply[5] + b"\0\0",
        reply[3] + reply[6] + b"\0\0",
        message[start : start + size],
    )
