"""PCP messages (RFC 6887) and the PORT_SET option (RFC 7753): bytes to values and back, both ways.

    0      version 2 | R, opcode | reserved            | reserved, result (in responses)
    4      lifetime, in seconds
    8      the client's address (in responses: epoch, then 96 bits reserved)
    24     what the opcode adds: nothing, MAP's 36 octets or PEER's 56; then options

Every address has 16 octets, one of IPv4 as ::ffff:192.0.2.1. A message is a multiple of 4 octets
and 1100 at the most. What a client may have is not decided here, only what it has written.
"""

from __future__ import annotations

import contextlib
import enum
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import NamedTuple

from nat_table.binding import Permit
from nat_table.endpoint import Endpoint, is_ipv6

VERSION = 2
SERVER_PORT, CLIENT_PORT = 5351, 5350
"""Where requests go, and where clients hear what they have not asked for."""

MAX_SIZE = 1100
NONCE_SIZE = 12
_HEADER = struct.Struct("!BBHL16s")
_RESPONSE_HEADER = struct.Struct("!BBBBLL12s")
_MAP = struct.Struct("!12sB3xHH16s")
_PEER = struct.Struct("!12sB3xHH16sH2x16s")
_OPTION = struct.Struct("!BxH")
_FILTER = struct.Struct("!xBH16s")
_PORT_SET = struct.Struct("!HHB")
_RESPONSE = 0x80
_MANDATORY = range(128)
_MAPPED = 96
"""The length of ::ffff:0:0/96, under which IPv4 addresses are written."""


class Opcode(enum.IntEnum):
    """What is asked for (§19.2)."""

    ANNOUNCE = 0
    MAP = 1
    PEER = 2


class Result(enum.IntEnum):
    """How it went (§7.4)."""

    SUCCESS = 0
    UNSUPP_VERSION = 1
    NOT_AUTHORIZED = 2
    MALFORMED_REQUEST = 3
    UNSUPP_OPCODE = 4
    UNSUPP_OPTION = 5
    MALFORMED_OPTION = 6
    NETWORK_FAILURE = 7
    NO_RESOURCES = 8
    UNSUPP_PROTOCOL = 9
    USER_EX_QUOTA = 10
    CANNOT_PROVIDE_EXTERNAL = 11
    ADDRESS_MISMATCH = 12
    EXCESSIVE_REMOTE_PEERS = 13


class _Option(enum.IntEnum):
    THIRD_PARTY = 1
    PREFER_FAILURE = 2
    FILTER = 3
    PORT_SET = 130


_OF_MAP = (_Option.PREFER_FAILURE, _Option.FILTER, _Option.PORT_SET)
_UNREADABLE = frozenset(
    (
        Result.UNSUPP_VERSION,
        Result.MALFORMED_REQUEST,
        Result.UNSUPP_OPCODE,
        Result.UNSUPP_OPTION,
        Result.MALFORMED_OPTION,
    )
)


class NotRequest(Exception):
    """It is no request, and nothing is answered to it (§8.2)."""


class NotResponse(Exception):
    """It is no response of this version."""


class BadRequest(Exception):
    """The request is answered with this result alone; it is so for `lifetime` seconds."""

    def __init__(self, result: Result, lifetime: float | None = None) -> None:
        super().__init__(result.name)
        self.result = result
        self.lifetime = lifetime


class PortSet(NamedTuple):
    """The option PORT_SET: so many ports, from this internal one on (RFC 7753 §4.1)."""

    size: int
    first: int
    keeps_parity: bool


@dataclass(frozen=True, slots=True)
class Options:
    """The options of a message; of `filters` the network "" takes away those before (§13.3)."""

    third_party: str | None = None
    prefers_failure: bool = False
    filters: tuple[Permit, ...] = ()
    port_set: PortSet | None = None


NO_OPTIONS = Options()


class Body(NamedTuple):
    """What MAP carries, and PEER, which has a `peer` (§11.1, §12.1).

    `external` is suggested in a request, where address and port may be 0, and assigned in a
    response; `protocol` is an IP protocol number, 0 for all.
    """

    nonce: bytes
    protocol: int
    internal_port: int
    external: Endpoint
    peer: Endpoint | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """A request (§7.1); `body` is None for ANNOUNCE alone."""

    opcode: Opcode
    client: str
    lifetime: int = 0
    body: Body | None = None
    options: Options = NO_OPTIONS


