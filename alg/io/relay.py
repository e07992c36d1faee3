"""SIP over TCP as the kernel diverts it (TPROXY): accepted in place of whom it was for, dialled on.

The relay knows neither the table nor the rules. It asks a `Switchboard` about each connection:
from which endpoint to dial whom. Both sockets are transparent (IP_TRANSPARENT), so each end sees
the address it would see through a NAT, and the kernel knows their packets as the relay's.

Two ends that call each other at the same moment, from and to the same ports (RFC 9293 §3.5), are
one connection: where the kernel has no room for a dial because the other call has come in already,
that call is the partner.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import resource
import socket
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Protocol

from alg.io.legs import Connection, Pair, reset_on_close
from alg.io.transparent import transparent_socket
from alg.io.turns import SLICE, Turns
from alg.verdict import Reason
from nat_table.endpoint import Endpoint

log = logging.getLogger("sipnat")

BACKLOG = 4096
OUT_OF_RESOURCES_PAUSE = 1.0
DIAL_TIMEOUT = 30.0
PARTNER_INTERVAL = 0.02
PARTNER_TRIES = 25
LEAVE_TIMEOUT = 1.0
OTHER_FILES = 512
"""Descriptors kept for everything that is not a connection."""

_IP_BIND_ADDRESS_NO_PORT = 24  # linux/in.h
_TAKEN = (errno.EADDRNOTAVAIL, errno.EADDRINUSE)


class RelayBusy(Exception):
    """The relay's port cannot be had; the text is one sentence."""


class Dialled(Connection, Protocol):
    """A connection that is wanted: from where to dial whom."""

    @property
    def source(self) -> Endpoint:
        """From where; any port where that is 0, or is in use for such a connection already."""

    @property
    def target(self) -> Endpoint:
        """Whom."""


class Switchboard(Protocol):
    """Who decides about connections."""

    def connect(self, caller: Endpoint, called: Endpoint) -> Dialled | None:
        """Returns what is to become of a connection that was diverted; None resets it."""

    def count(self, reason: Reason) -> None:
        """Counts a connection that was turned away."""


@dataclass(eq=False, slots=True)
class _Half:
    """An accepted connection whose other end is being dialled."""

    caller: socket.socket
    dialled: Dialled
    task: asyncio.Task[None] | None = None

    def give_up(self) -> None:
        """Dials no more."""
        assert self.task is not None
        self.task.cancel()
        self.dialled.close()

    def reset(self) -> None:
        """Has the caller see that nobody can be reached."""
        reset_on_close(self.caller)
        self.caller.close()

    def fail(self) -> None:
        """Dials no more, and has the caller see it."""
        self.give_up()
        self.reset()


