"""A relayed connection on loopback: two sockets, the relay's pair between them, and who owns it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from functools import wraps
from typing import ParamSpec

from alg.io.legs import Connection, Pair
from alg.io.turns import Turns
from alg.sip.stream import MAX_MESSAGE, Fault

P = ParamSpec("P")

TIMEOUT = 10.0
SMALL_BUFFER = 4096


def run(test: Callable[P, Coroutine[None, None, None]]) -> Callable[P, None]:
    """Runs a test in an event loop of its own."""

    @wraps(test)
    def in_loop(*arguments: P.args, **keys: P.kwargs) -> None:
        asyncio.run(test(*arguments, **keys))

    return in_loop


@dataclass
class Recorder:
    """The owner of a connection: translates by `edit`, and keeps what it was told."""

    edit: Callable[[bytes], bytes] = bytes.upper
    has_sip: bool = True
    seen: list[tuple[bytes, bool]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    closed: int = 0

    def translate(self, message: bytes, is_from_caller: bool) -> bytes:
        edited = self.edit(message)
        self.seen.append((message, is_from_caller))
        return edited

    def turn_opaque(self, fault: Fault) -> None:
        self.faults.append(fault)

    def close(self) -> None:
        self.closed += 1


class End:
    """What a phone or a server does with its socket."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self._loop = asyncio.get_running_loop()

    async def send(self, *segments: bytes) -> None:
        """Sends each in a segment of its own, as far as loopback can tell."""
        for segment in segments:
            await self._loop.sock_sendall(self.socket, segment)
            await asyncio.sleep(0)

    async def receive(self, size: int) -> bytes:
        """Receives exactly so many octets, or what there is before the end."""
        received = b""
        async with asyncio.timeout(TIMEOUT):
            while len(received) < size:
                part = await self._loop.sock_recv(self.socket, size - len(received))
                if not part:
                    break
                received += part
        return received

    async def some(self) -> bytes:
        """Receives what there is, at least one octet unless the stream ends here."""
        async with asyncio.timeout(TIMEOUT):
            return await self._loop.sock_recv(self.socket, 65536)

    async def is_at_end(self) -> bool:
        """Tells whether the stream ends here; raises ConnectionResetError for a reset."""
        return await self.receive(1) == b""

    def finish(self) -> None:
        """Sends the end of the stream."""
        self.socket.shutdown(socket.SHUT_WR)


@dataclass
class Wire:
    """The two ends of a pair, and whether it is over."""

    phone: End
    server: End
    pair: Pair
    forgotten: list[Pair]

    def ends(self, *, is_phone_first: bool) -> tuple[End, End]:
        """Returns both ends in either order."""
        return (self.phone, self.server) if is_phone_first else (self.server, self.phone)

    async def wait_until_over(self) -> None:
        async with asyncio.timeout(TIMEOUT):
            while not self.forgotten:
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def wired(
    connection: Connection,
    max_message: int = MAX_MESSAGE,
    *,
    has_small_buffers: bool = False,
    meanwhile: Callable[[Wire], None] = lambda wire: None,
) -> AsyncIterator[Wire]:
    """Yields a phone and a server with a pair between them; the phone is the caller.

    What is to be done `meanwhile` is done while the pair takes over its sockets.
    """
    errors: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, error: errors.append(error))
    forgotten: list[Pair] = []
    pair = Pair(connection, max_message, Turns(), forgotten.append)
    phone, near = _connected(has_small_buffers)
    server, far = _connected(has_small_buffers)
    with phone, server:
        wire = Wire(End(phone), End(server), pair, forgotten)
        joining = asyncio.ensure_future(pair.join(near, far))
        await asyncio.sleep(0)
        meanwhile(wire)
        await joining
        try:
            yield wire
        finally:
            pair.abort()
            await wire.wait_until_over()
    assert errors == []


def _connected(has_small_buffers: bool) -> tuple[socket.socket, socket.socket]:
    """Returns both ends of a TCP connection over loopback."""
    with socket.socket() as listener, contextlib.ExitStack() as stack:
        one = stack.enter_context(socket.socket())
        for each in (listener, one) if has_small_buffers else ():
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                each.setsockopt(socket.SOL_SOCKET, option, SMALL_BUFFER)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        one.connect(listener.getsockname())
        other, _ = listener.accept()
        stack.pop_all()
    for each in (one, other):
        each.setblocking(False)
        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return one, other
