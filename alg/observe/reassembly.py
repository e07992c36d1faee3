"""IP fragments to packets, TCP segments to streams: all that a capture shows in pieces.

A capture is not a connection: it may begin in the middle, lose packets, hold them twice or in
another order, and nobody sends them again. What cannot be completed is given up and counted, never
guessed at. Whatever is held waiting is bounded, in number and in bytes.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from alg.observe.frame import IpPacket
from nat_table.endpoint import Endpoint

MAX_DATAGRAMS = 1024
MAX_DATAGRAM = 65535
FRAGMENT_TIMEOUT = 60.0
MAX_STREAMS = 65536
MAX_BYTES_AHEAD = 1 << 20
MAX_SEGMENTS_AHEAD = 1024

_FIN, _SYN, _RST = 0x01, 0x02, 0x04
_TCP = struct.Struct("!HHIIBBHHH")

FragmentKey = tuple[str, str, int, int]


class _Fragments:
    """The fragments of one packet so far; `total` is known when the last one is there."""

    __slots__ = ("began_at", "parts", "total")

    def __init__(self, began_at: float) -> None:
        self.began_at = began_at
        self.parts: dict[int, bytes] = {}
        self.total: int | None = None


class Defragmenter:
    """Puts fragments together (RFC 791 §3.2, RFC 8200 §4.5); those that overlap are dropped."""

    def __init__(self) -> None:
        self.incomplete = 0
        self._waiting: dict[FragmentKey, _Fragments] = {}

    def add(self, packet: IpPacket, now: float) -> IpPacket | None:
        """Takes a packet; returns a whole one, or None while fragments are missing."""
        if packet.identification is None or (packet.offset == 0 and not packet.has_more):
            return packet
        key = (packet.source, packet.destination, packet.protocol, packet.identification)
        self._let_go(now)
        waiting = self._waiting.get(key)
        if waiting is None:
            waiting = self._waiting[key] = _Fragments(now)
        if not _insert(waiting, packet):
            del self._waiting[key]
            self.incomplete += 1
            return None
        if waiting.total is None or sum(map(len, waiting.parts.values())) < waiting.total:
            return None
        del self._waiting[key]
        payload = b"".join(data for _, data in sorted(waiting.parts.items()))
        return packet._replace(payload=payload, identification=None, offset=0, has_more=False)

    def finish(self) -> None:
        """Counts what never became whole."""
        self.incomplete += len(self._waiting)
        self._waiting.clear()

    def _let_go(self, now: float) -> None:
        """Drops the oldest ones where there are too many, and those whose time is over."""
        while self._waiting:
            oldest = next(iter(self._waiting))
            is_over = now - self._waiting[oldest].began_at > FRAGMENT_TIMEOUT
            if not is_over and len(self._waiting) < MAX_DATAGRAMS:
                return
            del self._waiting[oldest]
            self.incomplete += 1


def _insert(waiting: _Fragments, packet: IpPacket) -> bool:
    """Adds a fragment; False where the packet cannot be put together any more."""
    data, offset = packet.payload, packet.offset
    end = offset + len(data)
    if packet.missing or end > MAX_DATAGRAM or (packet.has_more and len(data) % 8):
        return False
    if waiting.parts.get(offset) == data:
        return True
    if any(start < end and offset < start + len(part) for start, part in waiting.parts.items()):
        return False
    if not packet.has_more:
        if waiting.total is not None:
            return False
        waiting.total = end
    waiting.parts[offset] = data
    return waiting.total is None or all(
        start + len(part) <= waiting.total for start, part in waiting.parts.items()
    )


class TcpSegment(NamedTuple):
    """A TCP segment; `is_cut` says that the capture does not hold all of it."""

    source: Endpoint
    destination: Endpoint
    sequence: int
    flags: int
    data: bytes
    is_cut: bool


def decode_tcp(packet: IpPacket) -> TcpSegment:
    """Decodes the TCP header (RFC 9293 §3.1); raises struct.error where it is not whole."""
    source, destination, sequence, _, offset, flags, _, _, _ = _TCP.unpack_from(packet.payload)
    start = (offset >> 4) * 4
    if not _TCP.size <= start <= len(packet.payload):
        raise struct.error("data offset")
    return TcpSegment(
        Endpoint(packet.source, source),
        Endpoint(packet.destination, destination),
        sequence,
        flags,
        packet.payload[start:],
        packet.missing > 0,
    )


class Chunk(NamedTuple):
    """The next octets of one direction of a connection; `is_end` says that none will follow.

    `stream` is the same for all chunks of one direction of one connection, and nobody else's.
    """

    stream: int
    source: Endpoint
    destination: Endpoint
    data: bytes
    is_end: bool


class _Stream:
    """One direction of a connection: the sequence number expected next, and what came early."""

    __slots__ = ("ahead", "ends_at", "is_over", "next", "number", "start")

    def __init__(self, number: int, start: int) -> None:
        self.number = number
        self.start = start
        self.next = start
        self.ends_at: int | None = None
        self.is_over = False
        self.ahead: dict[int, bytes] = {}


class TcpStreams:
    """Puts segments in order. A stream without its SYN begins at the first segment seen of it."""

    def __init__(self) -> None:
        self.lost = 0
        self._streams: dict[tuple[Endpoint, Endpoint], _Stream] = {}
        self._count = 0

    def add(self, segment: TcpSegment) -> list[Chunk]:
        """Takes a segment; returns the chunks that it completes, of its own stream or an old one.

        A stream whose gap is not filled before too much has come ahead is over: what follows is
        only counted, in `lost`, for nobody could say where in a message it stands.
        """
        key = (segment.source, segment.destination)
        stream = self._streams.get(key)
        chunks: list[Chunk] = []
        start = (segment.sequence + bool(segment.flags & _SYN)) % 2**32
        if stream is not None and segment.flags & _SYN and start != stream.start:
            chunks += self._end(key, stream)
            stream = None
        if stream is None:
            if segment.flags & _RST or not (segment.data or segment.flags & _SYN):
                return chunks
            if len(self._streams) >= MAX_STREAMS:
                oldest = next(iter(self._streams))
                chunks += self._end(oldest, self._streams[oldest])
            self._count += 1
            stream = self._streams[key] = _Stream(self._count, start)
        if segment.flags & _RST:
            return chunks + self._end(key, stream, is_kept=True)
        if segment.flags & _FIN and stream.ends_at is None:
            stream.ends_at = (start + len(segment.data)) % 2**32
        return chunks + self._deliver(key, stream, start, segment)

    def finish(self) -> list[Chunk]:
        """Ends every stream; returns their last chunks."""
        return [
            chunk for key, stream in list(self._streams.items()) for chunk in self._end(key, stream)
        ]

    def _deliver(
        self, key: tuple[Endpoint, Endpoint], stream: _Stream, start: int, segment: TcpSegment
    ) -> list[Chunk]:
        if stream.is_over:
            self.lost += len(segment.data) if _distance(stream.next, start) >= 0 else 0
            return []
        if len(segment.data) > len(stream.ahead.get(start, b"")):
            stream.ahead[start] = segment.data
        data = _take(stream)
        chunks = [Chunk(stream.number, *key, data, False)] if data else []
        is_past_gap = (
            len(stream.ahead) > MAX_SEGMENTS_AHEAD
            or sum(map(len, stream.ahead.values())) > MAX_BYTES_AHEAD
        )
        if segment.is_cut or is_past_gap or stream.next == stream.ends_at:
            chunks += self._end(key, stream, is_kept=True)
        return chunks

    def _end(
        self, key: tuple[Endpoint, Endpoint], stream: _Stream, *, is_kept: bool = False
    ) -> list[Chunk]:
        """Ends a stream; it is kept where retransmissions may follow that must not begin anew."""
        if not is_kept:
            del self._streams[key]
        if stream.is_over:
            return []
        stream.is_over = True
        self.lost += sum(map(len, stream.ahead.values()))
        stream.ahead.clear()
        return [Chunk(stream.number, *key, b"", True)]


def _take(stream: _Stream) -> bytes:
    """Returns what is in order by now, each octet once (RFC 9293 §3.4, sequence numbers wrap)."""
    taken: list[bytes] = []
    for start in sorted(stream.ahead, key=lambda start: _distance(stream.next, start)):
        early = _distance(stream.next, start)
        if early > 0:
            break
        data = stream.ahead.pop(start)[-early:]
        taken.append(data)
        stream.next = (stream.next + len(data)) % 2**32
    return b"".join(taken)


def _distance(sequence: int, other: int) -> int:
    """Returns how far `other` is ahead of `sequence`, negative where it is behind."""
    return (other - sequence + 2**31) % 2**32 - 2**31
