"""What a change means for the kernel: map and set elements, packed as nftables keeps them.

One binding is one element in `inbound`, one in `outbound`, its internal endpoint in `signalling`,
in `media` or in `requested`, its external one in `relayed` if it is for SIP over TCP, and its
external port in `bound` if others are masqueraded to the same address. Who may send to it is in
`admitted`, `limited` and `near`, as far as the policy of its kind asks, and in `unfiltered` and
`permitted` (`rules.permits`). All follow from the binding, what its pinholes name, and the
settings, so that the rules and the rewritten message cannot disagree.

Elements of IPv6 are in sets of their own, with "6" after the name. Where nothing is translated a
binding's two endpoints are one, and it has neither `inbound` nor `outbound`.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from nat_table.behavior import Filtering, Mode6
from nat_table.binding import Binding, Kind
from nat_table.changes import Admitted, Change, Closed, Excluded, Opened, Refreshed, Turned
from nat_table.endpoint import TCP, Endpoint, Transport, is_ipv6, is_private
from rules.settings import Settings

INBOUND = "inbound"
OUTBOUND = "outbound"
SIGNALLING = "signalling"
MEDIA = "media"
REQUESTED = "requested"
RELAYED = "relayed"
BOUND = "bound"
ADMITTED = "admitted"
LIMITED = "limited"
NEAR = "near"
UNFILTERED = "unfiltered"
PERMITTED = "permitted"
LATCHED = "latched"
STRAYS = "strays"
REFUSED = "refused"


def of_both(*names: str) -> tuple[str, ...]:
    """Returns the sets of these names, those of IPv4 and those of IPv6."""
    return (*names, *(f"{name}6" for name in names))


OF_BINDINGS = of_both(INBOUND, OUTBOUND, SIGNALLING, MEDIA, REQUESTED, RELAYED, BOUND)
OF_REMOTES = of_both(ADMITTED, LIMITED, NEAR, UNFILTERED, PERMITTED)
"""The maps and sets that the table owns; the packet path itself fills the others."""

INTERNAL = of_both(SIGNALLING, MEDIA, REQUESTED)
"""The sets whose keys are a protocol and an internal endpoint: each binding is in one of them."""

INTERVALS = of_both(PERMITTED)
"""The sets of intervals: a key is the first and the last of one, the one behind the other."""

_ENDS = of_both(INBOUND, OUTBOUND, SIGNALLING, MEDIA, REQUESTED)
_IDENTICAL = (f"{SIGNALLING}6", f"{MEDIA}6", f"{REQUESTED}6")
_INBOUND = of_both(INBOUND)
_SET_OF_KIND = {Kind.SIP: SIGNALLING, Kind.ANY: REQUESTED}
_KIND_OF_SET = {name: kind for kind, each in _SET_OF_KIND.items() for name in of_both(each)}

_SIP: Final = Kind.SIP
_ANY: Final = Kind.ANY
_LATCH: Final = Filtering.LATCH
_ADDRESS_DEPENDENT: Final = Filtering.ADDRESS_DEPENDENT

_PROTOCOL = struct.Struct("=B3x")
_PROTOCOLS: Final = {each: _PROTOCOL.pack(each.value) for each in Transport}
_PORT: Final = struct.Struct("!H2x")
_ENDPOINT = struct.Struct("!4sH2x")
_ENDPOINT6 = struct.Struct("!16sH2x")
_ENDPOINT_SIZE: Final = _ENDPOINT.size
_MAX_ADDRESSES: Final = 4096

_addresses: Final[dict[str, bytes]] = {}
_ports: Final[dict[int, bytes]] = {}
"""What was packed before: there are few addresses, and all ports take 6 MB."""

_NETWORK, _NETWORK6 = 3, 8
"""How many bytes of an address are the network that a latch is kept within."""


Part = tuple[str, bytes, bytes]
"""An element without names: set, key and data."""

Step = tuple[bool, str, bytes, bytes]
"""An operation without names: whether the element is added; set, key and data."""


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
    """Returns `steps` with names on them."""
    return [Operation(each[0], Element(*each[1:])) for each in steps(changes, settings)]


def steps(changes: Iterable[Change], settings: Settings) -> list[Step]:
    """Returns what the changes do to the kernel, in order; a `Refreshed` does nothing.

    The networks of a latch, and permits, are not here (`rules.audiences`).
    """
    made: list[Step] = []
    for change in changes:
        if isinstance(change, Refreshed):
            continue
        binding = change.binding
        if isinstance(change, Opened):
            for name, key, data in _parts(binding, settings):
                made.append((True, name, key, data))
            if filtering(binding, settings) is _LATCH:
                key = _internal_key(binding)
                latched = of_family(LATCHED, key)  # deleting what is not there would be refused
                made += ((True, latched, key, b""), (False, latched, key, b""))
        elif isinstance(change, Closed):
            for name, key, data in _parts(binding, settings):
                made.append((False, name, key, data))
        elif isinstance(change, (Admitted, Excluded)):
            if filtering(binding, settings) is _ADDRESS_DEPENDENT:
                key = admission_key(binding, settings)
                name, key = of_family(ADMITTED, key), key + pack_address(change.address)
                made.append((isinstance(change, Admitted), name, key, b""))
        elif isinstance(change, Turned):
            before, after = _parts(change.before, settings), _parts(binding, settings)
            made += [(False, *each) for each in before if each not in after]
            made += [(True, *each) for each in after if each not in before]
    return made


def filtering(binding: Binding, settings: Settings) -> Filtering:
    """Returns the policy of a binding's kind."""
    if binding.kind is _ANY:
        return _ADDRESS_DEPENDENT
    return settings.signalling_filter if binding.kind is _SIP else settings.media_filter


