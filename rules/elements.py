"""What a change means for the kernel: map and set elements, packed as nftables keeps them.

One binding is one element in `inbound`, one in `outbound` and its external port in `bound`; a SIP
binding is marked by one more in `signalling`. Every element follows from the binding alone, so that
the rules and the rewritten message cannot disagree.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from nat_table.binding import Binding, Kind
from nat_table.changes import Change, Closed, Opened
from nat_table.endpoint import Endpoint, Transport

INBOUND = "inbound"
OUTBOUND = "outbound"
SIGNALLING = "signalling"
BOUND = "bound"
STRAYS = "strays"

STANDING = (INBOUND, OUTBOUND, BOUND, SIGNALLING)
"""The maps and sets that the table owns; the packet path itself fills `strays`."""

_PROTOCOL = struct.Struct("=B3x")
_ENDPOINT = struct.Struct("!4sH2x")


class Element(NamedTuple):
    """An element of a set, or of a map where it has `data`; fields are padded to 4 bytes."""

    set_name: str
    key: bytes
    data: bytes = b""

    def __str__(self) -> str:
        return f"{self.set_name} {{ {self.key.hex(' ', 4)} }}"


class Operation(NamedTuple):
    """One step of a commit: the element is added, or deleted."""

    is_added: bool
    element: Element

    def undone(self) -> Operation:
        """Returns the step that takes this one back."""
        return Operation(not self.is_added, self.element)


def operations(changes: Iterable[Change]) -> list[Operation]:
    """Returns what the changes do to the kernel, in order; a `Refreshed` does nothing."""
    return [
        Operation(isinstance(change, Opened), element)
        for change in changes
        if isinstance(change, Opened | Closed)
        for element in elements(change.binding)
    ]


def elements(binding: Binding) -> Iterator[Element]:
    """Yields the elements of a binding: three, and one more for SIP."""
    protocol = _PROTOCOL.pack(binding.transport.value)
    internal = pack_endpoint(binding.internal)
    external = pack_endpoint(binding.external)
    yield Element(INBOUND, protocol + external, internal)
    yield Element(OUTBOUND, protocol + internal, external)
    yield Element(BOUND, protocol + external[4:])
    if binding.kind is Kind.SIP and binding.transport is Transport.UDP:
        yield Element(SIGNALLING, internal)


def bindings(standing: Iterable[Element]) -> list[Binding]:
    """Returns the bindings that elements stand for; half a mapping is none.

    The kernel does not keep the kind of media: an even external port is called RTP, an odd one
    RTCP. `created_at` is 0.
    """
    inbound: dict[bytes, bytes] = {}
    outbound: dict[bytes, bytes] = {}
    signalling: set[bytes] = set()
    for set_name, key, data in standing:
        if set_name == INBOUND:
            inbound[key] = data
        elif set_name == OUTBOUND:
            outbound[key] = data
        elif set_name == SIGNALLING:
            signalling.add(key)
    return [
        _binding(key, internal, internal in signalling)
        for key, internal in inbound.items()
        if outbound.get(key[:4] + internal) == key[4:]
    ]


def pack_endpoint(endpoint: Endpoint) -> bytes:
    """Packs an IPv4 endpoint into 8 bytes: address, port, padding."""
    return _ENDPOINT.pack(socket.inet_aton(endpoint.address), endpoint.port)


def unpack_endpoint(packed: bytes) -> Endpoint:
    """Unpacks what `pack_endpoint` packs."""
    address, port = _ENDPOINT.unpack(packed)
    return Endpoint(socket.inet_ntoa(address), port)


def _binding(key: bytes, internal: bytes, is_signalling: bool) -> Binding:
    transport = Transport(key[0])
    external = unpack_endpoint(key[4:])
    if is_signalling and transport is Transport.UDP:
        kind = Kind.SIP
    else:
        kind = Kind.RTCP if external.port % 2 else Kind.RTP
    return Binding(transport, unpack_endpoint(internal), external, kind, created_at=0.0)