@dataclass(frozen=True, slots=True)
class Response:
    """A response (§7.2); with a result but SUCCESS, `body` is what had been asked for, or None."""

    opcode: Opcode
    result: Result
    lifetime: int
    epoch: int
    body: Body | None = None
    options: Options = NO_OPTIONS


def encode_request(request: Request) -> bytes:
    """Encodes a request."""
    head = _HEADER.pack(VERSION, request.opcode, 0, request.lifetime, _pack_address(request.client))
    return head + _encode_rest(request.body, request.options)


def encode_response(response: Response) -> bytes:
    """Encodes a response that the server made up itself: a success, or an announcement."""
    head = _RESPONSE_HEADER.pack(
        VERSION,
        _RESPONSE | response.opcode,
        0,
        response.result,
        response.lifetime,
        response.epoch,
        bytes(12),
    )
    return head + _encode_rest(response.body, response.options)


def encode_error(request: bytes, result: Result, lifetime: int, epoch: int) -> bytes:
    """Encodes the response that refuses a request: its own octets behind a new header (§8.2)."""
    copied = request[:MAX_SIZE].ljust(_HEADER.size, b"\0")
    copied += bytes(-len(copied) % 4)
    head = _RESPONSE_HEADER.pack(
        VERSION,
        _RESPONSE | copied[1],
        0,
        result,
        lifetime,
        epoch,
        copied[12:24] if result in _UNREADABLE else bytes(12),
    )
    return head + copied[_HEADER.size :]


def parse_request(data: bytes) -> Request:
    """Parses a request; raises NotRequest where it is to be ignored, BadRequest."""
    if len(data) < 2 or data[1] & _RESPONSE:
        raise NotRequest
    if data[0] != VERSION:
        raise BadRequest(Result.UNSUPP_VERSION)
    if not _HEADER.size <= len(data) <= MAX_SIZE or len(data) % 4:
        raise BadRequest(Result.MALFORMED_REQUEST)
    _, code, _, lifetime, client = _HEADER.unpack_from(data)
    try:
        opcode = Opcode(code)
    except ValueError:
        raise BadRequest(Result.UNSUPP_OPCODE) from None
    body, offset = _parse_body(data, opcode)
    return Request(
        opcode, _unpack_address(client), lifetime, body, _parse_options(data, offset, opcode)
    )


def parse_response(data: bytes) -> Response:
    """Parses a response; raises NotResponse. Options that cannot be read are left out."""
    is_long_enough = _RESPONSE_HEADER.size <= len(data) <= MAX_SIZE
    if not is_long_enough or data[0] != VERSION or not data[1] & _RESPONSE:
        raise NotResponse
    _, code, _, number, lifetime, epoch, _ = _RESPONSE_HEADER.unpack_from(data)
    try:
        opcode, result = Opcode(code & ~_RESPONSE), Result(number)
    except ValueError:
        raise NotResponse from None
    body, options = None, NO_OPTIONS
    with contextlib.suppress(BadRequest):
        body, offset = _parse_body(data, opcode)
        options = _parse_options(data, offset, opcode)
    if result is Result.SUCCESS and body is None and opcode is not Opcode.ANNOUNCE:
        raise NotResponse
    return Response(opcode, result, lifetime, epoch, body, options)


def _encode_rest(body: Body | None, options: Options) -> bytes:
    return b"".join((_encode_body(body), *_encode_options(options)))


def _encode_body(body: Body | None) -> bytes:
    if body is None:
        return b""
    nonce, protocol, internal_port, external, peer = body
    fields = (nonce, protocol, internal_port, external.port, _pack_address(external.address))
    if peer is None:
        return _MAP.pack(*fields)
    return _PEER.pack(*fields, peer.port, _pack_address(peer.address))


