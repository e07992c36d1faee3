"""One packet: raw bytes from the queue, a decision, raw bytes.

If the kernel refuses what a message opens, the packet is dropped: SIP over UDP retransmits, so a
drop is a free retry.

An IPv6 packet that has grown may be too large for the next link, and is not fragmented on its way:
its message is sent anew (`alg.io.resend`) and the packet dropped.
"""

from __future__ import annotations

import logging
import random
import socket
from collections.abc import Callable

from alg.daemon.decisions import Decisions
from alg.daemon.ledger import Ledger
from alg.datagram import Datagram, Side
from alg.gateway import Gateway
from alg.io.queue import Hold
from alg.io.resend import send_anew
from alg.packet import NotUdp, Truncated, decode_packet, encode_packet
from alg.verdict import Reason, Verdict
from nat_table.endpoint import is_ipv6
from rules.interfaces import mtu_of

log = logging.getLogger("sipnat")

MIN_MTU6 = 1280
"""What every IPv6 link carries (RFC 8200 section 5)."""


class Sides:
    """Which side each interface is on, by its index; a cache, because interfaces come and go."""

    def __init__(self, internal: tuple[str, ...], external: str) -> None:
        self._names = dict.fromkeys(internal, Side.INTERNAL) | {external: Side.EXTERNAL}
        self._sides: dict[int, Side] = {}

    def of(self, index: int) -> Side:
        """Returns the side of the interface with this index."""
        side = self._sides.get(index)
        if side is None:
            side = self._sides[index] = self._look_up(index)
        return side

    def forget(self) -> None:
        """Looks anew at every interface from now on."""
        self._sides.clear()

    def _look_up(self, index: int) -> Side:
        try:
            return self._names.get(socket.if_indextoname(index), Side.OTHER)
        except OSError:
            return Side.OTHER


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
        self._random = random.SystemRandom()

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
        sides = self._side_of(incoming), self._side_of(outgoing)
        outcome = self._decisions.decide(
            Datagram(packet.source, packet.destination, packet.payload, *sides)
        )
        if outcome.verdict is Verdict.HELD:
            raise Hold(lambda: gateway.count(outcome.reason))
        if outcome.verdict is Verdict.DROPPED:
            return None
        if outcome.verdict is Verdict.UNCHANGED:
            return raw
        try:
            answer = encode_packet(packet, outcome.payload, self._random.getrandbits(16))
            if not is_ipv6(packet.source.address) or _fits(answer, raw, outgoing):
                return answer
            send_anew(packet, answer[packet.header_length :], outgoing, self._mark)
        except (ValueError, OSError) as error:
            log.debug("%s -> %s: %s", packet.source, packet.destination, error)
            gateway.count(Reason.TOO_LARGE)
            return raw
        return None


def _fits(packet: bytes, before: bytes, outgoing: int) -> bool:
    """Tells whether an IPv6 packet can leave by an interface; raises OSError if that is gone.

    What was larger already came in fragments, and leaves in fragments.
    """
    if len(packet) <= max(len(before), MIN_MTU6):
        return True
    mtu = mtu_of(outgoing)
    return len(packet) <= mtu or len(before) > mtu
