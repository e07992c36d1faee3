"""A trace as a capture file (pcapng): each message twice, as it came and as it left.

The file has two interfaces, the internal and the external side, and a comment for each packet. Both
packets of a message have one number (`epb_packetid`). Headers are made anew, for what was captured
are messages; Ethernet's too, because libpcap takes no second interface without. A message of a TCP
stream is a segment of its own, in sequence with those before it, so that readers take the streams
apart as they do with real ones.
"""

from __future__ import annotations

import base64
import socket
import struct
from collections.abc import Mapping
from typing import NamedTuple

import dpkt
from dpkt import pcapng

from alg.observe.printable import printable
from nat_table.endpoint import Endpoint, is_ipv6, parse_endpoint

Row = Mapping[str, object]

GATEWAY, OTHER = b"\x02sip\0\1", b"\x02sip\0\2"
"""Addresses of Ethernet that nobody has: the gateway's, and whoever it is on either side."""

SNAPLEN = 1 << 18
MAX_DATAGRAM = 65507
MAX_SEGMENT = 65000
MAX_STREAMS = 10_000
MAX_COMMENT = 2000

_IF_NAME, _IF_DESCRIPTION = pcapng.PCAPNG_OPT_IF_NAME, pcapng.PCAPNG_OPT_IF_DESCRIPTION
_EPB_FLAGS, _EPB_PACKET_ID = 2, 5
_INBOUND, _OUTBOUND = 1, 2

_SIDES = {
    "outbound": (0, 1),
    "inbound": (1, 0),
    "hairpin": (0, 0),
}
"""The interfaces by which a message comes and leaves."""


class _Leg(NamedTuple):
    """A message on one side of the gateway."""

    interface: int
    flags: int
    time: float
    source: Endpoint
    destination: Endpoint
    payload: bytes
    comment: str


class CaptureWriter:
    """Renders the blocks of one file: a head, then those of each message."""

    def __init__(self, internal: str, external: str) -> None:
        """Takes the names of the interfaces on either side."""
        self._names = internal, external
        self._sequence: dict[tuple[int, Endpoint, Endpoint], int] = {}

    def head(self) -> bytes:
        """Renders what the file begins with."""
        section = pcapng.SectionHeaderBlockLE(
            opts=_options((pcapng.PCAPNG_OPT_SHB_USERAPPL, b"sipnat trace"))
        )
        blocks = [section]
        for name, side in zip(self._names, ("internal", "external"), strict=True):
            description = f"{side} side of sipnat"
            options = _options((_IF_NAME, name.encode()), (_IF_DESCRIPTION, description.encode()))
            blocks.append(
                pcapng.InterfaceDescriptionBlockLE(
                    linktype=pcapng.DLT_EN10MB, snaplen=SNAPLEN, opts=options
                )
            )
        return b"".join(map(bytes, blocks))

    def message(self, row: Row) -> bytes:
        """Renders a message, from its row with `before` and `after`."""
        identity = struct.pack("<Q", row["number"])
        return b"".join(
            _packet_block(packet, leg, identity)
            for leg in _legs(row)
            for packet in self._packets(leg, is_tcp=row["transport"] == "tcp")
        )

    def _packets(self, leg: _Leg, *, is_tcp: bool) -> list[bytes]:
        if not is_tcp:
            udp = dpkt.udp.UDP(sport=leg.source.port, dport=leg.destination.port)
            udp.data = leg.payload[:MAX_DATAGRAM]
            udp.ulen = len(udp)
            return [_frame(leg, udp)]
        return [
            self._segment(leg, leg.payload[start : start + MAX_SEGMENT])
            for start in range(0, len(leg.payload), MAX_SEGMENT)
        ]

    def _segment(self, leg: _Leg, octets: bytes) -> bytes:
        way = leg.interface, leg.source, leg.destination
        back = leg.interface, leg.destination, leg.source
        sequence = self._sequence.pop(way, 1)
        self._sequence[way] = sequence + len(octets) & 0xFFFFFFFF
        if len(self._sequence) > MAX_STREAMS:
            del self._sequence[next(iter(self._sequence))]
        tcp = dpkt.tcp.TCP(
            sport=leg.source.port,
            dport=leg.destination.port,
            seq=sequence,
            ack=self._sequence.get(back, 1),
            flags=dpkt.tcp.TH_PUSH | dpkt.tcp.TH_ACK,
            win=65535,
            data=octets,
        )
        return _frame(leg, tcp)


