"""Raw packets: read back as they are, put back with right lengths and checksums.

scapy and dpkt, which compute both in their own way, are the judges.
"""

from __future__ import annotations

import random
import struct
from typing import Any

import dpkt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP, IPOption_NOP
from scapy.packet import Raw

from alg.packet import MAX_PACKET, NotUdp, Truncated, decode_packet, encode_packet
from nat_table.endpoint import Endpoint

SOURCE, DESTINATION = Endpoint("10.0.0.20", 5060), Endpoint("203.0.113.10", 5062)
OTHER_ID = 0xBEEF


def raw_packet(payload: bytes = b"payload", **fields: Any) -> bytes:
    """Returns a packet built by scapy; `fields` are those of the IP header."""
    header = IP(src=SOURCE.address, dst=DESTINATION.address, id=7, **fields)
    return bytes(header / UDP(sport=SOURCE.port, dport=DESTINATION.port) / Raw(payload))


def encoded(raw: bytes, payload: bytes) -> bytes:
    return encode_packet(decode_packet(raw), payload, OTHER_ID)


def rebuilt(raw: bytes) -> bytes:
    """Returns the packet with lengths and checksums as scapy computes them."""
    packet = IP(raw)
    del packet.len, packet.chksum, packet[UDP].len, packet[UDP].chksum
    return bytes(packet)


def identification(raw: bytes) -> int:
    return int.from_bytes(raw[4:6], "big")


def test_endpoints_and_payload_are_read() -> None:
    raw = raw_packet(b"INVITE")
    packet = decode_packet(raw)
    assert (packet.raw, packet.header_length, packet.payload) == (raw, 20, b"INVITE")
    assert (packet.source, packet.destination) == (SOURCE, DESTINATION)


def test_more_flows_than_are_remembered_are_read_all_the_same() -> None:
    raw = raw_packet(b"INVITE")
    for number in (*range(20_000), *range(20)):
        host = f"10.1.{number // 250}.{number % 250}"
        source = bytes(map(int, host.split(".")))
        packet = decode_packet(raw[:12] + source + raw[16:])
        assert (packet.source, packet.destination) == (Endpoint(host, SOURCE.port), DESTINATION)


@pytest.mark.parametrize("length", [0, 1, 2, 3, 1471, 1472, 65503])
def test_an_unchanged_payload_gives_the_same_bytes(length: int) -> None:
    raw = raw_packet(random.Random(length).randbytes(length), flags="DF", tos=0xB8, ttl=63)
    assert encoded(raw, decode_packet(raw).payload) == raw


@pytest.mark.parametrize("old", [0, 1, 2, 7, 1000])
@pytest.mark.parametrize("new", [0, 1, 2, 8, 999, 1001, 3000])
def test_a73_lengths_and_checksums_are_right(old: int, new: int) -> None:
    payload = random.Random(new).randbytes(new)
    result = encoded(raw_packet(bytes(old)), payload)
    assert result == rebuilt(result)
    assert decode_packet(result).payload == payload


def test_a73_dpkt_agrees_on_the_checksums() -> None:
    packet = dpkt.ip.IP(encoded(raw_packet(), b"odd"))
    udp_sum, ip_sum = packet.data.sum, packet.sum
    packet.sum = packet.data.sum = 0
    packet = dpkt.ip.IP(bytes(packet))
    assert (packet.data.sum, packet.sum) == (udp_sum, ip_sum)
    assert packet.data.ulen == 8 + 3 and packet.len == 31


@given(st.binary(max_size=50), st.binary(max_size=50), st.integers(0, 0xFFFF))
def test_a73_any_payload_gets_a_checksum_that_sums_up(old: bytes, new: bytes, number: int) -> None:
    result = encode_packet(decode_packet(raw_packet(old)), new, number)
    for part in (result[:20], pseudo_header(result) + result[20:]):
        assert folded_sum(part) == 0xFFFF


def pseudo_header(raw: bytes) -> bytes:
    return raw[12:20] + b"\0\x11" + raw[24:26]


