"""Hosts in their one spelling, and which of them somebody can be sent to."""

import tracemalloc

import pytest

from alg.sip.host import canonical_address, canonical_host, unicast_address


@pytest.mark.parametrize(
    ("host", "canonical"),
    [
        (b"10.0.0.20", b"10.0.0.20"),
        (b"phone.example.com", b"phone.example.com"),
        (b"[2001:db8::20]", b"2001:db8::20"),
        (b"[2001:0DB8:0:0:0:0:0:20]", b"2001:db8::20"),
        (b"[2001:db8::192.0.2.1]", b"2001:db8::c000:201"),
        (b"[2001:db8::10:5070]", b"2001:db8::10:5070"),  # RFC 5118 §4.3
        (b"[::ffff:192.0.2.1]", b""),  # §4.9
        (b"[2001:db8:::192.0.2.1]", b""),  # §4.10
        (b"[fe80::1%eth0]", b""),
        (b"[1.2.3.4]", b""),
        (b"[]", b""),
        (b"[", b""),
        (b"[\xff]", b""),
    ],
)
def test_a_host_of_sip_has_one_spelling(host: bytes, canonical: bytes) -> None:
    assert canonical_host(host) == canonical


@pytest.mark.parametrize(
    ("text", "family", "canonical"),
    [
        (b"10.0.0.20", 4, b"10.0.0.20"),
        (b"\xff", 4, b"\xff"),
        (b"2001:db8::20", 4, b""),
        (b"2001:DB8::20", 6, b"2001:db8::20"),
        (b"10.0.0.20", 6, b""),
        (b"[2001:db8::20]", 6, b""),
        (b"2001:db8::20%eth0", 6, b""),
        (b"::ffff:10.0.0.20", 6, b""),
        (b"phone.example.com", 6, b""),
    ],
)
def test_an_address_of_sdp_is_one_of_its_family(text: bytes, family: int, canonical: bytes) -> None:
    assert canonical_address(text, family) == canonical


@pytest.mark.parametrize(
    "host", [b"10.0.0.20", b"169.254.1.1", b"2001:db8::20", b"fd00::20", b"64:ff9b::c000:201"]
)
def test_a_unicast_address_is_reached(host: bytes) -> None:
    assert unicast_address(host) == host.decode()


@pytest.mark.parametrize(
    "host",
    b" phone 0.0.0.0 127.0.0.1 224.0.0.1 :: ::1 ff02::1 fe80::1 1.2.3 \xff 1::2::3".split(b" "),
)
def test_a58_what_reaches_nobody_is_none(host: bytes) -> None:
    assert unicast_address(host) is None


def test_a85_long_hosts_are_not_remembered() -> None:
    tracemalloc.start()
    try:
        for number in range(300):
            host = b"%d:" % number + bytes(60000)
            assert canonical_host(b"[%b]" % host) == canonical_address(host, 6) == b""
            assert unicast_address(host) is None
        assert tracemalloc.get_traced_memory()[0] < 1_000_000
    finally:
        tracemalloc.stop()
