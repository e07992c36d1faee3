"""Packets from the kernel and back (NFQUEUE), through the netfilterqueue library.

The library caps the copy range at 4,016 bytes and cannot ask for fail-open, so both are set by two
NFQNL_MSG_CONFIG messages on its own socket after it has bound the queue, and it is driven through
`run_socket` with a reader that takes a whole datagram whatever size it asks for. Packets up to
65,531 bytes then arrive whole.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import struct
from collections.abc import Callable
from typing import cast

from netfilterqueue import COPY_PACKET, NetfilterQueue, Packet

from alg.io.backlog import Backlog
from alg.io.clock import now

log = logging.getLogger("sipnat.queue")

# linux/netfilter/nfnetlink.h, nfnetlink_queue.h
_NFNL_SUBSYS_QUEUE = 3
_NFQNL_MSG_CONFIG = 2
_NLM_F_REQUEST = 1
_NFQA_CFG_PARAMS = 2
_NFQA_CFG_MASK = 4
_NFQA_CFG_FLAGS = 5
_NFQA_CFG_F_FAIL_OPEN = 1
_COPY_RANGE = 0xFFFF

_SOCKET_BUFFER = 16 * 1024 * 1024
MAX_QUEUED = 8192
_READ_SIZE = 0xFFFF + 4096
_TURN = 0.005
"""How long packets are handled at a time, in seconds, before others have theirs."""

_MAX_HELD = 1024
HOLD_TIMEOUT = 1.0
"""How long a packet is held; SIP over UDP is sent again until then."""

# (raw packet, incoming interface index, outgoing interface index) -> the packet to send on,
# or None to drop it; the very object that came in goes on unchanged.
Handler = Callable[[bytes, int, int], bytes | None]


class QueueBusy(Exception):
    """The queue cannot be bound: another process has it, or the privilege is missing."""


class Hold(Exception):
    """Raised by a handler that cannot decide yet; `give_up` is called where it never could."""

    def __init__(self, give_up: Callable[[], object]) -> None:
        super().__init__()
        self.give_up = give_up


class PacketQueue:
    """One netfilter queue; `handle` is called for every packet and its answer is the verdict.

    What is held is decided anew after `resume_soon`, and dropped after `HOLD_TIMEOUT` seconds.
    """

    def __init__(self, number: int, handle: Handler, is_fail_open: bool, mark: int) -> None:
        """Binds the queue; raises QueueBusy.

        Packets that were changed get the mark too, for firewalls that accept those of mappings: the
        rules have seen a packet before its message has made one.
        """
        self._handle = handle
        self._mark = mark
        self._library = NetfilterQueue()
        try:
            self._library.bind(
                number, self._deliver, MAX_QUEUED, COPY_PACKET, sock_len=_SOCKET_BUFFER
            )
        except OSError as error:
            raise QueueBusy(str(error)) from error
        self._socket = socket.socket(fileno=os.dup(self._library.get_fd()))
        self._socket.setblocking(False)
        self._backlog = Backlog(number)
        self._served = 0
        self._turn_ends = 0.0
        self._is_behind = False
        self._held: dict[Packet, asyncio.TimerHandle] = {}
        self._configure(number, is_fail_open)

    def fileno(self) -> int:
        """Returns the descriptor that is readable when packets wait."""
        return self._socket.fileno()

    def serve(self) -> float:
        """Handles packets that wait, for a few milliseconds at the most.

        Returns for how long the next one has waited, in seconds: 0.0 where there is none, and where
        the kernel does not tell.
        """
        self._is_behind = False
        self._turn_ends = now() + _TURN
        self._library.run_socket(cast(socket.socket, self))
        if self._is_behind:
            return self._backlog.waited(self._served, now())
        self._backlog.forget()
        return 0.0

    def resume_soon(self) -> None:
        """Decides anew about what is held, once what happens now is over."""
        if self._held:
            asyncio.get_running_loop().call_soon(self._resume)

    def _resume(self) -> None:
        for packet, timer in list(self._held.items()):
            timer.cancel()
            del self._held[packet]
            self._deliver(packet)

    def close(self) -> None:
        """Unbinds the queue; packets still in it take the way of a queue without a listener."""
        while self._held:
            packet, timer = self._held.popitem()
            timer.cancel()
            packet.drop()
        self._backlog.close()
        self._socket.close()
        self._library.unbind()

    def recv(self, _size: int) -> bytes:
        """Reads one whole netlink datagram for the library; BlockingIOError ends its loop."""
        if now() >= self._turn_ends:
            self._is_behind = True
            raise BlockingIOError(errno.EAGAIN, "enough for now")
        return self._socket.recv(_READ_SIZE)

    def _deliver(self, packet: Packet) -> None:
        raw = packet.get_payload()
        self._served = packet.id
        try:
            answer = self._handle(raw, packet.indev, packet.outdev)
        except Hold as hold:
            self._hold(packet, hold)
            return
        except Exception:
            log.exception("a packet was passed unmodified because of an error in sipnat")
            answer = raw
        if answer is None:
            packet.drop()
            return
        if answer is not raw:
            packet.set_payload(answer)
            packet.set_mark(packet.get_mark() | self._mark)
        packet.accept()

    def _hold(self, packet: Packet, hold: Hold) -> None:
        def give_up() -> None:
            self._held.pop(packet, None)
            hold.give_up()
            packet.drop()

        if len(self._held) >= _MAX_HELD:
            give_up()
            return
        packet.retain()
        self._held[packet] = asyncio.get_running_loop().call_later(HOLD_TIMEOUT, give_up)

    def _configure(self, number: int, is_fail_open: bool) -> None:
        params = struct.pack("!IB", _COPY_RANGE, COPY_PACKET)
        self._socket.send(_config(number, _attribute(_NFQA_CFG_PARAMS, params)))
        flags = struct.pack("!I", _NFQA_CFG_F_FAIL_OPEN if is_fail_open else 0)
        mask = struct.pack("!I", _NFQA_CFG_F_FAIL_OPEN)
        self._socket.send(
            _config(number, _attribute(_NFQA_CFG_FLAGS, flags) + _attribute(_NFQA_CFG_MASK, mask))
        )


def _attribute(kind: int, value: bytes) -> bytes:
    padding = b"\0" * (-len(value) % 4)
    return struct.pack("=HH", 4 + len(value), kind) + value + padding


def _config(number: int, attributes: bytes) -> bytes:
    family = struct.pack("!BBH", socket.AF_UNSPEC, 0, number)
    kind = _NFNL_SUBSYS_QUEUE << 8 | _NFQNL_MSG_CONFIG
    length = 16 + len(family) + len(attributes)
    return struct.pack("=IHHII", length, kind, _NLM_F_REQUEST, 0, 0) + family + attributes
