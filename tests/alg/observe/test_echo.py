"""The SIP echo tells byte for byte what came, and never more than it was sent."""

from __future__ import annotations

import base64
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alg.observe.echo import (
    answer,
    differences,
    read_answer,
    render_acknowledgement,
    render_request,
)
from alg.sip.message import parse_message
from nat_table.endpoint import Endpoint

SOURCE = Endpoint("203.0.113.1", 40000)
SERVER = "198.51.100.5:5060"
REQUEST = render_request(SOURCE, SERVER, "c0ffee")


def test_what_came_is_told_byte_for_byte_and_where_from() -> None:
    changed = REQUEST.replace(b"c=IN IP4 203.0.113.1", b"c=IN IP4 198.51.100.77")
    seen = Endpoint("198.51.100.77", 1024)
    response = answer(changed, seen)
    assert response is not None
    assert read_answer(response, "c0ffee") == (seen, changed)
    assert differences(REQUEST, changed) == [("c=IN IP4 203.0.113.1", "c=IN IP4 198.51.100.77")]


def test_an_answer_names_no_address_outside_what_sip_wants_copied() -> None:
    response = answer(REQUEST, SOURCE)
    assert response is not None
    message = parse_message(response)
    assert (message.is_request, message.status) == (False, 480)
    start, end = message.body
    assert b"203.0.113.1" not in response[start:end]


@pytest.mark.parametrize("source", [SOURCE, Endpoint("2001:db8::1", 65535)])
def test_the_request_has_room_for_its_answer_also_if_it_grows_on_its_way(
    source: Endpoint,
) -> None:
    request = render_request(source, SERVER, "0123456789abcdef")
    assert len(request) < 1300
    longer = request.replace(str(source).encode(), b"255.255.255.255:65535")
    seen = Endpoint("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", 65535)
    response = answer(longer, seen)
    assert response is not None and len(response) <= len(longer)


def test_who_sends_too_little_gets_nothing() -> None:
    short = b"\r\n".join(
        line for line in REQUEST.split(b"\r\n") if not line.startswith(b"X-Padding")
    )
    assert answer(short, SOURCE) is None


def test_two_servers_do_not_answer_each_other() -> None:
    response = answer(REQUEST, SOURCE)
    assert response is not None
    assert answer(response, SOURCE) is None
    assert answer(render_acknowledgement(SOURCE, SERVER, "c0ffee"), SOURCE) is None


@given(st.binary(max_size=200))
def test_junk_gets_no_answer_and_is_none(junk: bytes) -> None:
    assert answer(junk, SOURCE) is None
    assert read_answer(junk, "c0ffee") is None


def test_an_answer_that_would_unpack_to_gigabytes_does_not() -> None:
    bomb = base64.b64encode(zlib.compress(b"192.0.2.1:5060\n" + b"0" * 50_000_000))
    response = answer(REQUEST, SOURCE)
    assert response is not None
    head = response.partition(b"\r\n\r\n")[0].rpartition(b"\r\n")[0]
    told = read_answer(head + b"\r\ncontent-length: %d\r\n\r\n" % len(bomb) + bomb, "c0ffee")
    assert told is not None and len(told.request) <= 65535


def test_an_answer_to_somebody_else_is_none() -> None:
    response = answer(REQUEST, SOURCE)
    assert response is not None
    assert read_answer(response, "decaf0") is None


def test_lines_that_came_or_went_are_told() -> None:
    assert differences(b"a\r\nb", b"a\r\nb\r\nc") == [("", "c")]
    assert differences(b"a\r\nb", b"b") == [("a", "")]
