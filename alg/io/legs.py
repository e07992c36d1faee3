"""A relayed connection: two legs, each handing on to the other what it receives.

What a leg receives is framed (`alg.sip.stream`). Whole messages are translated by whoever owns the
connection; all else goes on as it came, in order. Once one direction is opaque both are, for ever.

Memory is bounded: a leg whose peer does not read has its other leg read no more, so that at most
one message, one read and `HIGH_WATER` octets wait in each direction. An end of a stream and a reset
are handed on as what they are; of a connection that has ended in one direction the other may be
silent for some minutes, as in any NAT (RFC 5382 REQ-5).
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol

from alg.io.turns import Turns
from alg.sip.stream import Fault, Piece, PieceKind, SipStream

READ_SIZE = 4096
HIGH_WATER = 65536
RETRY_INTERVAL = 0.2
RETRY_TIMEOUT = 5.0
HALF_CLOSED_TIMEOUT = 300.0

# A phone that has lost its power sends no end (socket options of tcp(7), seconds).
_KEEPALIVE = {socket.TCP_KEEPIDLE: 900, socket.TCP_KEEPINTVL: 60, socket.TCP_KEEPCNT: 5}
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # struct linger (socket(7))

# A leg takes out what it has read before any other leg reads.
_received = bytearray(READ_SIZE)


class TryAgain(Exception):
    """A message cannot be translated yet."""


class Connection(Protocol):
    """What the relay must know of a connection, and whom it tells what becomes of it."""

    @property
    def has_sip(self) -> bool:
        """Whether its messages are to be translated at all."""

    def translate(self, message: bytes, is_from_caller: bool) -> bytes:
        """Returns what is to be written in place of a whole message.

        Raises TryAgain where that is not known yet: the stream waits. After `RETRY_TIMEOUT`
        seconds the message goes on as it came.
        """

    def turn_opaque(self, fault: Fault) -> None:
        """Takes note that it is not SIP, or no more: nothing of it will be translated."""

    def close(self) -> None:
        """Takes note of its end."""


class Leg(asyncio.BufferedProtocol):
    """One end of a pair: what it receives is written to the `other`."""

    __slots__ = (
        "_give_up_at",
        "_has_asked",
        "_has_ended",
        "_is_caller",
        "_is_full",
        "_pair",
        "_retry",
        "_stream",
        "_transport",
        "_unread",
        "_waiting",
        "other",
    )

    other: Leg
    _transport: asyncio.Transport

    def __init__(self, pair: Pair, is_caller: bool, max_message: int) -> None:
        self._pair = pair
        self._is_caller = is_caller
        self._stream = SipStream(max_message)
        self._waiting: deque[Piece] = deque()
        self._retry: asyncio.TimerHandle | None = None
        self._unread = b""
        self._give_up_at = 0.0
        self._has_asked = False
        self._has_ended = False
        self._is_full = False

    @property
    def buffered(self) -> int:
        """How many octets wait for the peer to read."""
        return self._transport.get_write_buffer_size()

    @property
    def held(self) -> int:
        """How many octets wait for the rest of their message, or for their turn."""
        waiting = sum(len(piece.data) for piece in self._waiting)
        return len(self._unread) + self._stream.held + waiting

    @property
    def is_done(self) -> bool:
        """Whether all that it will ever receive has been handed on."""
        return self._has_ended and not self.held

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(HIGH_WATER)
        transport.pause_reading()

    def get_buffer(self, sizehint: int) -> bytearray:
        return _received

    def buffer_updated(self, nbytes: int) -> None:
        if self._pair.is_leaving:
            return
        self._pair.is_silent = False
        self._unread += _received[:nbytes]
        self._ask()

    def eof_received(self) -> bool:
        self._has_ended = True
        self._ask()
        return True

    def pause_writing(self) -> None:
        self._is_full = True
        self.other.read_on()

    def resume_writing(self) -> None:
        self._is_full = False
        self.other.read_on()

    def connection_lost(self, error: Exception | None) -> None:
        self._forget()
        self._pair.lose(self, error)

    def begin(self) -> None:
        """Reads from now on; what was read before both ends were there is handed on."""
        self._ask()

    def read_on(self) -> None:
        """Reads if what is read can be handed on."""
        if self.other._is_full or self._unread or self._waiting or self._has_ended:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def abandon(self) -> None:
        """Takes nothing it receives for SIP any more; what it holds is handed on."""
        self._waiting += self._stream.abandon()
        self._ask()

    def leave(self) -> None:
        """Sends an end without waiting for one; what is received until then is nobody's."""
        self._forget()
        self.read_on()
        self.finish()

    def finish(self) -> None:
        """Writes what waits to be written, and then the end of the stream."""
        if not self._transport.is_closing():
            self._transport.write_eof()

    def close(self) -> None:
        """Lets the connection go once what waits is written."""
        self._transport.close()

    def reset(self) -> None:
        """Ends the connection as one that failed."""
        if not self._transport.is_closing():
            reset_on_close(self._transport.get_extra_info("socket"))
        self.abort()

    def abort(self) -> None:
        """Lets the connection go at once."""
        self._transport.abort()

    def work(self) -> bool:
        """Hands on what it has, up to and with the next message; returns whether there is more."""
        self._has_asked = False
        if self._unread:
            self._waiting += self._stream.feed(self._unread)
            self._unread = b""
        if self._has_ended:
            self._waiting += self._stream.finish()
        # Written at once: many line ends in one segment must not become many.
        self.other._write(b"".join(self._translated()))
        if self._retry is not None:
            return False
        if self._waiting:
            self._has_asked = True
            return True
        if self._stream.fault not in (None, Fault.CUT):
            self._pair.turn_opaque(self._stream.fault)
        self.read_on()
        if self.is_done:
            self._pair.end(self)
        return False

    def _translated(self) -> Iterator[bytes]:
        """Yields what goes on in the place of what waits, up to and with the next message."""
        while self._waiting:
            piece = self._waiting[0]
            try:
                data = self._pair.translate(piece, self._is_caller)
            except TryAgain:
                if self._put_off():
                    return
                data = piece.data
            self._give_up_at = 0.0
            self._waiting.popleft()
            yield data
            if piece.kind is PieceKind.MESSAGE:
                return

    def _put_off(self) -> bool:
        """Waits before the next try, unless there were enough."""
        loop = asyncio.get_running_loop()
        self._give_up_at = self._give_up_at or loop.time() + RETRY_TIMEOUT
        if loop.time() >= self._give_up_at:
            return False
        self._retry = loop.call_later(RETRY_INTERVAL, self._try_again)
        return True

    def _try_again(self) -> None:
        self._retry = None
        self._ask()

    def _ask(self) -> None:
        """Asks for a turn to hand on what there is, and reads no more until then."""
        self.read_on()
        if self._pair.has_begun and not self._has_asked and self._retry is None:
            self._has_asked = True
            self._pair.turns.ask(self)

    def _forget(self) -> None:
        """Drops what has not been handed on."""
        self._stream.abandon()
        self._unread = b""
        self._waiting.clear()
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    def _write(self, data: bytes) -> None:
        if data and not self._transport.is_closing():
            self._transport.write(data)


