"""PCP messages against octets written by hand, and back from whatever was encoded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alg.port_manager import pcp
from alg.port_manager.pcp import (
    BadRequest,
    Body,
    NotRequest,
    NotResponse,
    Opcode,
    Options,
    PortSet,
    Request,
    Response,
    Result,
)
from nat_table.binding import Permit
from nat_table.endpoint import Endpoint

NONCE = bytes(range(1, 13))
PHONE = "10.0.0.20"
HEADER = bytes.fromhex("02 01 0000 00000e10 00000000000000000000ffff0a000014")
MAP = bytes.fromhex("0102030405060708090a0b0c 11 000000 13c4 13c4 00000000000000000000ffff00000000")
BODY = Body(NONCE, 17, 5060, Endpoint("0.0.0.0", 5060))
EVERY_OPTION = bytes.fromhex(
    "01 00 0010 00000000000000000000ffff0a000015"  # THIRD_PARTY
    "02 00 0000"  # PREFER_FAILURE
    "03 00 0014 00 00 0000 00000000000000000000000000000000"  # FILTER: away with the others
    "03 00 0014 00 78 1388 00000000000000000000ffffcb007100"  # FILTER: 203.0.113.0/24:5000
    "82 00 0005 0004 13c4 01 000000"  # PORT_SET
)
OPTIONS = Options(
    "10.0.0.21", True, (Permit(), Permit("203.0.113.0/24", 5000)), PortSet(4, 5060, True)
)


def test_a_map_request_with_every_option() -> None:
    data = HEADER + MAP + EVERY_OPTION
    request = Request(Opcode.MAP, PHONE, 3600, BODY, OPTIONS)
    assert pcp.parse_request(data) == request
    assert pcp.encode_request(request) == data


def test_a_peer_request_over_ipv6() -> None:
    data = bytes.fromhex(
        "02 02 0000 00000078 20010db8000100000000000000000020"
        "0102030405060708090a0b0c 06 000000 0fa0 0000 00000000000000000000000000000000"
        "13c4 0000 20010db8000200000000000000000010"
    )
    body = Body(NONCE, 6, 4000, Endpoint("::", 0), Endpoint("2001:db8:2::10", 5060))
    request = Request(Opcode.PEER, "2001:db8:1::20", 120, body)
    assert pcp.parse_request(data) == request
    assert pcp.encode_request(request) == data


def test_a_map_response() -> None:
    data = bytes.fromhex("02 81 00 00 00000078 0000002a 000000000000000000000000") + MAP[:20]
    data += bytes.fromhex("00000000000000000000ffffcb007101")
    body = BODY._replace(external=Endpoint("203.0.113.1", 5060))
    response = Response(Opcode.MAP, Result.SUCCESS, 120, 42, body)
    assert pcp.encode_response(response) == data
    assert pcp.parse_response(data) == response


def test_an_announcement() -> None:
    data = bytes.fromhex("02 80 00 00 00000000 00000007 000000000000000000000000")
    response = Response(Opcode.ANNOUNCE, Result.SUCCESS, 0, 7)
    assert pcp.encode_response(response) == data
    assert pcp.parse_response(data) == response


def test_an_error_is_the_request_behind_another_header() -> None:
    data = HEADER + MAP
    refused = pcp.encode_error(data, Result.NO_RESOURCES, 30, 9)
    assert refused == bytes.fromhex("02 81 00 08 0000001e 00000009") + bytes(12) + MAP
    assert pcp.parse_response(refused) == Response(Opcode.MAP, Result.NO_RESOURCES, 30, 9, BODY)


def test_an_error_of_an_unreadable_request_has_the_end_of_the_clients_address() -> None:
    for cut in (2, 23, 25, 61):
        refused = pcp.encode_error((HEADER + MAP + bytes(9))[:cut], Result.MALFORMED_REQUEST, 1, 9)
        assert len(refused) == max(24, cut + -cut % 4)
        assert refused[12:24] == (HEADER[:cut].ljust(24, b"\0"))[12:24]
        assert pcp.parse_response(refused).result is Result.MALFORMED_REQUEST
    assert len(pcp.encode_error(HEADER + bytes(2000), Result.MALFORMED_REQUEST, 1, 9)) == 1100


@pytest.mark.parametrize("data", [b"", b"\2", HEADER[:1] + b"\x81" + HEADER[2:] + MAP])
def test_what_is_no_request_is_ignored(data: bytes) -> None:
    with pytest.raises(NotRequest):
        pcp.parse_request(data)


@pytest.mark.parametrize(
    ("data", "result"),
    [
        (b"\1" + HEADER[1:] + MAP, Result.UNSUPP_VERSION),
        (b"\xff\1", Result.UNSUPP_VERSION),
        (HEADER[:23], Result.MALFORMED_REQUEST),
        (HEADER + MAP + b"\0\0", Result.MALFORMED_REQUEST),
        (HEADER + MAP[:-4], Result.MALFORMED_REQUEST),
        (HEADER + MAP + b"\xff\0\4\x34" + bytes(1076), Result.MALFORMED_REQUEST),
        (HEADER[:1] + b"\2" + HEADER[2:] + MAP, Result.MALFORMED_REQUEST),
        (HEADER[:1] + b"\3" + HEADER[2:], Result.UNSUPP_OPCODE),
        (HEADER + MAP + b"\x7f\0\0\0", Result.UNSUPP_OPTION),
        (HEADER + MAP + b"\0\0\0\0", Result.UNSUPP_OPTION),
        (HEADER[:1] + b"\0" + HEADER[2:] + b"\2\0\0\0", Result.UNSUPP_OPTION),
        (HEADER[:1] + b"\2" + HEADER[2:] + MAP + bytes(20) + b"\2\0\0\0", Result.UNSUPP_OPTION),
        (HEADER + MAP + b"\2\0\0\4" + bytes(4), Result.MALFORMED_OPTION),
        (HEADER + MAP + b"\2\0\0\0" * 2, Result.MALFORMED_OPTION),
        (HEADER + MAP + EVERY_OPTION[:20] * 2, Result.MALFORMED_OPTION),
        (HEADER + MAP + EVERY_OPTION[:16], Result.MALFORMED_OPTION),
        (HEADER + MAP + b"\x82\0\0\5" + bytes(8), Result.MALFORMED_OPTION),
        (HEADER + MAP + EVERY_OPTION[-12:] * 2, Result.MALFORMED_OPTION),
        (HEADER + MAP + bytes.fromhex("03000014 00 81 0000") + bytes(16), Result.MALFORMED_OPTION),
        (
            HEADER + MAP + bytes.fromhex("03000014 00 18 0000 00000000000000000000ffffcb007100"),
            Result.MALFORMED_OPTION,
        ),
    ],
)
def test_a_bad_request_has_its_result(data: bytes, result: Result) -> None:
    with pytest.raises(BadRequest) as refused:
        pcp.parse_request(data)
    assert refused.value.result is result


def test_an_option_that_need_not_be_known_is_passed_over() -> None:
    data = HEADER + MAP + b"\x80\0\0\3abc\0" + b"\2\0\0\0"
    assert pcp.parse_request(data).options == Options(prefers_failure=True)


@pytest.mark.parametrize("data", [b"", HEADER + MAP, b"\0\x81" + bytes(22), b"\2\x81" + bytes(22)])
def test_what_is_no_response(data: bytes) -> None:
    with pytest.raises(NotResponse):
        pcp.parse_response(data)


ADDRESSES = st.one_of(st.ip_addresses(v=4), st.just("2001:db8::1"), st.just("::")).map(str)
ENDPOINTS = st.builds(Endpoint, ADDRESSES, st.integers(0, 65535))
PERMITS = st.one_of(
    st.just(Permit()),
    st.builds(
        Permit,
        st.sampled_from(("203.0.113.0/24", "0.0.0.0/0", "192.0.2.1/32", "2001:db8::/32")),
        st.integers(0, 65535),
    ),
)
OF_MAP = st.builds(
    Options,
    st.none() | ADDRESSES,
    st.booleans(),
    st.lists(PERMITS, max_size=8).map(tuple),
    st.none() | st.builds(PortSet, st.integers(1, 65535), st.integers(0, 65535), st.booleans()),
)
OF_PEER = st.builds(Options, st.none() | ADDRESSES)
NUMBERS = st.integers(0, 2**32 - 1)


@st.composite
def bodies(draw: st.DrawFn) -> tuple[Opcode, Body | None, Options]:
    """Draws an opcode and what may come with it."""
    opcode = draw(st.sampled_from(Opcode))
    if opcode is Opcode.ANNOUNCE:
        return opcode, None, Options()
    body = Body(
        draw(st.binary(min_size=12, max_size=12)),
        draw(st.integers(0, 255)),
        draw(st.integers(0, 65535)),
        draw(ENDPOINTS),
        draw(ENDPOINTS) if opcode is Opcode.PEER else None,
    )
    return opcode, body, draw(OF_MAP if opcode is Opcode.MAP else OF_PEER)


@given(bodies(), ADDRESSES, NUMBERS)
def test_a_request_comes_back_as_it_went(
    drawn: tuple[Opcode, Body | None, Options], client: str, lifetime: int
) -> None:
    opcode, body, options = drawn
    request = Request(opcode, client, lifetime, body, options)
    assert pcp.parse_request(pcp.encode_request(request)) == request


@given(bodies(), NUMBERS, NUMBERS)
def test_a_response_comes_back_as_it_went(
    drawn: tuple[Opcode, Body | None, Options], lifetime: int, epoch: int
) -> None:
    opcode, body, options = drawn
    response = Response(opcode, Result.SUCCESS, lifetime, epoch, body, options)
    assert pcp.parse_response(pcp.encode_response(response)) == response