def folded_sum(data: bytes) -> int:
    data += bytes(len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def test_a_checksum_of_zero_is_sent_as_all_ones() -> None:
    """RFC 768: a computed zero is transmitted as ones, for zero means that there is none."""
    raw = raw_packet(b"\0\0")
    missing = int.from_bytes(raw[26:28], "big")
    result = encoded(raw, missing.to_bytes(2, "big"))
    assert result[26:28] == b"\xff\xff"
    assert result == rebuilt(result)


def test_a_packet_without_checksum_gets_one() -> None:
    raw = bytearray(raw_packet(b"INVITE"))
    raw[26:28] = b"\0\0"
    assert encoded(bytes(raw), b"INVITE") == raw_packet(b"INVITE")


def test_ip_options_stay() -> None:
    raw = raw_packet(b"INVITE", options=[IPOption_NOP()] * 8)
    packet = decode_packet(raw)
    assert (packet.header_length, packet.payload) == (28, b"INVITE")
    assert encoded(raw, b"INVITE") == raw
    result = encoded(raw, b"INVITE longer")
    assert result[20:28] == raw[20:28]
    assert result == rebuilt(result)


def test_a71_growth_clears_dont_fragment_and_renumbers() -> None:
    raw = raw_packet(b"12345", flags="DF", tos=0xB8, ttl=63)
    result = encoded(raw, b"123456")
    assert int(IP(result).flags) == 0
    assert identification(result) == OTHER_ID
    assert (result[1], result[8], result[12:24]) == (0xB8, 63, raw[12:24])


@pytest.mark.parametrize("payload", [b"1234", b"abcde"])
def test_a71_without_growth_dont_fragment_stays(payload: bytes) -> None:
    result = encoded(raw_packet(b"12345", flags="DF"), payload)
    assert IP(result).flags == "DF"
    assert identification(result) == 7


def test_a71_the_reserved_flag_stays_when_the_packet_grows() -> None:
    assert IP(encoded(raw_packet(b"1", flags="evil+DF"), b"12")).flags == "evil"


def test_padding_behind_the_packet_is_not_payload() -> None:
    raw = raw_packet(b"keepalive")
    padded = raw + bytes(17)
    assert decode_packet(padded).payload == b"keepalive"
    assert encoded(padded, b"keepalive") == raw


def test_the_largest_packet_fits_and_no_larger() -> None:
    assert len(encoded(raw_packet(), bytes(65503))) == MAX_PACKET
    with pytest.raises(ValueError, match="65532"):
        encoded(raw_packet(), bytes(65504))


@pytest.mark.parametrize("length", range(len(raw_packet())))
def test_every_cut_is_refused(length: int) -> None:
    with pytest.raises((NotUdp, Truncated)):
        decode_packet(raw_packet()[:length])


@pytest.mark.parametrize("flags", ["MF", "MF+DF"])
def test_a70_a_first_fragment_is_refused(flags: str) -> None:
    with pytest.raises(NotUdp):
        decode_packet(raw_packet(flags=flags))


def test_a70_a_later_fragment_is_refused() -> None:
    with pytest.raises(NotUdp):
        decode_packet(raw_packet(frag=185))


@pytest.mark.parametrize("protocol", [1, 6, 132, 0])
def test_other_protocols_are_refused(protocol: int) -> None:
    raw = bytearray(raw_packet())
    raw[9] = protocol
    with pytest.raises(NotUdp):
        decode_packet(bytes(raw))


@pytest.mark.parametrize("first", [0x65, 0x55, 0x05, 0x44, 0x40, 0x75])
def test_other_versions_and_short_headers_are_refused(first: int) -> None:
    with pytest.raises(NotUdp):
        decode_packet(bytes([first]) + raw_packet()[1:])


@pytest.mark.parametrize("length", [0, 7, 14, 16, 65535])
def test_a_udp_length_that_disagrees_is_refused(length: int) -> None:
    raw = bytearray(raw_packet(b"payload"))
    raw[24:26] = length.to_bytes(2, "big")
    with pytest.raises(Truncated):
        decode_packet(bytes(raw))


@pytest.mark.parametrize("words", [6, 9, 15])
def test_a_header_longer_than_the_packet_is_refused(words: int) -> None:
    with pytest.raises((NotUdp, Truncated)):
        decode_packet(bytes([0x40 | words]) + raw_packet(b"")[1:])


@given(st.binary(max_size=80))
def test_random_bytes_are_refused_or_put_back(raw: bytes) -> None:
    try:
        packet = decode_packet(b"\x45" + raw)
    except (NotUdp, Truncated):
        return
    assert decode_packet(encode_packet(packet, packet.payload, 0)).payload == packet.payload
