"""What stands on the wire: IP packets as they come by, fragments as they are sent, offloads.

Sockets hide all of it: they put fragments together and leave checksums to the interface.
"""

from __future__ import annotations

import fcntl
import socket
import struct
from array import array
from collections.abc import Iterator
from contextlib import contextmanager

from scapy.layers.inet import IP, UDP, fragment
from scapy.packet import Raw

from nat_table.endpoint import Endpoint
from tests.lab.namespace import Namespace, address_family

ETH_P_IP = 0x0800
ETHERNET_HEADER = 14
FRAGMENT_SIZE = 1480
SIOCETHTOOL = 0x8946
# linux/ethtool.h: ETHTOOL_SRXCSUM, ETHTOOL_STXCSUM, ETHTOOL_SSG, ETHTOOL_SGSO
OFFLOADS = (0x15, 0x17, 0x19, 0x24)
QUIET = 0.2


@contextmanager
def sniffing(namespace: Namespace, interface: str = "eth0") -> Iterator[socket.socket]:
    """Yields a socket for whatever IP packets come in by an interface, from now on."""

    def listen() -> socket.socket:
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_IP))
        raw.bind((interface, ETH_P_IP))
        raw.settimeout(QUIET)
        return raw

    with namespace.call(listen) as raw:
        yield raw


def packets_to(sniffer: socket.socket, target: Endpoint) -> list[IP]:
    """Returns the packets for an address that have come by, until none comes any more."""
    found: list[IP] = []
    while True:
        try:
            frame = sniffer.recv(1 << 16)
        except TimeoutError:
            return found
        packet = IP(frame[ETHERNET_HEADER:])
        if packet.dst == target.address:
            found.append(packet)


def has_right_checksums(packet: IP) -> bool:
    """Tells whether IP and UDP checksum of a whole datagram are what they must be."""
    again = IP(bytes(packet))
    del again.chksum, again[UDP].chksum
    return bytes(again) == bytes(packet)


def fragments(
    payload: bytes, source: Endpoint, target: Endpoint, flags: str, identification: int
) -> list[bytes]:
    """Returns a datagram as IP fragments, each with these flags."""
    ends = IP(src=source.address, dst=target.address, id=identification, flags=flags)
    whole = ends / UDP(sport=source.port, dport=target.port) / Raw(payload)
    cut: list[IP] = fragment(whole, FRAGMENT_SIZE)  # type: ignore[no-untyped-call]
    return [bytes(each) for each in cut]


def send_raw(namespace: Namespace, packets: list[bytes], target: Endpoint) -> None:
    """Sends whole IP packets, in this order."""
    family = address_family(target.address)
    raw = namespace.call(lambda: socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW))
    with raw:
        for packet in packets:
            raw.sendto(packet, (target.address, 0))


def set_offloads(namespace: Namespace, interface: str, *, is_on: bool) -> None:
    """Has the interface compute checksums and cut large packets by itself, or not."""

    def switch() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            for command in OFFLOADS:
                value = array("B", struct.pack("=II", command, is_on))
                request = struct.pack("16sP16x", interface.encode(), value.buffer_info()[0])
                fcntl.ioctl(any_socket, SIOCETHTOOL, request)

    namespace.call(switch)
