"""Raw UDP packets of IPv4 and IPv6, in and out (RFC 791, 8200, 768).

`decode_packet` refuses whatever it cannot put back exactly. `encode_packet` puts a new payload into
the old headers: lengths and checksums follow, options and everything else stay. An IPv4 packet that
grows loses its don't-fragment bit and gets a new identification, for the sender measured its path
with the smaller one and would never learn why the larger is lost. IPv6 has no such bit: what is too
large for the next link has to be sent anew.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from ipaddress import IPv6Address
from typing import NamedTuple

from nat_table.endpoint import Endpoint

UDP_HEADER = 8
MAX_PACKET = 0xFFFF - 4
"""What the queue takes: a netlink attribute has 16 bits for its length, its header included."""

_UDP = 17
_DONT_FRAGMENT = 0x4000
_MORE_OR_OFFSET = 0x3FFF
_IPV4 = struct.Struct("!BBHHHBBH4s4s")
_IPV6 = struct.Struct("!IHBB16s16s")
_HOP_BY_HOP, _ROUTING, _DESTINATION_OPTIONS = 0, 43, 60
_PORTS = struct.Struct("!HHHH")


class NotUdp(ValueError):
    """The packet is not a whole UDP datagram."""


class Truncated(ValueError):
    """Fewer bytes were read than the headers announce."""


class Packet(NamedTuple):
    """A UDP datagram with the headers it came in; `header_length` is that of IP, in bytes.

    IPv6 extension headers belong to it.
    """

    raw: bytes
    header_length: int
    source: Endpoint
    destination: Endpoint
    payload: bytes


def decode_packet(raw: bytes) -> Packet:
    """Decodes one packet from its IP header on; raises NotUdp or Truncated."""
    version = raw[0] >> 4 if raw else 0
    if version == 4:
        header_length, total, source, destination = _read_ipv4(raw)
    elif version == 6:
        header_length, total, source, destination = _read_ipv6(raw)
    else:
        raise NotUdp("not IP")
    if total > len(raw) or total < header_length + UDP_HEADER:
        raise Truncated(f"{len(raw)} of {total} bytes")
    source_port, destination_port, length, _ = _PORTS.unpack_from(raw, header_length)
    if length != total - header_length:
        raise Truncated(f"UDP length {length} in {total - header_length} bytes")
    return Packet(
        raw,
        header_length,
        Endpoint(source, source_port),
        Endpoint(destination, destination_port),
        raw[header_length + UDP_HEADER : total],
    )


def encode_packet(packet: Packet, payload: bytes, identification: int) -> bytes:
    """Returns the packet with another payload; raises ValueError above `MAX_PACKET` bytes.

    `identification` (16 bits) is used where an IPv4 packet grows; it should be unpredictable.
    """
    header_length = packet.header_length
    length = UDP_HEADER + len(payload)
    total = header_length + length
    if total > MAX_PACKET:
        raise ValueError(f"a packet of {total} bytes")
    header = bytearray(packet.raw[:header_length])
    if header[0] >> 4 == 4:
        struct.pack_into("!H", header, 2, total)
        if length - UDP_HEADER > len(packet.payload):
            fragment = int.from_bytes(header[6:8], "big") & ~_DONT_FRAGMENT
            struct.pack_into("!HH", header, 4, identification, fragment)
        struct.pack_into("!H", header, 10, 0)
        struct.pack_into("!H", header, 10, _checksum(bytes(header)))
        addresses = header[12:20]
    else:
        struct.pack_into("!H", header, 4, total - _IPV6.size)
        addresses = header[8:40]
    ports = packet.raw[header_length : header_length + 4] + length.to_bytes(2, "big")
    pseudo = bytes(addresses) + b"\0\x11" + length.to_bytes(2, "big")
    checksum = _checksum(pseudo + ports + payload) or 0xFFFF
    return b"".join((header, ports, checksum.to_bytes(2, "big"), payload))


def _read_ipv4(raw: bytes) -> tuple[int, int, str, str]:
    """Returns the lengths of the header and of the packet, source and destination."""
    if len(raw) < _IPV4.size:
        raise NotUdp("no IPv4 header")
    first, _, total, _, fragment, _, protocol, _, source, destination = _IPV4.unpack_from(raw)
    header_length = (first & 0x0F) * 4
    if protocol != _UDP or fragment & _MORE_OR_OFFSET or header_length < _IPV4.size:
        raise NotUdp("not a whole UDP datagram")
    return header_length, total, _address(source), _address(destination)


def _read_ipv6(raw: bytes) -> tuple[int, int, str, str]:
    """Does for IPv6 what `_read_ipv4` does; the extension headers (RFC 8200 §4) are walked.

    A source route that is not at its end is refused: the checksum is over another destination.
    """
    if len(raw) < _IPV6.size:
        raise NotUdp("no IPv6 header")
    _, length, protocol, _, source, destination = _IPV6.unpack_from(raw)
    header_length = _IPV6.size
    while protocol in (_HOP_BY_HOP, _ROUTING, _DESTINATION_OPTIONS):
        if header_length + 8 > len(raw) or (protocol == _ROUTING and raw[header_length + 3]):
            raise NotUdp("cut, or on its way by a source route")
        protocol, units = raw[header_length], raw[header_length + 1]
        header_length += 8 * (units + 1)
    if protocol != _UDP:
        raise NotUdp("not a whole UDP datagram")
    return header_length, _IPV6.size + length, _address6(source), _address6(destination)


def _address(packed: bytes) -> str:
    first, second, third, fourth = packed
    return f"{first}.{second}.{third}.{fourth}"


@lru_cache(4096)
def _address6(packed: bytes) -> str:
    return str(IPv6Address(packed))


def _checksum(data: bytes) -> int:
    """Returns the Internet checksum (RFC 1071): 2^16 is 1 modulo 65,535, so one division adds."""
    number = int.from_bytes(data, "big")
    if len(data) % 2:
        number <<= 8
    remainder = number % 0xFFFF
    return 0xFFFF - remainder if remainder or not number else 0
