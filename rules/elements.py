"""What a change means for the kernel: map and set elements, packed as nftables keeps them.

One binding is one element in `inbound`, one in `outbound`, its internal endpoint in `signalling` or
in `media`, and its external port in `bound` if others are masqueraded to the same address. Who may
send to it is in `admitted`, `limited` and `near`, as far as the policy of its kind asks. All follow
from the binding, the remote addresses it admits, and the settings, so that the rules and the
rewritten message cannot disagree.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network
from typing import NamedTuple

from nat_table.behavior import Filtering
from nat_table.binding import Binding, Kind
from nat_table.changes import Admitted, Change, Closed, Excluded, Opened
from nat_table.endpoint import Endpoint, Transport
from rules.settings import Settings

INBOUND = "inbound"
OUTBOUND = "outbound"
SIGNALLING = "signalling"
MEDIA = "media"
BOUND = "bound"
ADMITTED = "admitted"
LIMITED = "limited"
NEAR = "near"
LATCHED = "latched"
STRAYS = "strays"
REFUSED = "refused"

OF_BINDINGS = (INBOUND, OUTBOUND, SIGNALLING, MEDIA, BOUND)
OF_REMOTES = (ADMITTED, LIMITED, NEAR)
"""The maps and sets that the table owns; the packet path itself fills the others."""

_PRIVATE = tuple(
    map(IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"))
)

_INTERNAL_KEY = 12
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


def operations(changes: Iterable[Change], settings: Settings) -> list[Operation]:
    """Returns what the changes do to the kernel, in order; a `Refreshed` does nothing.

    The networks of a latch are not here (`rules.latches`).
    """
    steps: list[Operation] = []
    for change in changes:
        if isinstance(change, Opened | Closed):
            is_added = isinstance(change, Opened)
            steps += [Operation(is_added, each) for each in elements(change.binding, settings)]
            if is_added and filtering(change.binding, settings) is Filtering.LATCH:
                steps += _unlatched(change.binding)
        elif isinstance(change, Admitted | Excluded):
            is_added = isinstance(change, Admitted)
            if filtering(change.binding, settings) is Filtering.ADDRESS_DEPENDENT:
                element = admitted(change.binding, change.address)
                steps.append(Operation(is_added, element))
    return steps


def filtering(binding: Binding, settings: Settings) -> Filtering:
    """Returns the policy of a binding's kind."""
    if binding.kind is Kind.SIP:
        return settings.signalling_filter
    return settings.media_filter


def elements(binding: Binding, settings: Settings) -> Iterator[Element]:
    """Yields the elements of a binding, whoever may send to it."""
    protocol = _PROTOCOL.pack(binding.transport.value)
    internal = pack_endpoint(binding.internal)
    external = pack_endpoint(binding.external)
    yield Element(INBOUND, protocol + external, internal)
    yield Element(OUTBOUND, protocol + internal, external)
    yield Element(SIGNALLING if binding.kind is Kind.SIP else MEDIA, protocol + internal)
    if binding.external.address == settings.external_addresses[0]:
        yield Element(BOUND, protocol + external[4:])


def admitted(binding: Binding, address: str) -> Element:
    """Returns the element that admits a remote address under address-dependent filtering."""
    return Element(ADMITTED, _internal_key(binding) + socket.inet_aton(address))


def latching(binding: Binding, addresses: Iterable[str]) -> set[Element]:
    """Returns the elements that keep a latch within the /24 networks of public addresses.

    A private one says nothing: that remote is behind a NAT, and sends from another address.
    """
    near = {socket.inet_aton(address)[:3] for address in addresses if _is_public(address)}
    if not near:
        return set()
    key = _internal_key(binding)
    return {Element(LIMITED, key), *(Element(NEAR, key + network + b"\0") for network in near)}


def all_elements(
    binding: Binding, addresses: Iterable[str], settings: Settings
) -> Iterator[Element]:
    """Yields all that stands for a binding that admits these remote addresses."""
    yield from elements(binding, settings)
    policy = filtering(binding, settings)
    if policy is Filtering.ADDRESS_DEPENDENT:
        yield from (admitted(binding, address) for address in addresses)
    elif policy is Filtering.LATCH:
        yield from latching(binding, addresses)


def bindings(standing: Iterable[Element]) -> list[Binding]:
    """Returns the bindings that elements of `inbound` stand for, with those of `signalling`.

    The kernel does not keep the kind of media: an even external port is called RTP, an odd one
    RTCP. `created_at` is 0.
    """
    inbound: list[Element] = []
    signalling: set[bytes] = set()
    for element in standing:
        if element.set_name == INBOUND:
            inbound.append(element)
        elif element.set_name == SIGNALLING:
            signalling.add(element.key)
    return [binding(each, is_signalling=each.key[:4] + each.data in signalling) for each in inbound]


def binding(inbound: Element, *, is_signalling: bool = False) -> Binding:
    """Returns the binding of an element of `inbound`."""
    external = unpack_endpoint(inbound.key[4:])
    kind = Kind.SIP if is_signalling else Kind.RTCP if external.port % 2 else Kind.RTP
    transport = Transport(inbound.key[0])
    return Binding(transport, unpack_endpoint(inbound.data), external, kind, created_at=0.0)


def whole(standing: Sequence[Element], settings: Settings) -> set[Element]:
    """Returns what should stand where these do: no halves, and no remotes without a mapping."""
    wanted = {each for binding in bindings(standing) for each in elements(binding, settings)}
    internal = {each.key for each in wanted if each.set_name == OUTBOUND}
    remotes = (each for each in standing if each.set_name in OF_REMOTES)
    return wanted | {each for each in remotes if each.key[:_INTERNAL_KEY] in internal}


def pack_endpoint(endpoint: Endpoint) -> bytes:
    """Packs an IPv4 endpoint into 8 bytes: address, port, padding."""
    return _ENDPOINT.pack(socket.inet_aton(endpoint.address), endpoint.port)


def unpack_endpoint(packed: bytes) -> Endpoint:
    """Unpacks what `pack_endpoint` packs."""
    address, port = _ENDPOINT.unpack(packed)
    return Endpoint(socket.inet_ntoa(address), port)


def unpack_address(packed: bytes) -> str:
    """Unpacks 4 bytes."""
    return socket.inet_ntoa(packed)


def _unlatched(binding: Binding) -> list[Operation]:
    """Forgets the remote of an earlier call; deleting what is not there would be refused."""
    latched = Element(LATCHED, _internal_key(binding))
    return [Operation(True, latched), Operation(False, latched)]


def _internal_key(binding: Binding) -> bytes:
    return _PROTOCOL.pack(binding.transport.value) + pack_endpoint(binding.internal)


@lru_cache(1024)
def _is_public(address: str) -> bool:
    parsed = IPv4Address(address)
    return not any(parsed in network for network in _PRIVATE)
