"""Raw IPv4 + UDP packets, in and out (RFC 791, 768).

`decode_packet` refuses whatever it cannot put back exactly. `encode_packet` puts a new payload into
the old headers: lengths and checksums follow, options and everything else stay. A packet that grows
loses its don't-fragment bit and gets a new identification, for the sender measured its path with
the smaller one and would never learn why the larger is lost.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from nat_table.endpoint import Endpoint

UDP_HEADER = 8
_UDP = 17
_DONT_FRAGMENT = 0x4000
_MORE_OR_OFFSET = 0x3FFF
_IPV4 = struct.Struct("!BBHHHBBH4s4s")
_PORTS = struct.Struct("!HHHH")


class NotUdp(ValueError):
    """The packet is not a whole IPv4 UDP datagram."""


class Truncated(ValueError):
    """Fewer bytes were read than the headers announce."""


class Packet(NamedTuple):
    """A UDP datagram with the headers it came in; `header_length` is that of IP, in bytes."""

    raw: bytes
    header_length: int
    source: Endpoint
    destination: Endpoint
    payload: bytes


def decode_packet(raw: bytes) -> Packet:
    """Decodes one packet from its IP header on; raises NotUdp or Truncated."""
    if len(raw) < _IPV4.size or raw[0] >> 4 != 4:
        raise NotUdp("not IPv4")
    first, _, total, _, fragment, _, protocol, _, source, destination = _IPV4.unpack_from(raw)
    header_length = (first & 0x0F) * 4
    if protocol != _UDP or fragment & _MORE_OR_OFFSET or header_length < _IPV4.size:
        raise NotUdp("not a whole UDP datagram")
    if total > len(raw) or total < header_length + UDP_HEADER:
        raise Truncated(f"{len(raw)} of {total} bytes")
    source_port, destination_port, length, _ = _PORTS.unpack_from(raw, header_length)
    if length != total - header_length:
        raise Truncated(f"UDP length {length} in {total - header_length} bytes")
    return Packet(
        raw,
        header_length,
        Endpoint(_address(source), source_port),
        Endpoint(_address(destination), destination_port),
        raw[header_length + UDP_HEADER : total],
    )


def encode_packet(packet: Packet, payload: bytes, identification: int) -> bytes:
    """Returns the packet with another payload; raises ValueError above 65,535 bytes.

    `identification` (16 bits) is used where the packet grows; it should be unpredictable.
    """
    header_length = packet.header_length
    length = UDP_HEADER + len(payload)
    total = header_length + length
    if total > 0xFFFF:
        raise ValueError(f"a packet of {total} bytes")
    header = bytearray(packet.raw[:header_length])
    struct.pack_into("!H", header, 2, total)
    if length - UDP_HEADER > len(packet.payload):
        fragment = int.from_bytes(header[6:8], "big") & ~_DONT_FRAGMENT
        struct.pack_into("!HH", header, 4, identification, fragment)
    struct.pack_into("!H", header, 10, 0)
    struct.pack_into("!H", header, 10, _checksum(bytes(header)))
    ports = packet.raw[header_length : header_length + 4] + length.to_bytes(2, "big")
    pseudo = bytes(header[12:20]) + b"\0\x11" + length.to_bytes(2, "big")
    checksum = _checksum(pseudo + ports + payload) or 0xFFFF
    return b"".join((header, ports, checksum.to_bytes(2, "big"), payload))


def _address(packed: bytes) -> str:
    first, second, third, fourth = packed
    return f"{first}.{second}.{third}.{fourth}"


def _checksum(data: bytes) -> int:
    """Returns the Internet checksum (RFC 1071): 2^16 is 1 modulo 65,535, so one division adds."""
    number = int.from_bytes(data, "big")
    if len(data) % 2:
        number <<= 8
    remainder = number % 0xFFFF
    return 0xFFFF - remainder if remainder or not number else 0