def is_relayed(binding: Binding, settings: Settings) -> bool:
    """Tells whether the relay serves this binding while it runs, and not the kernel's NAT."""
    if binding.kind is not _SIP or binding.transport is not TCP:
        return False
    return settings.is_relaying6 or not is_ipv6(binding.internal.address)


def elements(binding: Binding, settings: Settings) -> Iterator[Element]:
    """Yields the elements of a binding, whoever may send to it."""
    return (Element(*each) for each in _parts(binding, settings))


def _parts(binding: Binding, settings: Settings) -> list[Part]:
    """Returns the same without the names."""
    protocol = _PROTOCOLS[binding.transport]
    internal = pack_endpoint(binding.internal)
    external = pack_endpoint(binding.external)
    family, fence = "", settings.fence_address
    if len(internal) > _ENDPOINT_SIZE:
        family, fence = "6", settings.fence_address6
    inner, outer = protocol + internal, protocol + external
    parts: list[Part] = []
    if internal != external:
        parts.append((INBOUND + family, outer, internal))
        parts.append((OUTBOUND + family, inner, external))
    kind = binding.kind
    name = SIGNALLING if kind is _SIP else REQUESTED if kind is _ANY else MEDIA
    parts.append((name + family, inner, b""))
    if is_relayed(binding, settings):
        parts.append((RELAYED + family, external, b""))
    if binding.external[0] == fence:
        parts.append((BOUND + family, protocol + external[-4:], b""))
    return parts


def admitted(binding: Binding, address: str, settings: Settings) -> Element:
    """Returns the element that admits a remote address under address-dependent filtering."""
    key = admission_key(binding, settings)
    return Element(of_family(ADMITTED, key), key + pack_address(address))


def admission_key(binding: Binding, settings: Settings) -> bytes:
    """Returns what the keys begin with of elements that say who may send to a binding."""
    endpoint = binding.external if is_relayed(binding, settings) else binding.internal
    return _PROTOCOLS[binding.transport] + pack_endpoint(endpoint)


def latching(binding: Binding, addresses: Iterable[str]) -> set[Element]:
    """Returns the elements that keep a latch within the networks of public addresses.

    These are /24 in IPv4 and /64 in IPv6. A private address says nothing: that remote is behind a
    NAT, and sends from another address.
    """
    near = {_network(address) for address in addresses if not is_private(address)}
    if not near:
        return set()
    key = _internal_key(binding)
    name = of_family(NEAR, key)
    return {Element(of_family(LIMITED, key), key), *(Element(name, key + each) for each in near)}


