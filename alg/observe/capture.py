"""Captures read again: pcap and pcapng files to datagrams and stretches of TCP streams.

    capture = Capture(path)
    for arrival in capture:
        ...
    capture.skipped      what was in the file and is not among the arrivals, by name

Order is the file's. A file that is damaged or ends in the middle gives all that can be read of it,
and then one CaptureError; a frame that makes no sense is counted and skipped.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

import dpkt

from alg.observe.frame import IpPacket, Skipped, decode_frame
from alg.observe.reassembly import Chunk, Defragmenter, TcpStreams, decode_tcp
from nat_table.endpoint import Endpoint, Transport

MAX_BLOCK = 16 << 20

_PCAP_MAGICS = {struct.pack(">I", magic) for magic in dpkt.pcap.MAGIC_TO_PKT_HDR}
_PCAPNG_MAGIC = struct.pack(">I", dpkt.pcapng.PCAPNG_BT_SHB)
_UDP = struct.Struct("!HHHH")


class CaptureError(Exception):
    """A file cannot be read, or not to its end; the text is one sentence for the user."""


class Arrival(NamedTuple):
    """A datagram, or the next octets of a TCP stream, at `time` (seconds since 1970).

    `stream` numbers the streams of a file, one for each direction of a connection, and is 0 for a
    datagram; `is_end` says that the stream has no more. `is_truncated` says that the datagram was
    longer than what was captured.
    """

    time: float
    transport: Transport
    source: Endpoint
    destination: Endpoint
    payload: bytes
    stream: int = 0
    is_end: bool = False
    is_truncated: bool = False


class Frame(NamedTuple):
    """A frame as captured: seconds since 1970, the link type's number, the bytes."""

    time: float
    link_type: int
    data: bytes


def is_capture(head: bytes) -> bool:
    """Whether the first bytes of a file are those of a pcap or pcapng file."""
    return head[:4] in _PCAP_MAGICS or head[:4] == _PCAPNG_MAGIC


class Capture:
    """The arrivals of one file, once; `skipped` counts the rest by what it is."""

    def __init__(self, path: Path) -> None:
        self.skipped: Counter[str] = Counter()
        self._path = path
        self._fragments = Defragmenter()
        self._streams = TcpStreams()

    def __iter__(self) -> Iterator[Arrival]:
        """Yields what arrives, in the file's order; raises CaptureError at damage."""
        time = 0.0
        fault: Exception | None = None
        count = 0
        try:
            with self._path.open("rb") as file:
                for time, link_type, data in _read_frames(file):
                    count += 1
                    yield from self._decode(time, link_type, data)
        except OSError as error:
            raise CaptureError(f"{self._path}: cannot be read: {error.strerror}") from error
        except (ValueError, struct.error, dpkt.Error) as error:
            fault = error
        for chunk in self._streams.finish():
            yield _arrival(time, chunk)
        self._fragments.finish()
        self._count_losses()
        if fault is not None:
            where = f"after frame {count}" if count else "at its head"
            raise CaptureError(f"{self._path}: the capture is cut or damaged {where}") from fault

    def _decode(self, time: float, link_type: int, data: bytes) -> Iterator[Arrival]:
        try:
            packet = self._fragments.add(decode_frame(link_type, data), time)
            if packet is None:
                return
            if packet.protocol == Transport.UDP.value:
                yield _datagram(time, packet)
            elif packet.protocol == Transport.TCP.value:
                for chunk in self._streams.add(decode_tcp(packet)):
                    yield _arrival(time, chunk)
            else:
                raise Skipped("neither UDP nor TCP")
        except Skipped as skipped:
            self.skipped[str(skipped)] += 1
        except struct.error:
            self.skipped["too short for their headers"] += 1

    def _count_losses(self) -> None:
        if self._fragments.incomplete:
            self.skipped["fragmented and incomplete"] += self._fragments.incomplete
        if self._streams.lost:
            self.skipped["bytes of TCP after a gap"] += self._streams.lost


def _arrival(time: float, chunk: Chunk) -> Arrival:
    return Arrival(
        time,
        Transport.TCP,
        chunk.source,
        chunk.destination,
        chunk.data,
        chunk.stream,
        chunk.is_end,
    )


