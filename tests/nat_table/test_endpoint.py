"""Endpoints are written and read as SIP, SDP and the command line write them."""

import pytest

from nat_table.endpoint import Endpoint, Transport, parse_endpoint, parse_host, render_endpoint


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