def listed(settings: Settings) -> tuple[str, ...]:
    """Returns the sets from which all bindings can be read, and nothing that is not needed."""
    if settings.mode6 is Mode6.OFF:
        return INBOUND, SIGNALLING, REQUESTED
    if settings.mode6 is Mode6.PINHOLE:
        return INBOUND, SIGNALLING, REQUESTED, *_IDENTICAL
    return of_both(INBOUND, SIGNALLING, REQUESTED)


def bindings(standing: Iterable[Element], settings: Settings) -> list[Binding]:
    """Returns the bindings that elements of the `listed` sets stand for; others are passed over.

    The kernel does not keep the kind of media: over UDP an even external port is called RTP, an odd
    one RTCP. `created_at` is 0.
    """
    inbound: list[Element] = []
    kinds: dict[bytes, Kind] = {}
    names = listed(settings)
    for element in standing:
        if element.set_name not in names:
            continue
        if element.set_name in _INBOUND:
            inbound.append(element)
        elif kind := _KIND_OF_SET.get(element.set_name):
            kinds[element.key] = kind
        if settings.mode6 is Mode6.PINHOLE and element.set_name in _IDENTICAL:
            inbound.append(Element(INBOUND, element.key, element.key[4:]))
    return [_binding(each, kinds.get(each.key[:4] + each.data)) for each in inbound]


def whole(standing: Sequence[Element], settings: Settings) -> set[Element]:
    """Returns what should stand where these do: no halves, and no remotes without a mapping."""
    wanted = {
        each for binding in bindings(standing, settings) for each in elements(binding, settings)
    }
    ends = {each.key for each in wanted if each.set_name in _ENDS}
    remotes = (each for each in standing if each.set_name in OF_REMOTES)
    return wanted | {each for each in remotes if each.key[: _key_size(each)] in ends}


def of_family(name: str, packed: bytes) -> str:
    """Returns the set of this name for a packed endpoint, alone or behind its protocol."""
    return name if len(packed) <= _PROTOCOL.size + _ENDPOINT.size else f"{name}6"


def pack_endpoint(endpoint: Endpoint) -> bytes:
    """Packs an endpoint into address, port and padding: 8 bytes, or 20 for IPv6."""
    address, port = endpoint
    packed = _ports.get(port)
    if packed is None:
        packed = _ports[port] = _PORT.pack(port)
    return pack_address(address) + packed


def unpack_endpoint(packed: bytes) -> Endpoint:
    """Unpacks what `pack_endpoint` packs."""
    address, port = (_ENDPOINT if len(packed) == _ENDPOINT.size else _ENDPOINT6).unpack(packed)
    return Endpoint(unpack_address(address), port)


def pack_address(address: str) -> bytes:
    """Packs an address into 4 bytes, or 16 for IPv6."""
    packed = _addresses.get(address)
    if packed is None:
        if len(_addresses) >= _MAX_ADDRESSES:
            _addresses.clear()
        family = socket.AF_INET6 if is_ipv6(address) else socket.AF_INET
        packed = _addresses[address] = socket.inet_pton(family, address)
    return packed


def unpack_address(packed: bytes) -> str:
    """Unpacks what `pack_address` packs."""
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)


def _binding(inbound: Element, kind: Kind | None) -> Binding:
    """Returns the binding of an element of `inbound`; no kind is one of media."""
    external = unpack_endpoint(inbound.key[4:])
    transport = Transport(inbound.key[0])
    if kind is None and transport is Transport.TCP:
        kind = Kind.MEDIA
    elif kind is None:
        kind = Kind.RTCP if external.port % 2 else Kind.RTP
    return Binding(transport, unpack_endpoint(inbound.data), external, kind, created_at=0.0)


def _internal_key(binding: Binding) -> bytes:
    return _PROTOCOLS[binding.transport] + pack_endpoint(binding.internal)


def _key_size(element: Element) -> int:
    """Returns the size of what the key begins with: the protocol and the internal endpoint."""
    endpoint = _ENDPOINT6 if element.set_name.endswith("6") else _ENDPOINT
    return _PROTOCOL.size + endpoint.size


def _network(address: str) -> bytes:
    packed = pack_address(address)
    size = _NETWORK if len(packed) == 4 else _NETWORK6
    return packed[:size] + bytes(len(packed) - size)