def _datagram(time: float, packet: IpPacket) -> Arrival:
    """Decodes UDP (RFC 768); raises struct.error where the header is not whole."""
    source, destination, length, _ = _UDP.unpack_from(packet.payload)
    return Arrival(
        time,
        Transport.UDP,
        Endpoint(packet.source, source),
        Endpoint(packet.destination, destination),
        packet.payload[_UDP.size :],
        is_truncated=packet.missing > 0 or length != len(packet.payload),
    )


def _read_frames(file: IO[bytes]) -> Iterator[Frame]:
    """Yields the frames of a file; raises ValueError, struct.error or dpkt.Error at damage."""
    magic = file.read(4)
    file.seek(0)
    if magic == _PCAPNG_MAGIC:
        yield from _read_pcapng(file)
        return
    reader = dpkt.pcap.Reader(_WholeReads(file))
    link_type = reader.datalink() & 0xFFFF
    for time, data in reader:
        yield Frame(float(time), link_type, data)


class _WholeReads:
    """A file for dpkt, which takes what it gets: less than it asked for, or all the memory."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int) -> bytes:
        if size > MAX_BLOCK:
            raise ValueError(f"a frame of {size} bytes")
        data = self._file.read(size)
        if 0 < len(data) < size:
            raise ValueError("a frame is cut")
        return data


class _Interface(NamedTuple):
    """An interface of a pcapng section: its link type, and how its clock counts."""

    link_type: int
    ticks: float
    offset: int


def _read_pcapng(file: IO[bytes]) -> Iterator[Frame]:
    """Yields the frames of every section and interface (dpkt's reader knows one of each)."""
    order = "<"
    interfaces: list[_Interface] = []
    time = 0.0
    while head := file.read(8):
        if head[:4] == _PCAPNG_MAGIC:
            head += file.read(4)
            order = "<" if head[8:] == struct.pack("<I", dpkt.pcapng.BYTE_ORDER_MAGIC) else ">"
            interfaces = []
        kind, length = struct.unpack_from(f"{order}II", head)
        if not 12 <= length <= MAX_BLOCK or length % 4:
            raise ValueError(f"a block of {length} bytes")
        rest = file.read(length - len(head))
        if len(rest) != length - len(head):
            raise ValueError("a block is cut")
        block = (head + rest)[8:-4]
        if kind == dpkt.pcapng.PCAPNG_BT_IDB:
            interfaces.append(_read_interface(order, block))
        elif kind in (dpkt.pcapng.PCAPNG_BT_EPB, dpkt.pcapng.PCAPNG_BT_PB):
            is_old = kind == dpkt.pcapng.PCAPNG_BT_PB
            number, high, low, size = struct.unpack_from(
                f"{order}HxxIII" if is_old else f"{order}IIII", block
            )
            interface = _at(interfaces, number)
            time = interface.offset + (high << 32 | low) / interface.ticks
            yield Frame(time, interface.link_type, block[20 : 20 + size])
        elif kind == dpkt.pcapng.PCAPNG_BT_SPB:  # without a time: the one before stands
            (size,) = struct.unpack_from(f"{order}I", block)
            yield Frame(time, _at(interfaces, 0).link_type, block[4 : 4 + size])


def _at(interfaces: list[_Interface], number: int) -> _Interface:
    if number >= len(interfaces):
        raise ValueError(f"interface {number} is not described")
    return interfaces[number]


def _read_interface(order: str, block: bytes) -> _Interface:
    """Reads an Interface Description Block: options if_tsresol and if_tsoffset."""
    (link_type,) = struct.unpack_from(f"{order}H", block)
    ticks, offset, position = 1e6, 0, 8
    while position + 4 <= len(block):
        code, size = struct.unpack_from(f"{order}HH", block, position)
        value = block[position + 4 : position + 4 + size]
        if code == dpkt.pcapng.PCAPNG_OPT_ENDOFOPT:
            break
        if code == dpkt.pcapng.PCAPNG_OPT_IF_TSRESOL and value:
            ticks = float((2 if value[0] & 0x80 else 10) ** (value[0] & 0x7F))
        elif code == dpkt.pcapng.PCAPNG_OPT_IF_TSOFFSET and size == 8:
            (offset,) = struct.unpack(f"{order}q", value)
        position += 4 + size + -size % 4
    return _Interface(link_type, ticks, offset)
