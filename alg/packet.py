"""Raw UDP packets of IPv4 and IPv6, in and out (RFC 791, 8200, 768).

`decode_packet` refuses whatever it cannot put back exactly. `encode_packet` puts a new payload into
the old headers: lengths and checksums follow, options and everything else stay. An IPv4 packet that
grows loses its don't-fragment bit and gets a new identification, for the sender measured its path
with the smaller one and would never learn why the larger is lost. IPv6 has no such bit: what is too
large for the next link has to be sent anew.

The same two speak again and again, so addresses and ports are read once a flow, and remembered. The
checksum of an IPv4 header follows what changes in it; that of UDP is summed anew, because an edit
that moves the rest of a message by an odd number of bytes changes what every byte of it counts.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from ipaddress import IPv6Address
from typing import Final

from nat_table.endpoint import Endpoint, endpoint_of

UDP_HEADER: Final = 8
MAX_PACKET: Final = 0xFFFF - 4
"""What the queue takes: a netlink attribute has 16 bits for its length, its header included."""

_UDP: Final = 17
_DONT_FRAGMENT: Final = 0x4000
_MORE_OR_OFFSET: Final = 0x3FFF
_IPV4_HEADER: Final = 20
_IPV6_HEADER: Final = 40
_HOP_BY_HOP: Final = 0
_ROUTING: Final = 43
_DESTINATION_OPTIONS: Final = 60

_MOST_FLOWS: Final = 16384  # some three megabytes; forgotten as a whole when they are more
_flows: Final[dict[bytes, tuple[Endpoint, Endpoint]]] = {}


class NotUdp(ValueError):
    """The packet is not a whole UDP datagram."""


class Truncated(ValueError):
    """Fewer bytes were read than the headers announce."""


class Packet:
    """A UDP datagram with the headers it came in; `header_length` is that of IP, in bytes.

    IPv6 extension headers belong to it.
    """

    __slots__ = ("destination", "header_length", "payload", "raw", "source")

    def __init__(
        self,
        raw: bytes,
        header_length: int,
        source: Endpoint,
        destination: Endpoint,
        payload: bytes,
    ) -> None:
        self.raw = raw
        self.header_length = header_length
        self.source = source
        self.destination = destination
        self.payload = payload


def decode_packet(raw: bytes) -> Packet:
    """Decodes one packet from its IP header on; raises NotUdp or Truncated."""
    version = raw[0] >> 4 if raw else 0
    if version == 4:
        header_length, total = _read_ipv4(raw)
        addresses = raw[12:20]
    elif version == 6:
        header_length, total = _read_ipv6(raw)
        addresses = raw[8:40]
    else:
        raise NotUdp("not IP")
    start = header_length + UDP_HEADER
    if total > len(raw) or total < start:
        raise Truncated(f"{len(raw)} of {total} bytes")
    length = raw[start - 4] << 8 | raw[start - 3]
    if length != total - header_length:
        raise Truncated(f"UDP length {length} in {total - header_length} bytes")
    key = addresses + raw[header_length : header_length + 4]
    ends = _flows.get(key)
    if ends is None:
        if len(_flows) >= _MOST_FLOWS:
            _flows.clear()
        ends = _flows[key] = _read_ends(key)
    source, destination = ends
    return Packet(raw, header_length, source, destination, raw[start:total])


def encode_packet(packet: Packet, payload: bytes, identification: int) -> bytes:
    """Returns the packet with another payload; raises ValueError above `MAX_PACKET` bytes.

    `identification` (16 bits) is used where an IPv4 packet grows; it should be unpredictable.
    """
    raw, header_length = packet.raw, packet.header_length
    length = UDP_HEADER + len(payload)
    total = header_length + length
    if total > MAX_PACKET:
        raise ValueError(f"a packet of {total} bytes")
    if raw[0] >> 4 == 4:
        header = _header4(raw, total, len(payload) > len(packet.payload), identification)
        addresses = raw[12:20]
    else:
        header = raw[:4] + (total - _IPV6_HEADER).to_bytes(2, "big") + raw[6:header_length]
        addresses = raw[8:40]
    ports = raw[header_length : header_length + 4]
    # 2^16 is 1 modulo 65,535, so one division adds up words (RFC 1071). `length` is summed twice:
    # in the header, and in the pseudo header with the protocol.
    remainder = int.from_bytes(payload, "big") % 0xFFFF
    if length % 2:
        remainder <<= 8
    remainder += int.from_bytes(addresses + ports, "big") + _UDP + 2 * length
    checksum = 0xFFFF - remainder % 0xFFFF  # never 0, which would say that there is none
    return b"".join((header, ports, (length << 16 | checksum).to_bytes(4, "big"), payload))


def _header4(raw: bytes, total: int, grows: bool, identification: int) -> bytes:
    """Returns an IPv4 header with another length, and what else changes where the packet grows.

    Its checksum follows by the difference (RFC 1624).
    """
    length_word = raw[2] << 8 | raw[3]
    id_word = raw[4] << 8 | raw[5]
    fragment_word = raw[6] << 8 | raw[7]
    remainder = total - length_word - (raw[10] << 8 | raw[11])
    if grows:
        remainder += identification - id_word - (fragment_word & _DONT_FRAGMENT)
        id_word = identification
        fragment_word &= ~_DONT_FRAGMENT
    remainder %= 0xFFFF
    checksum = 0xFFFF - remainder if remainder else 0
    words = (total << 16 | id_word) << 16 | fragment_word
    changed = words.to_bytes(6, "big") + raw[8:10] + checksum.to_bytes(2, "big")
    return raw[:2] + changed + raw[12 : (raw[0] & 0x0F) * 4]


def _read_ipv4(raw: bytes) -> tuple[int, int]:
    """Returns the lengths of the header and of the packet."""
    if len(raw) < _IPV4_HEADER:
        raise NotUdp("no IPv4 header")
    header_length = (raw[0] & 0x0F) * 4
    fragment = raw[6] << 8 | raw[7]
    if raw[9] != _UDP or fragment & _MORE_OR_OFFSET or header_length < _IPV4_HEADER:
        raise NotUdp("not a whole UDP datagram")
    return header_length, raw[2] << 8 | raw[3]


def _read_ipv6(raw: bytes) -> tuple[int, int]:
    """Does for IPv6 what `_read_ipv4` does; the extension headers (RFC 8200 §4) are walked.

    A source route that is not at its end is refused: the checksum is over another destination.
    """
    if len(raw) < _IPV6_HEADER:
        raise NotUdp("no IPv6 header")
    protocol, header_length = raw[6], _IPV6_HEADER
    while protocol in (_HOP_BY_HOP, _ROUTING, _DESTINATION_OPTIONS):
        if header_length + 8 > len(raw) or (protocol == _ROUTING and raw[header_length + 3]):
            raise NotUdp("cut, or on its way by a source route")
        protocol, units = raw[header_length], raw[header_length + 1]
        header_length += 8 * (units + 1)
    if protocol != _UDP:
        raise NotUdp("not a whole UDP datagram")
    return header_length, _IPV6_HEADER + (raw[4] << 8 | raw[5])


def _read_ends(key: bytes) -> tuple[Endpoint, Endpoint]:
    """Reads two packed addresses of one family, and two ports."""
    *packed, source_port, destination_port = struct.unpack(
        "!4s4sHH" if len(key) == 12 else "!16s16sHH", key
    )
    source, destination = map(_address if len(key) == 12 else _address6, packed)
    return endpoint_of(source, source_port), endpoint_of(destination, destination_port)


def _address(packed: bytes) -> str:
    first, second, third, fourth = packed
    return f"{first}.{second}.{third}.{fourth}"


@lru_cache(4096)
def _address6(packed: bytes) -> str:
    return str(IPv6Address(packed))
