"""One packet: raw bytes from the queue, an outcome, its changes into the kernel, raw bytes.

The changes are in the kernel before the packet leaves. If the kernel refuses them the table is put
back and the packet dropped: SIP over UDP retransmits, so a drop is a free retry.
"""

from __future__ import annotations

import logging
import random
import socket
from collections.abc import Callable

from alg.daemon.ledger import Ledger
from alg.datagram import Datagram, Side
from alg.gateway import Gateway
from alg.io.clock import now
from alg.packet import NotUdp, Truncated, decode_packet, encode_packet
from alg.verdict import Reason, Verdict
from rules.backend import CommitFailed

log = logging.getLogger("sipnat")

LIMITS = {Reason.NO_FREE_PORT, Reason.QUOTA, Reason.RATE}
LIMIT_INTERVAL = 10.0


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

    def __init__(self, gateway: Gateway, ledger: Ledger, side_of: Callable[[int], Side]) -> None:
        """Takes the engine, what commits its changes, and the side of an interface's index."""
        self._gateway = gateway
        self._ledger = ledger
        self._side_of = side_of
        self._random = random.SystemRandom()
        self._next_warning = 0.0

    def handle(self, raw: bytes, incoming: int, outgoing: int) -> bytes | None:
        """Decides about one packet: the bytes to send on, or None to drop it."""
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
        moment = now()
        outcome = gateway.receive(
            Datagram(packet.source, packet.destination, packet.payload, *sides), moment
        )
        if outcome.reason in LIMITS and moment >= self._next_warning:
            self._next_warning = moment + LIMIT_INTERVAL
            log.warning(
                "a message passes as it came, so its call may lack audio: %s", outcome.detail
            )
        if outcome.changes:
            try:
                self._ledger.commit(outcome.changes)
            except CommitFailed as error:
                log.warning("the kernel refused a mapping, the packet is dropped: %s", error)
                outcome = gateway.roll_back(outcome)
            else:
                gateway.confirm(outcome)
        log.debug("%s -> %s %s", packet.source, packet.destination, outcome.reason.value)
        if outcome.verdict is Verdict.DROPPED:
            return None
        if outcome.verdict is Verdict.UNCHANGED:
            return raw
        try:
            return encode_packet(packet, outcome.payload, self._random.getrandbits(16))
        except ValueError:
            gateway.count(Reason.TOO_LARGE)
            return raw
