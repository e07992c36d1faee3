"""HEP3, the encapsulation that HOMER, heplify and sngrep take messages in ("The Hep3 Protocol").

A packet is a head and chunks; here it carries one SIP message as one side of the gateway saw it.
Both sides of a message have one correlation id, its Call-ID.
"""

from __future__ import annotations

import socket
import struct

from alg.observe.passage import Sight
from nat_table.endpoint import Transport, is_ipv6

MAX_PACKET = 65507
"""What a UDP datagram holds; HEP's own length has 16 bits too."""

MAX_CORRELATION = 255

_HEAD = struct.Struct("!4sH")
_CHUNK = struct.Struct("!HHH")
_GENERIC = 0
_SIP = 1

_FAMILY, _PROTOCOL = 1, 2
_SOURCE4, _DESTINATION4, _SOURCE6, _DESTINATION6 = 3, 4, 5, 6
_SOURCE_PORT, _DESTINATION_PORT = 7, 8
_SECONDS, _MICROSECONDS = 9, 10
_CONTENT, _CAPTURE_ID, _KEY, _PAYLOAD, _CORRELATION = 11, 12, 14, 15, 17


def encode_hep(
    sight: Sight,
    transport: Transport,
    time: float,
    call_id: bytes,
    capture_id: int,
    password: bytes,
) -> bytes:
    """Encodes a message seen at `time` (seconds since 1970); raises ValueError if it is too long.

    `password` is b"" where the collector wants none.
    """
    seconds, microseconds = divmod(round(time * 1e6), 1_000_000)
    if is_ipv6(sight.source.address):
        family, source_kind, destination_kind = socket.AF_INET6, _SOURCE6, _DESTINATION6
    else:
        family, source_kind, destination_kind = socket.AF_INET, _SOURCE4, _DESTINATION4
    chunks = [
        _chunk(_FAMILY, bytes((family,))),
        _chunk(_PROTOCOL, bytes((transport.value,))),
        _chunk(source_kind, socket.inet_pton(family, sight.source.address)),
        _chunk(destination_kind, socket.inet_pton(family, sight.destination.address)),
        _chunk(_SOURCE_PORT, sight.source.port.to_bytes(2, "big")),
        _chunk(_DESTINATION_PORT, sight.destination.port.to_bytes(2, "big")),
        _chunk(_SECONDS, seconds.to_bytes(4, "big")),
        _chunk(_MICROSECONDS, microseconds.to_bytes(4, "big")),
        _chunk(_CONTENT, bytes((_SIP,))),
        _chunk(_CAPTURE_ID, capture_id.to_bytes(4, "big")),
    ]
    if password:
        chunks.append(_chunk(_KEY, password))
    if call_id:
        chunks.append(_chunk(_CORRELATION, call_id[:MAX_CORRELATION]))
    length = _HEAD.size + sum(map(len, chunks)) + _CHUNK.size + len(sight.payload)
    if length > MAX_PACKET:
        raise ValueError(f"a HEP packet of {length} bytes")
    return b"".join((_HEAD.pack(b"HEP3", length), *chunks, _chunk(_PAYLOAD, sight.payload)))


def _chunk(kind: int, value: bytes) -> bytes:
    return _CHUNK.pack(_GENERIC, kind, _CHUNK.size + len(value)) + value
