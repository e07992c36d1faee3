"""One packet: raw bytes from the queue, a decision, raw bytes.

If the kernel refuses what a message opens, the packet is dropped: SIP over UDP retransmits, so a
drop is a free retry.

An IPv6 packet that has grown may be too large for the next link, and is not fragmented on its way:
its message is sent anew (`alg.io.resend`) and the packet dropped.
"""

from __future__ import annotations

import logging
import os
import socket
import struct
from collections.abc import Callable
from typing import Final

from alg.daemon.decisions import Decisions
from alg.daemon.ledger import Ledger
from alg.datagram import Datagram, Side
from alg.gateway import Gateway
from alg.io.queue import Hold
from alg.io.resend import send_anew
from alg.packet import NotUdp, Packet, Truncated, decode_packet, encode_packet
from alg.verdict import Reason, Verdict
from rules.interfaces import mtu_of

log = logging.getLogger("sipnat")

MIN_MTU6: Final = 1280
"""What every IPv6 link carries (RFC 8200 section 5)."""

_UNCHANGED: Final = Verdict.UNCHANGED
_REWRITTEN: Final = Verdict.REWRITTEN
_HELD: Final = Verdict.HELD


class Sides(dict[int, Side]):
    """Which side each interface is on, by its index.

    What was looked up is kept until `forget`, because interfaces come and go.
    """

    def __init__(self, internal: tuple[str, ...], external: str) -> None:
        super().__init__()
        self._names = dict.fromkeys(internal, Side.INTERNAL) | {external: Side.EXTERNAL}

    def __missing__(self, index: int) -> Side:
        try:
            side = self._names.get(socket.if_indextoname(index), Side.OTHER)
        except OSError:
            side = Side.OTHER
        self[index] = side
        return side

    def forget(self) -> None:
        """Looks anew at every interface from now on."""
        self.clear()


class PacketPath:
    """What the queue calls for every packet."""

    def __init__(
        self, gateway: Gateway, ledger: Ledger, side_of: Callable[[int], Side], mark: int
    ) -> None:
        """Takes the engine, what commits its changes, and the side of an interface's index.

        `mark` is that of the packets that go to the queue.
        """
        self._gateway = gateway
        self._decisions = Decisions(gateway, ledger)
        self._side_of = side_of
        self._mark = mark
        self._identifications: list[int] = []

    def handle(self, raw: bytes, incoming: int, outgoing: int) -> bytes | None:
        """Decides about one packet: the bytes to send on, or None to drop it; raises Hold."""
        gateway = self._gateway
        try:
            packet = decode_packet(raw)
        except NotUdp:
            gateway.count(Reason.NOT_UDP)
            return raw
        except Truncated:
            gateway.count(Reason.TRUNCATED)
            return raw
        datagram = Datagram(
            packet.source,
            packet.destination,
            packet.payload,
            self._side_of(incoming),
            self._side_of(outgoing),
        )
        outcome = self._decisions.decide(datagram)
        verdict = outcome.verdict
        if verdict is _UNCHANGED:
            return raw
        if verdict is _REWRITTEN:
            return self._encode(packet, outcome.payload, outgoing)
        if verdict is _HELD:
            raise Hold(_counting(gateway, outcome.reason))
        return None

    def _encode(self, packet: Packet, payload: bytes, outgoing: int) -> bytes | None:
        """Returns what the packet becomes; None where its message has gone out anew."""
        raw = packet.raw
        if not self._identifications:
            self._identifications = list(struct.unpack("128H", os.urandom(256)))
        try:
            answer = encode_packet(packet, payload, self._identifications.pop())
            if raw[0] >> 4 == 4 or _fits(answer, raw, outgoing):
                return answer
            send_anew(packet, answer[packet.header_length :], outgoing, self._mark)
        except (ValueError, OSError) as error:
            log.debug("%s -> %s: %s", packet.source, packet.destination, error)
            self._gateway.count(Reason.TOO_LARGE)
            return raw
        return None


def _counting(gateway: Gateway, reason: Reason) -> Callable[[], None]:
    return lambda: gateway.count(reason)


def _fits(packet: bytes, before: bytes, outgoing: int) -> bool:
    """Tells whether an IPv6 packet can leave by an interface; raises OSError if that is gone.

    What was larger already came in fragments, and leaves in fragments.
    """
    if len(packet) <= max(len(before), MIN_MTU6):
        return True
    mtu = mtu_of(outgoing)
    return len(packet) <= mtu or len(before) > mtu
