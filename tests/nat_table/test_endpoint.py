"""Endpoints are written and read as SIP, SDP and the command line write them."""

import tracemalloc

import pytest

from nat_table.endpoint import (
    Endpoint,
    Transport,
    endpoint_of,
    parse_endpoint,
    parse_host,
    render_endpoint,
    unpack_endpoint,
)


@pytest.mark.parametrize(
    ("endpoint", "text"),
    [
        (Endpoint("192.0.2.1", 5060), "192.0.2.1:5060"),
        (Endpoint("2001:db8::1", 5060), "[2001:db8::1]:5060"),
        (Endpoint("0.0.0.0", 0), "0.0.0.0:0"),
        (Endpoint("198.51.100.255", 65535), "198.51.100.255:65535"),
    ],
)
def test_text_and_endpoint_are_each_others_inverse(endpoint: Endpoint, text: str) -> None:
    assert render_endpoint(endpoint) == str(endpoint) == text
    assert parse_endpoint(text) == endpoint


def test_an_ipv6_address_is_kept_compressed() -> None:
    assert parse_endpoint("[2001:0DB8:0:0::1]:5060") == Endpoint("2001:db8::1", 5060)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "192.0.2.1",
        "192.0.2.1:",
        ":5060",
        "192.0.2.1:65536",
        "192.0.2.1:-1",
        "192.0.2.1:\N{ARABIC-INDIC DIGIT FIVE}",
        "192.0.2.01:5060",
        "192.0.2.256:5060",
        "2001:db8::1:5060",
        "[192.0.2.1]:5060",
        "[2001:db8::1]",
        "sip.example.com:5060",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_endpoint(text)


def test_a_host_is_an_address_without_a_port_or_an_endpoint() -> None:
    assert parse_host("10.0.0.20") == Endpoint("10.0.0.20", 0)
    assert parse_host("2001:DB8::1") == Endpoint("2001:db8::1", 0)
    assert parse_host("[2001:db8::1]:5060") == Endpoint("2001:db8::1", 5060)
    with pytest.raises(ValueError, match="phone"):
        parse_host("phone")


def test_a_transport_is_its_protocol_number_and_prints_in_lower_case() -> None:
    assert [(transport.value, transport.label) for transport in Transport] == [
        (17, "udp"),
        (6, "tcp"),
    ]


def test_an_endpoint_that_is_made_again_is_the_same_object() -> None:
    made = endpoint_of("192.0.2.1", 5060)
    assert made == Endpoint("192.0.2.1", 5060)
    assert endpoint_of("192.0.2.1", 5060) is parse_endpoint("192.0.2.1:5060") is made
    assert unpack_endpoint(bytes([192, 0, 2, 1, 0x13, 0xC4])) is made
    packed = bytes.fromhex("20010db800000000000000000000000113c4")
    assert unpack_endpoint(packed) == Endpoint("2001:db8::1", 5060)
    with pytest.raises(ValueError):
        unpack_endpoint(b"\x00\x00\x00\x00\x00")


def test_a_flood_of_endpoints_is_not_remembered_for_ever() -> None:
    first = endpoint_of("192.0.2.77", 1)
    long = "x" * 1000
    tracemalloc.start()
    for number in range(50_000):
        assert endpoint_of("10.0.0.20", number) == ("10.0.0.20", number)
        unpack_endpoint(number.to_bytes(6, "big"))
        endpoint_of(f"{number}{long}", 0)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size < 10_000_000
    assert endpoint_of("192.0.2.77", 1) == first
