"""NAT-PMP messages (RFC 6886): bytes to values and back, both ways.

0      version 0 | opcode, with 128 added in responses | reserved (in responses: result)
4      (in responses) epoch
then   of MAP: internal port, external port, lifetime; of ADDRESS, in responses: the address
"""

from __future__ import annotations

import enum
import struct
from ipaddress import IPv4Address
from typing import NamedTuple

VERSION = 0
_ASKED = struct.Struct("!BB")
_MAP = struct.Struct("!BBxxHHL")
_ANSWERED = struct.Struct("!BBHL")
_ADDRESS = struct.Struct("!4s")
_MAPPED = struct.Struct("!HHL")
_RESPONSE = 0x80


class Opcode(enum.IntEnum):
    """What is asked for (§3.2, §3.3)."""

    ADDRESS = 0
    MAP_UDP = 1
    MAP_TCP = 2


class Result(enum.IntEnum):
    """How it went (§3.5)."""

    SUCCESS = 0
    UNSUPPORTED_VERSION = 1
    NOT_AUTHORIZED = 2
    NETWORK_FAILURE = 3
    OUT_OF_RESOURCES = 4
    UNSUPPORTED_OPCODE = 5


class NotRequest(Exception):
    """It is no request, and nothing is answered to it."""


class NotResponse(Exception):
    """It is no response of this version."""


class BadRequest(Exception):
    """The request is answered with this result alone."""

    def __init__(self, result: Result) -> None:
        super().__init__(result.name)
        self.result = result


class Mapped(NamedTuple):
    """A mapping that is asked for, or granted; `lifetime` is in seconds."""

    internal_port: int
    external_port: int
    lifetime: int


class Request(NamedTuple):
    """A request; `mapped` is None for ADDRESS alone."""

    opcode: Opcode
    mapped: Mapped | None = None


class Response(NamedTuple):
    """A response; with a result but SUCCESS it need not have more than an epoch."""

    opcode: Opcode
    result: Result
    epoch: int
    address: str | None = None
    mapped: Mapped | None = None


def encode_request(request: Request) -> bytes:
    """Encodes a request."""
    if request.mapped is None:
        return _ASKED.pack(VERSION, request.opcode)
    return _MAP.pack(VERSION, request.opcode, *request.mapped)


def encode_response(response: Response) -> bytes:
    """Encodes a response."""
    head = _ANSWERED.pack(VERSION, _RESPONSE | response.opcode, response.result, response.epoch)
    if response.address is not None:
        return head + _ADDRESS.pack(IPv4Address(response.address).packed)
    return head if response.mapped is None else head + _MAPPED.pack(*response.mapped)


def encode_error(request: bytes, result: Result, epoch: int) -> bytes:
    """Encodes the response that refuses a request, whose opcode may be any (§3.5)."""
    return _ANSWERED.pack(VERSION, _RESPONSE | request[1], result, epoch)


def parse_request(data: bytes) -> Request:
    """Parses a request; raises NotRequest where it is to be ignored, BadRequest.

    What follows a request is ignored, so that later versions may add to it.
    """
    if len(data) < _ASKED.size or data[0] != VERSION or data[1] & _RESPONSE:
        raise NotRequest
    try:
        opcode = Opcode(data[1])
    except ValueError:
        raise BadRequest(Result.UNSUPPORTED_OPCODE) from None
    if opcode is Opcode.ADDRESS:
        return Request(opcode)
    if len(data) < _MAP.size:
        raise NotRequest
    return Request(opcode, Mapped(*_MAP.unpack_from(data)[2:]))


def parse_response(data: bytes) -> Response:
    """Parses a response; raises NotResponse."""
    if len(data) < _ANSWERED.size or data[0] != VERSION or not data[1] & _RESPONSE:
        raise NotResponse
    _, code, number, epoch = _ANSWERED.unpack_from(data)
    try:
        opcode, result = Opcode(code & ~_RESPONSE), Result(number)
    except ValueError:
        raise NotResponse from None
    if result is not Result.SUCCESS:
        return Response(opcode, result, epoch)
    form = _ADDRESS if opcode is Opcode.ADDRESS else _MAPPED
    if len(data) < _ANSWERED.size + form.size:
        raise NotResponse
    fields = form.unpack_from(data, _ANSWERED.size)
    if opcode is Opcode.ADDRESS:
        return Response(opcode, result, epoch, address=str(IPv4Address(fields[0])))
    return Response(opcode, result, epoch, mapped=Mapped(*fields))
