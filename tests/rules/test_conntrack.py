"""Entries as the kernel sends them, without a kernel."""

from __future__ import annotations

import socket
import struct

import pytest

from nat_table.endpoint import Endpoint, Transport
from rules.conntrack import End, Flow, Side, _filtered, _parse_flow
from rules.elements import pack_endpoint
from rules.encoding import attribute, nested

PHONE, SERVER = Endpoint("10.0.0.20", 5060), Endpoint("203.0.113.10", 5061)
EXTERNAL = Endpoint("203.0.113.1", 20000)
PHONE6, SERVER6 = Endpoint("fd00:1::20", 5060), Endpoint("2001:db8:2::10", 5061)
EXTERNAL6 = Endpoint("2001:db8:2::1", 20000)


def encode_tuple(kind: int, protocol: int, source: Endpoint, target: Endpoint) -> bytes:
    return nested(
        kind,
        nested(
            1,
            attribute(3 if ":" in source.address else 1, pack_endpoint(source)[:-4]),
            attribute(4 if ":" in target.address else 2, pack_endpoint(target)[:-4]),
        ),
        nested(
            2,
            attribute(1, bytes([protocol])),
            attribute(2, struct.pack("!H", source.port)),
            attribute(3, struct.pack("!H", target.port)),
        ),
    )


def encode_entry(
    protocol: int, family: int, phone: Endpoint, server: Endpoint, external: Endpoint
) -> bytes:
    return (
        bytes([family, 0, 0, 0])
        + encode_tuple(1, protocol, phone, server)
        + encode_tuple(2, protocol, server, external)
        + attribute(3, b"\0\0\0\1")
    )


@pytest.mark.parametrize(
    ("family", "ends"),
    [
        (socket.AF_INET, (PHONE, SERVER, EXTERNAL)),
        (socket.AF_INET6, (PHONE6, SERVER6, EXTERNAL6)),
    ],
)
def test_entry_is_read(family: int, ends: tuple[Endpoint, Endpoint, Endpoint]) -> None:
    phone, server, external = ends
    flow = _parse_flow(encode_entry(17, family, *ends))
    assert flow == Flow(
        17,
        pack_endpoint(phone),
        pack_endpoint(server),
        pack_endpoint(server),
        pack_endpoint(external),
        encode_tuple(1, 17, phone, server),
    )
    assert flow.family == family


def test_internal_endpoints_are_those_translated_and_any_of_ipv6() -> None:
    plain = _parse_flow(encode_entry(17, socket.AF_INET, PHONE, SERVER, PHONE))
    masqueraded = _parse_flow(encode_entry(17, socket.AF_INET, PHONE, SERVER, EXTERNAL))
    routed = _parse_flow(encode_entry(17, socket.AF_INET6, PHONE6, SERVER6, PHONE6))
    assert plain is not None and masqueraded is not None and routed is not None
    assert list(plain.internal()) == []
    assert list(masqueraded.internal()) == [pack_endpoint(PHONE)]
    assert list(routed.internal()) == [pack_endpoint(PHONE6), pack_endpoint(SERVER6)]


def test_other_protocols_are_left_out() -> None:
    assert _parse_flow(encode_entry(132, socket.AF_INET, PHONE, SERVER, EXTERNAL)) is None
    icmp = encode_entry(17, socket.AF_INET6, PHONE6, SERVER6, EXTERNAL6)[:60]
    assert _parse_flow(icmp) is None


@pytest.mark.parametrize("side", Side)
def test_the_kernel_is_never_asked_to_compare_ipv6_addresses(side: Side) -> None:
    """It does so the wrong way round; see test_kernel_pinhole."""
    asked = _filtered(End(side, Transport.UDP, PHONE6))
    assert asked[0] == socket.AF_INET6 and pack_endpoint(PHONE6)[:-4] not in asked
    assert pack_endpoint(PHONE)[:-4] in _filtered(End(side, Transport.UDP, PHONE))