class Pair:
    """Two legs and the connection that they are; `forget` is called at its end.

    `addresses` are the relay's own. What is asked of it before both legs are there is done then.
    """

    __slots__ = (
        "_forget",
        "_has_failed",
        "_lost",
        "_timer",
        "addresses",
        "called",
        "caller",
        "connection",
        "has_begun",
        "is_leaving",
        "is_opaque",
        "is_silent",
        "turns",
    )

    def __init__(
        self,
        connection: Connection,
        max_message: int,
        turns: Turns,
        forget: Callable[[Pair], None],
    ) -> None:
        self.connection = connection
        self._forget = forget
        self._has_failed = False
        self._lost = 0
        self._timer: asyncio.TimerHandle | None = None
        self.addresses: frozenset[str] = frozenset()
        self.has_begun = False
        self.is_leaving = False
        self.is_opaque = False
        self.is_silent = False
        self.turns = turns
        self.caller = Leg(self, True, max_message)
        self.called = Leg(self, False, max_message)
        self.caller.other, self.called.other = self.called, self.caller

    async def join(self, caller: socket.socket, called: socket.socket) -> None:
        """Takes over two connected sockets, and relays from then on."""
        self.addresses = frozenset(each.getsockname()[0] for each in (caller, called))
        await _attach(self.caller, caller)
        await _attach(self.called, called)
        self.has_begun = True
        if self._lost or self._has_failed:
            self.reset()
            return
        if self.is_leaving:
            self.leave()
            return
        if not self.connection.has_sip:
            self._abandon()
        self.caller.begin()
        self.called.begin()

    def translate(self, piece: Piece, is_from_caller: bool) -> bytes:
        """Returns what goes on in the place of a piece; raises TryAgain."""
        if self.is_opaque or piece.kind is not PieceKind.MESSAGE:
            return piece.data
        return self.connection.translate(piece.data, is_from_caller)

    def turn_opaque(self, fault: Fault) -> None:
        """Takes the connection for something else than SIP, in both directions and for ever."""
        if not self.is_opaque and not self.is_leaving:
            self.connection.turn_opaque(fault)
            self._abandon()

    def end(self, leg: Leg) -> None:
        """Hands on that a leg's peer sends no more; when neither does the connection is over."""
        leg.other.finish()
        if leg.other.is_done:
            leg.close()
            leg.other.close()
        elif self._timer is None:
            self._await_other_end()

    def lose(self, leg: Leg, error: Exception | None) -> None:
        """Hands on that a leg is gone."""
        self._lost += 1
        if self._lost == 2:
            if self._timer is not None:
                self._timer.cancel()
            self.connection.close()
            self._forget(self)
        elif self.has_begun:
            if error is None:
                leg.other.close()
            else:
                leg.other.reset()

    def leave(self) -> None:
        """Sends both ends the end of the connection."""
        self.is_leaving = True
        if self.has_begun:
            self.caller.leave()
            self.called.leave()

    def reset(self) -> None:
        """Ends the connection as one that failed."""
        self._has_failed = True
        if self.has_begun:
            self.caller.reset()
            self.called.reset()

    def abort(self) -> None:
        """Lets both ends go at once."""
        self.caller.abort()
        self.called.abort()

    def _abandon(self) -> None:
        self.is_opaque = True
        self.caller.abandon()
        self.called.abandon()

    def _await_other_end(self) -> None:
        self.is_silent = True
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(HALF_CLOSED_TIMEOUT, self._check_other_end)

    def _check_other_end(self) -> None:
        if self.is_silent:
            self.reset()
        else:
            self._await_other_end()


async def _attach(leg: Leg, end: socket.socket) -> None:
    end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE.items():
        end.setsockopt(socket.IPPROTO_TCP, option, value)
    await asyncio.get_running_loop().connect_accepted_socket(lambda: leg, end)


def reset_on_close(connected: socket.socket) -> None:
    """Has the peer see a reset instead of an end when the socket is closed."""
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
