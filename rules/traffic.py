"""What flows of mappings have carried, as conntrack counts it (nf_conntrack_acct).

The kernel is asked for flows with our mark alone, so those of others cost it a walk and us nothing.
Only a flow that a host has begun by a mapping of its own making (`requested`) has no mark.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from threading import Lock
from typing import NamedTuple

from nat_table.endpoint import Endpoint, Socket, Transport
from rules.conntrack import Conntrack, End, Side
from rules.elements import pack_endpoint, unpack_endpoint
from rules.netlink import parse_attributes

_COUNTERS_ORIGINAL, _COUNTERS_REPLY = 9, 10
_PACKETS, _BYTES = 1, 2

# Both counters behind each other, as kernels write them that need no padding: four heads, numbers.
_HEAD_ORIGINAL, _HEAD_REPLY = (
    struct.pack("=HHHH", 28, kind | 0x8000, 12, _PACKETS)
    for kind in (_COUNTERS_ORIGINAL, _COUNTERS_REPLY)
)
_COUNTERS = struct.Struct("!8xQ4xQ8sQ4xQ")


class Traffic(NamedTuple):
    """What an internal socket has sent and been sent: packets, and bytes of IP."""

    sent: int
    sent_bytes: int
    received: int
    received_bytes: int


class TrafficMeter:
    """Reads the counters of the flows that have a mark; may be asked from any thread."""

    def __init__(self, family: int, mark: int) -> None:
        self._conntrack = Conntrack(family)
        self._mark = mark
        self._lock = Lock()

    def close(self) -> None:
        """Closes the socket."""
        self._conntrack.close()

    def read(self) -> dict[Socket, Traffic]:
        """Returns what the live flows of each socket have carried; raises KernelRefused.

        Of IPv6 the remote's sockets are among them: not every mode translates.
        """
        with self._lock:
            flows = {  # a dump may name one twice
                flow.original_tuple: (flow, counts)
                for flow, rest in self._conntrack.marked(self._mark)
                if (counts := _counts(rest))
            }
        found: dict[tuple[int, bytes], Traffic] = {}
        for flow, (there, there_bytes, back, back_bytes) in flows.values():
            for endpoint in flow.internal():
                place = flow.protocol, endpoint
                sent, sent_bytes, received, received_bytes = found.get(place, _NONE)
                if endpoint == flow.original_source:
                    sent, sent_bytes = sent + there, sent_bytes + there_bytes
                    received, received_bytes = received + back, received_bytes + back_bytes
                else:
                    sent, sent_bytes = sent + back, sent_bytes + back_bytes
                    received, received_bytes = received + there, received_bytes + there_bytes
                found[place] = Traffic(sent, sent_bytes, received, received_bytes)
        return {
            (Transport(protocol), unpack_endpoint(endpoint)): traffic
            for (protocol, endpoint), traffic in found.items()
        }

    def is_sending(self, internal: Endpoint, remote: Endpoint) -> bool:
        """Tells whether a host sends UDP to a remote from another port; raises KernelRefused.

        Such a flow has no mapping and no mark.
        """
        known = pack_endpoint(internal)
        with self._lock:
            flows = self._conntrack.find(End(Side.ORIGINAL_DESTINATION, Transport.UDP, remote))
        sources = [flow.original_source for flow in flows]
        return any(each != known and each[:-4] == known[:-4] for each in sources)


_NONE = Traffic(0, 0, 0, 0)


def _counts(attributes: bytes) -> tuple[int, ...]:
    """Returns packets and bytes there, packets and bytes back; nothing where none are counted."""
    start = attributes.find(_HEAD_ORIGINAL)
    if 0 <= start <= len(attributes) - _COUNTERS.size:
        there, there_bytes, head, back, back_bytes = _COUNTERS.unpack_from(attributes, start)
        if head == _HEAD_REPLY:
            return there, there_bytes, back, back_bytes
    found = dict(parse_attributes(attributes))
    if not {_COUNTERS_ORIGINAL, _COUNTERS_REPLY} <= found.keys():
        return ()
    return (*_pair(found[_COUNTERS_ORIGINAL]), *_pair(found[_COUNTERS_REPLY]))


def _pair(counters: bytes) -> Iterator[int]:
    found = dict(parse_attributes(counters))
    for kind in (_PACKETS, _BYTES):
        yield int.from_bytes(found[kind], "big")
