"""From a captured frame to an IP packet: link layers, IPv4 and IPv6 headers.

Every header is read from the bytes that are there; whatever they announce is checked against them.
What a capture did not keep (a short snapshot length) is told from what was never sent (padding).
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from typing import NamedTuple

from dpkt.ethernet import (
    ETH_TYPE_8021AD,
    ETH_TYPE_8021Q,
    ETH_TYPE_IP,
    ETH_TYPE_IP6,
    ETH_TYPE_PPPoE,
)

_QINQ = {ETH_TYPE_8021Q, ETH_TYPE_8021AD, 0x9100, 0x9200}
_PPP_IP, _PPP_IP6 = 0x0021, 0x0057

_IPV4 = struct.Struct("!BBHHHBBH4s4s")
_IPV6 = struct.Struct("!IHBB16s16s")
_MORE, _OFFSET = 0x2000, 0x1FFF
_HOP_BY_HOP, _ROUTING, _FRAGMENT, _AUTHENTICATION, _DESTINATION = 0, 43, 44, 51, 60


class Skipped(ValueError):
    """The frame holds nothing to look at; the text says what it is, for counting."""


class IpPacket(NamedTuple):
    """An IP packet or a fragment of one.

    `identification` is None for a whole packet; `offset` is in bytes. `missing` is how many bytes
    at the end were sent but not captured.
    """

    source: str
    destination: str
    protocol: int
    payload: bytes
    missing: int = 0
    identification: int | None = None
    offset: int = 0
    has_more: bool = False


def decode_frame(link_type: int, frame: bytes) -> IpPacket:
    """Decodes a frame of a capture; raises Skipped."""
    strip = _LINKS.get(link_type)
    if strip is None:
        raise Skipped(f"link type {link_type} is not known")
    try:
        packet = strip(frame)
        return _decode_ip(packet)
    except (struct.error, IndexError):
        raise Skipped("too short for their headers") from None


def _decode_ip(packet: bytes) -> IpPacket:
    version = packet[0] >> 4
    if version == 4:
        return _decode_ipv4(packet)
    if version == 6:
        return _decode_ipv6(packet)
    raise Skipped("not IP")


def _decode_ipv4(packet: bytes) -> IpPacket:
    first, _, total, identification, fragment, _, protocol, _, source, destination = (
        _IPV4.unpack_from(packet)
    )
    start = (first & 0x0F) * 4
    if total == 0:  # filled in by the network card, after the capture
        total = len(packet)
    if not _IPV4.size <= start <= total:
        raise Skipped("malformed IP headers")
    offset = (fragment & _OFFSET) * 8
    has_more = bool(fragment & _MORE)
    return IpPacket(
        _address(source),
        _address(destination),
        protocol,
        packet[start:total],
        max(0, total - len(packet)),
        identification if offset or has_more else None,
        offset,
        has_more,
    )


def _decode_ipv6(packet: bytes) -> IpPacket:
    """Walks the extension headers (RFC 8200 §4) up to the upper layer or the fragment header."""
    _, length, protocol, _, source, destination = _IPV6.unpack_from(packet)
    total = _IPV6.size + length if length else len(packet)
    missing = max(0, total - len(packet))
    start = _IPV6.size
    identification, offset, has_more = None, 0, False
    while protocol in (_HOP_BY_HOP, _ROUTING, _FRAGMENT, _AUTHENTICATION, _DESTINATION):
        following, size = packet[start], packet[start + 1]
        if protocol == _FRAGMENT:
            field, identification = struct.unpack_from("!HI", packet, start + 2)
            offset, has_more = field & 0xFFF8, bool(field & 1)
            size = 8
        elif protocol == _AUTHENTICATION:
            size = (size + 2) * 4
        else:
            size = (size + 1) * 8
        start += size
        protocol = following
        if identification is not None:
            break
    if start > total:
        raise Skipped("malformed IP headers")
    return IpPacket(
        _address(source),
        _address(destination),
        protocol,
        packet[start:total],
        missing,
        identification,
        offset,
        has_more,
    )


def _address(packed: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)


def _ethernet(frame: bytes) -> bytes:
    return _after_type(frame, 12)


def _after_type(frame: bytes, at: int) -> bytes:
    """Returns the IP packet behind an EtherType, VLAN tags (IEEE 802.1Q, 802.1ad) and PPPoE."""
    (kind,) = struct.unpack_from("!H", frame, at)
    while kind in _QINQ:
        at += 4
        (kind,) = struct.unpack_from("!H", frame, at)
    at += 2
    if kind == ETH_TYPE_PPPoE:
        (kind,) = struct.unpack_from("!H", frame, at + 6)
        at += 8
        if kind not in (_PPP_IP, _PPP_IP6):
            raise Skipped("not IP")
    elif kind not in (ETH_TYPE_IP, ETH_TYPE_IP6):
        raise Skipped("not IP")
    return frame[at:]


def _cooked(frame: bytes) -> bytes:
    return _after_type(frame, 14)


def _cooked_2(frame: bytes) -> bytes:
    """Strips the header of version 2: the EtherType stands first in its 20 bytes."""
    return _after_type(frame[:2] + frame[20:], 0)


def _raw(frame: bytes) -> bytes:
    return frame


def _loopback(frame: bytes) -> bytes:
    """Strips the four bytes of the address family, whose numbers and order depend on the host."""
    if len(frame) < 5:
        raise Skipped("too short for their headers")
    return frame[4:]


_LINKS: dict[int, Callable[[bytes], bytes]] = {
    0: _loopback,  # NULL
    1: _ethernet,
    12: _raw,
    14: _raw,
    101: _raw,
    108: _loopback,  # LOOP
    113: _cooked,
    228: _raw,  # IPV4
    229: _raw,  # IPV6
    276: _cooked_2,
}
