"""A message that has outgrown the next link goes out anew, in the name of its sender.

No router may fragment an IPv6 packet on its way (RFC 8200 section 5), and a phone that was told of
a smaller MTU could do nothing about what the gateway writes into its messages. So the router sends
the message itself, with the sender's address (IPV6_TRANSPARENT), and the kernel fragments what it
sends. The socket is a raw one, which needs no port that another program may have. The mark tells
the ruleset that such a packet is to be treated as the one in whose place it goes.
"""

from __future__ import annotations

import socket
import struct

from alg.io.transparent import transparent_socket
from alg.packet import Packet

_PACKET_INFO = struct.Struct("=16si")


def send_anew(packet: Packet, datagram: bytes, outgoing: int, mark: int) -> None:
    """Sends a UDP header with its payload in the place of an IPv6 packet; raises OSError.

    It leaves by the interface with the index `outgoing`, with the addresses, the traffic class and
    the hop limit of the packet.
    """
    source, destination = packet.source.address, packet.destination.address
    first_word = int.from_bytes(packet.raw[:4], "big")
    with transparent_socket(source, socket.SOCK_RAW, socket.IPPROTO_UDP) as sender:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, first_word >> 20 & 0xFF)
        sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, packet.raw[7])
        info = _PACKET_INFO.pack(socket.inet_pton(socket.AF_INET6, source), outgoing)
        ancillary = [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, info)]
        sender.sendmsg([datagram], ancillary, 0, (destination, 0))
