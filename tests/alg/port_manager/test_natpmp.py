"""NAT-PMP messages against octets written by hand (RFC 6886 §3)."""

from __future__ import annotations

import pytest

from alg.port_manager import natpmp
from alg.port_manager.natpmp import (
    BadRequest,
    Mapped,
    NotRequest,
    NotResponse,
    Opcode,
    Request,
    Response,
    Result,
)

ASKS_ADDRESS = bytes.fromhex("00 00")
ASKS_MAP = bytes.fromhex("00 01 0000 13c4 4000 00001c20")


@pytest.mark.parametrize(
    ("data", "asked"),
    [
        (ASKS_ADDRESS, Request(Opcode.ADDRESS)),
        (ASKS_MAP, Request(Opcode.MAP_UDP, Mapped(5060, 16384, 7200))),
        (b"\0\2" + ASKS_MAP[2:], Request(Opcode.MAP_TCP, Mapped(5060, 16384, 7200))),
    ],
)
def test_requests_both_ways(data: bytes, asked: Request) -> None:
    assert natpmp.parse_request(data) == asked
    assert natpmp.parse_request(data + b"more") == asked
    assert natpmp.encode_request(asked) == data


@pytest.mark.parametrize(
    ("data", "response"),
    [
        (
            bytes.fromhex("00 80 0000 0000002a cb007101"),
            Response(Opcode.ADDRESS, Result.SUCCESS, 42, "203.0.113.1"),
        ),
        (
            bytes.fromhex("00 82 0000 0000002a 13c4 4000 00001c20"),
            Response(Opcode.MAP_TCP, Result.SUCCESS, 42, mapped=Mapped(5060, 16384, 7200)),
        ),
        (
            bytes.fromhex("00 81 0004 0000002a"),
            Response(Opcode.MAP_UDP, Result.OUT_OF_RESOURCES, 42),
        ),
    ],
)
def test_responses_both_ways(data: bytes, response: Response) -> None:
    assert natpmp.parse_response(data) == response
    assert natpmp.encode_response(response) == data


@pytest.mark.parametrize(
    "data", [b"", b"\0", b"\1\1", b"\0\x80", b"\0\x81" + bytes(10), ASKS_MAP[:-1]]
)
def test_what_is_no_request_is_ignored(data: bytes) -> None:
    with pytest.raises(NotRequest):
        natpmp.parse_request(data)


def test_an_opcode_that_nobody_knows_has_its_result() -> None:
    data = b"\0\3" + bytes(10)
    with pytest.raises(BadRequest) as refused:
        natpmp.parse_request(data)
    assert refused.value.result is Result.UNSUPPORTED_OPCODE
    error = natpmp.encode_error(data, refused.value.result, 42)
    assert error == bytes.fromhex("00 83 0005 0000002a")


@pytest.mark.parametrize(
    "data", [b"", ASKS_MAP, b"\2\x80" + bytes(10), b"\0\x84" + bytes(10), b"\0\x81" + bytes(13)]
)
def test_what_is_no_response(data: bytes) -> None:
    with pytest.raises(NotResponse):
        natpmp.parse_response(data)