def _legs(row: Row) -> list[_Leg]:
    """Returns a message as it came, and as it left where it did."""
    time, took, edits = row["time"], row["took"], row["edits"]
    assert isinstance(time, float | int) and isinstance(took, int) and isinstance(edits, list)
    came_by, left_by = _SIDES.get(str(row["direction"]), (1, 1))
    verdict, reason = str(row["verdict"]), str(row["reason"])
    outcome = verdict if reason == verdict else f"{verdict} ({reason})"
    before = _Leg(
        came_by,
        _INBOUND,
        time,
        parse_endpoint(str(row["source"])),
        parse_endpoint(str(row["destination"])),
        base64.b64decode(str(row["before"])),
        f"message {row['number']} as it came, {row['direction']}: {outcome}",
    )
    if row["left_source"] is None:
        return [before]
    changed = "".join(f"\n{each['what']}: {each['old']} -> {each['new']}" for each in edits)
    after = _Leg(
        left_by,
        _OUTBOUND,
        time + took / 1e6,
        parse_endpoint(str(row["left_source"])),
        parse_endpoint(str(row["left_destination"])),
        base64.b64decode(str(row["after"])),
        f"message {row['number']} as it left{changed}",
    )
    return [before, after]


def _packet_block(packet: bytes, leg: _Leg, identity: bytes) -> bytes:
    microseconds = round(leg.time * 1e6)
    lines = [printable(line) for line in leg.comment.split("\n")]
    options = _options(
        (pcapng.PCAPNG_OPT_COMMENT, "\n".join(lines)[:MAX_COMMENT].encode()),
        (_EPB_FLAGS, struct.pack("<I", leg.flags)),
        (_EPB_PACKET_ID, identity),
    )
    block = pcapng.EnhancedPacketBlockLE(
        iface_id=leg.interface,
        ts_high=microseconds >> 32,
        ts_low=microseconds & 0xFFFFFFFF,
        pkt_data=packet,
        opts=options,
    )
    return bytes(block)


def _options(*values: tuple[int, bytes]) -> list[pcapng.PcapngOptionLE]:
    options = [pcapng.PcapngOptionLE(code=code, data=data) for code, data in values]
    return [*options, pcapng.PcapngOptionLE()]


def _frame(leg: _Leg, inner: dpkt.Packet) -> bytes:
    """Returns an IP packet in a frame; dpkt reckons the checksums, UDP's and TCP's too."""
    source, destination = leg.source, leg.destination
    protocol = dpkt.ip.IP_PROTO_TCP if isinstance(inner, dpkt.tcp.TCP) else dpkt.ip.IP_PROTO_UDP
    if is_ipv6(source.address):
        packed = [socket.inet_pton(socket.AF_INET6, each.address) for each in (source, destination)]
        ip = dpkt.ip6.IP6(src=packed[0], dst=packed[1], nxt=protocol, hlim=64, plen=len(inner))
    else:
        packed = [socket.inet_aton(each.address) for each in (source, destination)]
        ip = dpkt.ip.IP(src=packed[0], dst=packed[1], p=protocol)
    ip.data = inner
    ends = (OTHER, GATEWAY) if leg.flags == _INBOUND else (GATEWAY, OTHER)
    kind = dpkt.ethernet.ETH_TYPE_IP6 if is_ipv6(source.address) else dpkt.ethernet.ETH_TYPE_IP
    return bytes(dpkt.ethernet.Ethernet(src=ends[0], dst=ends[1], type=kind, data=ip))