def _encode_options(options: Options) -> Iterator[bytes]:
    if options.third_party is not None:
        yield _encode_option(_Option.THIRD_PARTY, _pack_address(options.third_party))
    if options.prefers_failure:
        yield _encode_option(_Option.PREFER_FAILURE, b"")
    for network, port in options.filters:
        if network:
            parsed = ip_network(network)
            length = parsed.prefixlen + (_MAPPED if parsed.version == 4 else 0)
            packed = _pack_address(str(parsed.network_address))
        else:
            length, packed = 0, bytes(16)
        yield _encode_option(_Option.FILTER, _FILTER.pack(length, port, packed))
    if options.port_set is not None:
        yield _encode_option(_Option.PORT_SET, _PORT_SET.pack(*options.port_set))


def _encode_option(code: _Option, data: bytes) -> bytes:
    return _OPTION.pack(code, len(data)) + data + bytes(-len(data) % 4)


def _parse_body(data: bytes, opcode: Opcode) -> tuple[Body | None, int]:
    """Parses what the opcode adds to the header; returns it, and where the options begin."""
    start = _HEADER.size
    if opcode is Opcode.ANNOUNCE:
        return None, start
    form = _MAP if opcode is Opcode.MAP else _PEER
    if len(data) < start + form.size:
        raise BadRequest(Result.MALFORMED_REQUEST)
    nonce, protocol, internal_port, port, address, *peer = form.unpack_from(data, start)
    body = Body(
        nonce,
        protocol,
        internal_port,
        Endpoint(_unpack_address(address), port),
        Endpoint(_unpack_address(peer[1]), peer[0]) if peer else None,
    )
    return body, start + form.size


def _parse_options(data: bytes, offset: int, opcode: Opcode) -> Options:
    """Parses options; those that need not be known are passed over (§7.3)."""
    found: dict[_Option, bytes] = {}
    filters: list[Permit] = []
    while offset < len(data):
        if offset + _OPTION.size > len(data):
            raise BadRequest(Result.MALFORMED_OPTION)
        code, length = _OPTION.unpack_from(data, offset)
        start = offset + _OPTION.size
        offset = start + length + -length % 4
        if offset > len(data):
            raise BadRequest(Result.MALFORMED_OPTION)
        option = _known(code, opcode)
        if option is None:
            continue
        if length != _SIZES[option] or option in found:
            raise BadRequest(Result.MALFORMED_OPTION)
        content = data[start : start + length]
        if option is _Option.FILTER:
            filters.append(_parse_filter(content))
        else:
            found[option] = content
    third_party = found.get(_Option.THIRD_PARTY)
    port_set = found.get(_Option.PORT_SET)
    return Options(
        None if third_party is None else _unpack_address(third_party),
        _Option.PREFER_FAILURE in found,
        tuple(filters),
        None if port_set is None else _parse_port_set(port_set),
    )


def _known(code: int, opcode: Opcode) -> _Option | None:
    """Returns the option, if it is one of the opcode's; raises BadRequest if it has to be."""
    is_known = code in _SIZES and (opcode is Opcode.MAP or code not in _OF_MAP)
    if is_known and opcode is not Opcode.ANNOUNCE:
        return _Option(code)
    if code in _MANDATORY:
        raise BadRequest(Result.UNSUPP_OPTION)
    return None


def _parse_filter(data: bytes) -> Permit:
    length, port, packed = _FILTER.unpack(data)
    address = IPv6Address(packed)
    if not length:
        return Permit()
    mapped = address.ipv4_mapped
    if length > 128 or (mapped is not None and length < _MAPPED):
        raise BadRequest(Result.MALFORMED_OPTION)
    network = f"{address}/{length}" if mapped is None else f"{mapped}/{length - _MAPPED}"
    return Permit(str(ip_network(network, strict=False)), port)


def _parse_port_set(data: bytes) -> PortSet:
    size, first, flags = _PORT_SET.unpack(data)
    if not size:
        raise BadRequest(Result.MALFORMED_OPTION)
    return PortSet(size, first, bool(flags & 1))


_SIZES = {
    _Option.THIRD_PARTY: 16,
    _Option.PREFER_FAILURE: 0,
    _Option.FILTER: _FILTER.size,
    _Option.PORT_SET: _PORT_SET.size,
}


def _pack_address(address: str) -> bytes:
    if is_ipv6(address):
        return IPv6Address(address).packed
    return b"\0" * 10 + b"\xff\xff" + IPv4Address(address).packed


def _unpack_address(packed: bytes) -> str:
    address = IPv6Address(packed)
    return str(address.ipv4_mapped or address)
