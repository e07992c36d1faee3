"""The HEP collector: every message is copied to it, before and after, by UDP.

Nothing here waits: a name is looked up in a thread of its own, again and again; a datagram that
cannot be sent is lost. While the collector's address is not known nobody watches for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading

from alg.config import Hep
from alg.io.clock import now, wall_offset
from alg.observe.feed import Event, Feed
from alg.observe.heading import read_heading
from alg.observe.hep import encode_hep
from alg.observe.observers import Observers
from alg.observe.passage import Passage
from alg.observe.wanted import Wanted

log = logging.getLogger("sipnat")

DEFAULT_PORT = "9060"
LOOK_UP_INTERVAL = 300.0
RETRY_INTERVAL = 30.0
COMPLAINT_INTERVAL = 60.0

_Address = tuple[socket.AddressFamily, tuple[object, ...]]


class Collector:
    """Copies messages to the collector that `settings` name, from `start` to `close`."""

    def __init__(self, settings: Hep, observers: Observers) -> None:
        self.sent = 0
        self._settings = settings
        self._password = settings.password.encode()
        self._observers = observers
        self._feed = Feed(Wanted())
        self._socket: socket.socket | None = None
        self._address: _Address | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._lost = 0
        self._next_complaint = 0.0

    def start(self) -> None:
        """Begins to look for the collector, and copies once it is found."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._follow_name()), loop.create_task(self._copy())]

    def close(self) -> None:
        """Copies no more."""
        for task in self._tasks:
            task.cancel()
        self._observers.remove(self._feed)
        if self._socket is not None:
            self._socket.close()

    async def _follow_name(self) -> None:
        """Keeps to the address that the collector's name has."""
        is_told = False
        while True:
            try:
                address = await _look_up(self._settings.server)
                if address != self._address:
                    self._turn_to(address)
                is_told = False
            except OSError as error:
                if not is_told:
                    log.warning(
                        "the HEP collector %s cannot be found, tried again: %s",
                        *(self._settings.server, error.strerror or error),
                    )
                    is_told = True
            await asyncio.sleep(RETRY_INTERVAL if is_told else LOOK_UP_INTERVAL)

    def _turn_to(self, address: _Address) -> None:
        """Sends to an address from now on; raises OSError where there is no way to it."""
        family, destination = address
        sender = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            sender.connect(destination)
        except OSError:
            sender.close()
            raise
        if self._socket is not None:
            self._socket.close()
        else:
            self._observers.add(self._feed)
        self._socket, self._address = sender, address
        log.info("messages are copied to the HEP collector %s", self._settings.server)

    async def _copy(self) -> None:
        async for batch in self._feed.batches():
            offset = wall_offset()
            for event in batch:
                self._copy_one(event, offset)
            self._lost += self._feed.take_lost()
            if self._lost and now() >= self._next_complaint:
                self._next_complaint = now() + COMPLAINT_INTERVAL
                log.warning(
                    "%d messages were not copied to the HEP collector %s",
                    *(self._lost, self._settings.server),
                )
                self._lost = 0

    def _copy_one(self, event: Event, offset: float) -> None:
        """Sends a SIP message as it came, and as it left."""
        if not isinstance(event, Passage) or self._socket is None:
            return
        heading = read_heading(event.datagram.payload)
        if not heading.method:
            return
        came = event.time + offset
        for sight, time in ((event.came, came), (event.left, came + event.took)):
            if sight is None:
                continue
            try:
                packet = encode_hep(
                    sight,
                    event.datagram.transport,
                    time,
                    heading.call_id.encode(),
                    self._settings.id,
                    self._password,
                )
                self._socket.send(packet)
                self.sent += 1
            except (OSError, ValueError):
                # Nobody listens, there is no room or no way, or the message is too long for HEP.
                self._lost += 1


async def _look_up(server: str) -> _Address:
    """Resolves "host:port"; raises OSError. A thread that hangs holds nobody up at the end."""
    loop = asyncio.get_running_loop()
    found: asyncio.Future[_Address] = loop.create_future()
    host, _, port = server.partition(":")

    def settle(answer: _Address | OSError) -> None:
        if found.done():
            return
        if isinstance(answer, OSError):
            found.set_exception(answer)
        else:
            found.set_result(answer)

    def ask() -> None:
        answer: _Address | OSError
        try:
            family, _, _, _, address = socket.getaddrinfo(
                host, port or DEFAULT_PORT, type=socket.SOCK_DGRAM
            )[0]
            answer = family, address
        except OSError as error:
            answer = error
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, answer)

    threading.Thread(target=ask, name="look-up", daemon=True).start()
    return await found
