"""Captures written for tests: packets by scapy, files by dpkt or byte by byte."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

import dpkt
from scapy.layers.inet import IP, TCP, UDP, fragment
from scapy.layers.inet6 import IPv6, fragment6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from nat_table.endpoint import Endpoint, parse_endpoint

ETHERNET, RAW, COOKED, COOKED_2 = 1, 101, 113, 276
TIME = 1_700_000_000.0


def ip(source: Endpoint, destination: Endpoint) -> Packet:
    """Returns the IP header of the endpoints' family."""
    family = IPv6 if ":" in source.address else IP
    return family(src=source.address, dst=destination.address)


def udp(source: str, destination: str, payload: bytes) -> Packet:
    """Returns a UDP packet between endpoints written as text."""
    near, far = parse_endpoint(source), parse_endpoint(destination)
    return ip(near, far) / UDP(sport=near.port, dport=far.port) / Raw(payload)


def tcp(source: str, destination: str, sequence: int, payload: bytes, flags: str = "A") -> Packet:
    """Returns a TCP segment between endpoints written as text."""
    near, far = parse_endpoint(source), parse_endpoint(destination)
    header = TCP(sport=near.port, dport=far.port, seq=sequence % 2**32, flags=flags)
    return ip(near, far) / header / Raw(payload)


def ethernet(kind: int | None = None) -> Packet:
    """Returns an Ethernet header; its EtherType follows from what comes behind it."""
    macs = "02:00:00:00:00:01", "02:00:00:00:00:02"
    if kind is None:
        return Ether(src=macs[0], dst=macs[1])
    return Ether(src=macs[0], dst=macs[1], type=kind)


def fragments(packet: Packet, size: int) -> list[Packet]:
    """Returns an IP packet in fragments; an IPv6 packet has its fragment header already."""
    if IPv6 in packet:
        parts = fragment6(packet, size)  # type: ignore[no-untyped-call]
    else:
        parts = fragment(IP(bytes(packet)), fragsize=size)  # type: ignore[no-untyped-call]
    return list(parts)


def write_pcap(
    path: Path, frames: Iterable[Packet | bytes], link_type: int = RAW, interval: float = 1.0
) -> Path:
    """Writes frames, `interval` seconds apart from TIME on; returns the path."""
    with path.open("wb") as file:
        writer = dpkt.pcap.Writer(file, linktype=link_type, snaplen=65535)
        for number, frame in enumerate(frames):
            writer.writepkt(bytes(frame), TIME + number * interval)
    return path


def pcapng(
    interfaces: Sequence[tuple[int, int]], frames: Iterable[tuple[int, int, bytes]], order: str
) -> bytes:
    """Encodes a pcapng section of (link type, if_tsresol) and (interface, ticks, frame)."""
    blocks = [_block(order, 0x0A0D0D0A, struct.pack(f"{order}IHHq", 0x1A2B3C4D, 1, 0, -1))]
    for link_type, resolution in interfaces:
        option = struct.pack(f"{order}HHB3xHH", 9, 1, resolution, 0, 0)
        blocks.append(_block(order, 1, struct.pack(f"{order}HHI", link_type, 0, 65535) + option))
    blocks.append(_block(order, 0x0BAD, b"of somebody's"))
    for interface, ticks, frame in frames:
        size = len(frame)
        head = struct.pack(f"{order}IIIII", interface, ticks >> 32, ticks % 2**32, size, size)
        comment = struct.pack(f"{order}HH4sHH", 1, 4, b"\xff\xfe\xfd\xfc", 0, 0)
        blocks.append(_block(order, 6, head + frame + bytes(-size % 4) + comment))
    return b"".join(blocks)


def simple_packet(order: str, frame: bytes) -> bytes:
    """Encodes a pcapng Simple Packet Block."""
    return _block(order, 3, struct.pack(f"{order}I", len(frame)) + frame)


def _block(order: str, kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    length = struct.pack(f"{order}I", len(body) + 12)
    return struct.pack(f"{order}I", kind) + length + body + length
