"""HEP3, chunk by chunk; tests/netns/test_hep.py has a real receiver."""

from __future__ import annotations

import struct
from ipaddress import IPv6Address

import pytest

from alg.datagram import Side
from alg.observe.hep import MAX_PACKET, encode_hep
from alg.observe.passage import Sight
from nat_table.endpoint import Endpoint, Transport

TIME = 1_700_000_000.25
MESSAGE = b"OPTIONS sip:x SIP/2.0\r\nCall-ID: abc\r\nContent-Length: 0\r\n\r\n"
SIGHT4 = Sight(Side.INTERNAL, Endpoint("10.0.0.20", 5062), Endpoint("203.0.113.10", 5060), MESSAGE)
SIGHT6 = Sight(
    Side.EXTERNAL, Endpoint("2001:db8::20", 5062), Endpoint("2001:db8:1::10", 5060), MESSAGE
)


def encode(sight: Sight, *, call_id: bytes = b"abc", password: bytes = b"") -> bytes:
    return encode_hep(sight, Transport.UDP, TIME, call_id, 2001, password)


def chunks(packet: bytes) -> dict[int, bytes]:
    """Reads the chunks of a packet, each of vendor 0, and nothing behind them."""
    assert packet[:4] == b"HEP3"
    assert int.from_bytes(packet[4:6], "big") == len(packet)
    found, position = {}, 6
    while position < len(packet):
        vendor, kind, length = struct.unpack_from("!HHH", packet, position)
        assert vendor == 0 and kind not in found
        found[kind] = packet[position + 6 : position + length]
        position += length
    assert position == len(packet)
    return found


def test_every_chunk_is_where_the_protocol_has_it() -> None:
    assert chunks(encode(SIGHT4, password=b"secret")) == {
        1: b"\x02",
        2: b"\x11",
        3: bytes((10, 0, 0, 20)),
        4: bytes((203, 0, 113, 10)),
        7: (5062).to_bytes(2, "big"),
        8: (5060).to_bytes(2, "big"),
        9: (1_700_000_000).to_bytes(4, "big"),
        10: (250_000).to_bytes(4, "big"),
        11: b"\x01",
        12: (2001).to_bytes(4, "big"),
        14: b"secret",
        15: MESSAGE,
        17: b"abc",
    }


def test_addresses_of_ipv6_have_chunks_of_their_own_and_no_password_is_none() -> None:
    found = chunks(encode(SIGHT6))
    assert found[1] == b"\x0a"
    assert found[5] == IPv6Address("2001:db8::20").packed
    assert found[6] == IPv6Address("2001:db8:1::10").packed
    assert not found.keys() & {3, 4, 14}


def test_a_hostile_call_id_takes_no_room_and_what_does_not_fit_is_refused() -> None:
    assert len(encode(SIGHT4, call_id=b"x" * 60_000)) < 1000
    large = SIGHT4._replace(payload=b"x" * MAX_PACKET)
    with pytest.raises(ValueError, match="HEP packet of"):
        encode(large)