class Relay:
    """Listens on the loopback addresses for what the kernel diverts."""

    def __init__(
        self,
        switchboard: Switchboard,
        where: Sequence[Endpoint],
        max_connections: int,
        max_message: int,
    ) -> None:
        """Listens, so that nothing diverted is refused from now on; raises RelayBusy."""
        self._switchboard = switchboard
        self.max_message = max_message
        self._max_connections = _room_for(max_connections)
        self._halves: dict[tuple[Endpoint, Endpoint], _Half] = {}
        self._pairs: set[Pair] = set()
        self._turns = Turns()
        self._own = frozenset(where)
        self._listeners: list[socket.socket] = []
        for endpoint in where:
            try:
                self._listeners.append(_listener(endpoint))
            except OSError as error:
                self.stop_listening()
                raise RelayBusy(
                    f"{endpoint} cannot be had for SIP over TCP: another program, perhaps another "
                    f"sipnat, has it; set `relay_port` to another port ({error.strerror})"
                ) from error

    def __len__(self) -> int:
        return len(self._halves) + len(self._pairs)

    def serve(self) -> None:
        """Takes connections from now on, in the running event loop."""
        for listener in self._listeners:
            asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    def stop_listening(self) -> None:
        """Takes no more connections."""
        for listener in self._listeners:
            asyncio.get_running_loop().remove_reader(listener)
            listener.close()
        self._listeners.clear()

    def hang_up(self, address: str) -> None:
        """Ends the connections from or to an address that is the router's no more."""
        for key, half in list(self._halves.items()):
            if address in (key[0].address, half.dialled.source.address):
                del self._halves[key]
                half.fail()
        for pair in self._pairs:
            if address in pair.addresses:
                pair.reset()

    def reset(self, dialled: Container[Connection]) -> None:
        """Ends these connections as ones that failed."""
        for key, half in list(self._halves.items()):
            if half.dialled in dialled:
                del self._halves[key]
                half.fail()
        for pair in self._pairs:
            if pair.connection in dialled:
                pair.reset()

    async def close(self) -> None:
        """Ends all connections, so that phones know it at once and connect anew."""
        self.stop_listening()
        for half in self._halves.values():
            half.fail()
        self._halves.clear()
        for pair in self._pairs:
            pair.leave()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_TIMEOUT):
                while len(self):
                    await asyncio.sleep(PARTNER_INTERVAL)
        for pair in list(self._pairs):
            pair.abort()
        await asyncio.sleep(0)

    def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + SLICE
        while loop.time() < until:
            try:
                connected, _ = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionError):
                return
            except OSError as error:
                log.error("connections wait, because none can be accepted: %s", error)
                loop.remove_reader(listener)
                loop.call_later(OUT_OF_RESOURCES_PAUSE, self._accept_again, listener)
                return
            connected.setblocking(False)
            self._admit(connected)

    def _accept_again(self, listener: socket.socket) -> None:
        if listener in self._listeners:
            asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    def _admit(self, connected: socket.socket) -> None:
        try:
            caller = Endpoint(*connected.getpeername()[:2])
        except OSError:  # gone already
            connected.close()
            return
        called = Endpoint(*connected.getsockname()[:2])
        dialled = None
        if called in self._own:
            self._switchboard.count(Reason.NOT_DIVERTED)
        elif len(self) >= self._max_connections:
            self._switchboard.count(Reason.CONNECTION_LIMIT)
        else:
            dialled = self._switchboard.connect(caller, called)
        if dialled is None:
            reset_on_close(connected)
            connected.close()
            return
        former = self._halves.pop((called, caller), None)
        if former is not None:  # reset by its caller meanwhile
            former.fail()
        half = self._halves[called, caller] = _Half(connected, dialled)
        half.task = asyncio.get_running_loop().create_task(self._put_through((called, caller)))

    async def _put_through(self, key: tuple[Endpoint, Endpoint]) -> None:
        """Dials for a half, and makes a pair of it and what it gets."""
        half = self._halves[key]
        try:
            async with asyncio.timeout(DIAL_TIMEOUT):
                other = await self._reach(half)
        except OSError as error:
            self._switchboard.count(Reason.UNREACHABLE)
            log.debug("%s cannot be reached: %s", half.dialled.target, error)
            del self._halves[key]
            half.dialled.close()
            half.reset()
            return
        del self._halves[key]
        pair = Pair(half.dialled, self.max_message, self._turns, self._pairs.discard)
        self._pairs.add(pair)
        await pair.join(half.caller, other)

    async def _reach(self, half: _Half) -> socket.socket:
        """Returns a socket that is connected with the half's target; raises OSError."""
        source, target = half.dialled.source, half.dialled.target
        try:
            return await _dial(source, target)
        except OSError as error:
            if error.errno not in _TAKEN:
                raise
        for _ in range(PARTNER_TRIES):
            partner = self._halves.pop((source, target), None)
            if partner is not None:
                partner.give_up()
                return partner.caller
            await asyncio.sleep(PARTNER_INTERVAL)
        return await _dial(Endpoint(source.address, 0), target)


async def _dial(source: Endpoint, target: Endpoint) -> socket.socket:
    dialling = _socket(source.address)
    try:
        dialling.setsockopt(socket.SOL_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
        dialling.bind(source)
        await asyncio.get_running_loop().sock_connect(dialling, target)
    except BaseException:
        dialling.close()
        raise
    return dialling


def _listener(endpoint: Endpoint) -> socket.socket:
    listener = _socket(endpoint.address)
    try:
        listener.bind(endpoint)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _socket(address: str) -> socket.socket:
    made = transparent_socket(address, socket.SOCK_STREAM)
    made.setblocking(False)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return made


def _room_for(connections: int) -> int:
    """Makes room for two descriptors a connection; returns how many there is room for."""
    wanted = 2 * connections + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limit in ((max(soft, wanted), max(hard, wanted)), (hard, hard)):
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, limit)
            break
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    room = min(connections, max(1, (soft - OTHER_FILES) // 2))
    if room < connections:
        log.debug("there are descriptors for %d connections only (ulimit -n)", room)
    return room
