"""Raw IPv6 packets: read back as they are, put back with right lengths and checksums.

scapy, which computes both in its own way, is the judge.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import TCP, UDP
from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.packet import Raw

from alg.packet import MAX_PACKET, NotUdp, Truncated, decode_packet, encode_packet
from nat_table.endpoint import Endpoint

SOURCE, DESTINATION = Endpoint("2001:db8:1::20", 5060), Endpoint("2001:db8::10", 5062)
EXTENSIONS = [IPv6ExtHdrHopByHop(), IPv6ExtHdrRouting(segleft=0), IPv6ExtHdrDestOpt()]


def raw_packet(payload: bytes = b"payload", *extensions: Any, **fields: Any) -> bytes:
    """Returns a packet built by scapy; `fields` are those of the IPv6 header."""
    packet = IPv6(src=SOURCE.address, dst=DESTINATION.address, **fields)
    for extension in extensions:
        packet /= extension.copy()
    return bytes(packet / UDP(sport=SOURCE.port, dport=DESTINATION.port) / Raw(payload))


def encoded(raw: bytes, payload: bytes) -> bytes:
    return encode_packet(decode_packet(raw), payload, 0xBEEF)


def test_endpoints_and_payload_are_read() -> None:
    raw = raw_packet(b"INVITE")
    packet = decode_packet(raw)
    assert (packet.raw, packet.header_length, packet.payload) == (raw, 40, b"INVITE")
    assert (packet.source, packet.destination) == (SOURCE, DESTINATION)


@pytest.mark.parametrize("length", [0, 1, 2, 3, 1452, MAX_PACKET - 48])
def test_an_unchanged_payload_gives_the_same_bytes(length: int) -> None:
    raw = raw_packet(random.Random(length).randbytes(length), tc=0xB8, fl=0xABCDE, hlim=63)
    assert encoded(raw, decode_packet(raw).payload) == raw


@pytest.mark.parametrize("old", [0, 1, 2, 7, 1000])
@pytest.mark.parametrize("new", [0, 1, 2, 8, 999, 1001, 3000])
def test_a73_lengths_and_checksums_are_right(old: int, new: int) -> None:
    payload = random.Random(new).randbytes(new)
    result = encoded(raw_packet(bytes(old), tc=0xB8, fl=0xABCDE, hlim=63), payload)
    assert result == raw_packet(payload, tc=0xB8, fl=0xABCDE, hlim=63)
    assert decode_packet(result).payload == payload


@pytest.mark.parametrize("extensions", [EXTENSIONS[:1], EXTENSIONS[1:2], EXTENSIONS])
def test_extension_headers_are_walked_and_stay(extensions: list[Any]) -> None:
    raw = raw_packet(b"INVITE", *extensions)
    packet = decode_packet(raw)
    assert (packet.header_length, packet.payload) == (40 + 8 * len(extensions), b"INVITE")
    assert encoded(raw, b"INVITE longer") == raw_packet(b"INVITE longer", *extensions)


def test_a_checksum_of_zero_is_sent_as_all_ones() -> None:
    """RFC 8200 §8.1: zero would mean that there is none, which IPv6 forbids."""
    raw = raw_packet(b"\0\0")
    result = encoded(raw, raw[46:48])
    assert result[46:48] == b"\xff\xff"


@pytest.mark.parametrize(
    "extension", [IPv6ExtHdrFragment(), IPv6ExtHdrRouting(segleft=1), IPv6ExtHdrFragment(m=1)]
)
def test_a70_fragments_and_source_routes_on_their_way_are_refused(extension: Any) -> None:
    with pytest.raises(NotUdp):
        decode_packet(raw_packet(b"INVITE", extension))


def test_another_protocol_is_refused() -> None:
    with pytest.raises(NotUdp):
        decode_packet(
            bytes(IPv6(dst="2001:db8::10") / IPv6ExtHdrHopByHop() / TCP() / Raw(b"x" * 9))
        )


@pytest.mark.parametrize("length", range(len(raw_packet(b"payload", *EXTENSIONS))))
def test_every_cut_is_refused(length: int) -> None:
    with pytest.raises((NotUdp, Truncated)):
        decode_packet(raw_packet(b"payload", *EXTENSIONS)[:length])


@pytest.mark.parametrize("length", [0, 7, 14, 16, 65535])
def test_a_length_that_disagrees_is_refused(length: int) -> None:
    raw = raw_packet(b"payload")
    for at in (4, 44):  # the payload length of IPv6, the length of UDP
        with pytest.raises(Truncated):
            decode_packet(raw[:at] + length.to_bytes(2, "big") + raw[at + 2 :])


def test_the_largest_packet_fits_and_no_larger() -> None:
    assert len(encoded(raw_packet(), bytes(MAX_PACKET - 48))) == MAX_PACKET
    with pytest.raises(ValueError, match=str(MAX_PACKET + 1)):
        encoded(raw_packet(), bytes(MAX_PACKET - 47))


def test_bytes_behind_the_packet_are_not_payload() -> None:
    assert decode_packet(raw_packet(b"keepalive") + bytes(17)).payload == b"keepalive"


@given(st.sampled_from([0, 17, 43, 60]), st.binary(max_size=120))
def test_random_bytes_are_refused_or_put_back(protocol: int, rest: bytes) -> None:
    raw = b"\x60\0\0\0" + max(0, len(rest) - 33).to_bytes(2, "big") + bytes([protocol]) + rest
    try:
        packet = decode_packet(raw)
    except (NotUdp, Truncated):
        return
    assert decode_packet(encode_packet(packet, packet.payload, 0)).payload == packet.payload
