"""PCP's and NAT-PMP's sockets: one for each internal interface and family, bound to the interface.

So nothing from another side is heard, and no answer leaves by one, whatever its address says. An
answer comes from the address that was asked. What is sent to a multicast or broadcast address is
not for us: both protocols are spoken to the router alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import struct
from collections.abc import Callable, Sequence
from ipaddress import ip_address

from alg.io.clock import now
from alg.port_manager import natpmp
from alg.port_manager.natpmp_server import NatPmpServer
from alg.port_manager.pcp import CLIENT_PORT, MAX_SIZE, SERVER_PORT
from alg.port_manager.pcp_server import PcpServer
from alg.port_manager.rate import Rate
from nat_table.endpoint import Endpoint, is_ipv6

log = logging.getLogger("sipnat")

GROUPS = {socket.AF_INET: "224.0.0.1", socket.AF_INET6: "ff02::1"}
"""All hosts on a link."""

ANNOUNCEMENTS, UPDATES = 10, 3
FIRST_PAUSE = 0.25
"""How often each is sent: after 0.25 s again, after 0.5 s, and so on."""

_UPDATES_AT_ONCE = 100
_BATCH = 64
_IP_PKTINFO = 8  # linux/in.h; the module has it from Python 3.12 on
_INFO = struct.Struct("=I4s4s")
_INFO6 = struct.Struct("=16sI")


class PcpListener:
    """Has requests answered, at most so many a second of each host, and announces.

    Who writes an address that is not behind the interface he is on (`is_behind`) is not answered:
    a guest must not open ports of the office.
    """

    def __init__(
        self,
        interfaces: Sequence[str],
        pcp: PcpServer,
        natpmp: NatPmpServer,
        rate: Rate,
        external_address: Callable[[], str | None],
        is_behind: Callable[[str, str], bool],
        *,
        has_ipv6: bool,
    ) -> None:
        self._interfaces = interfaces
        self._pcp = pcp
        self._natpmp = natpmp
        self._rate = rate
        self._external_address = external_address
        self._is_behind = is_behind
        self._families = (socket.AF_INET, socket.AF_INET6)[: 1 + has_ipv6]
        self._sockets: dict[socket.socket, str] = {}
        self._announcing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Serves; raises OSError where the port cannot be had."""
        try:
            for interface in self._interfaces:
                for family in self._families:
                    self._sockets[_bound(interface, family)] = interface
        except OSError:
            await self.close()
            raise
        loop = asyncio.get_running_loop()
        for each in self._sockets:
            loop.add_reader(each, self._serve, each)

    async def close(self) -> None:
        """Stops serving."""
        if self._announcing is not None:
            self._announcing.cancel()
        for each in self._sockets:
            asyncio.get_running_loop().remove_reader(each)
            each.close()
        self._sockets.clear()

    def rebind(self) -> None:
        """Serves interfaces that were made anew under their names."""
        for each, interface in self._sockets.items():
            with contextlib.suppress(OSError):
                _bind_to(each, interface)

    def announce(self) -> None:
        """Tells all clients the epoch and the external address, and each what it has by now."""
        if self._announcing is not None:
            self._announcing.cancel()
        self._announcing = asyncio.get_running_loop().create_task(self._announce())

    async def _announce(self) -> None:
        pause = FIRST_PAUSE
        for number in range(ANNOUNCEMENTS):
            for each in self._sockets:
                group = Endpoint(GROUPS[each.family], CLIENT_PORT)
                _send(each, self._pcp.announcement(now()), group)
                address = self._external_address()
                if address is not None and each.family == socket.AF_INET:
                    _send(each, self._natpmp.announcement(address, now()), group)
            if number < UPDATES:
                await self._update()
            await asyncio.sleep(pause)
            pause *= 2

    async def _update(self) -> None:
        for count, (client, payload) in enumerate(self._pcp.updates(now()), 1):
            for each in self._sockets:
                if (each.family == socket.AF_INET6) is is_ipv6(client.address):
                    _send(each, payload, client)
            if count % _UPDATES_AT_ONCE == 0:
                await asyncio.sleep(0)

    def _serve(self, served: socket.socket) -> None:
        """Answers what waits, some tens at the most."""
        for _ in range(_BATCH):
            try:
                data, ancillary, _, sender = served.recvmsg(MAX_SIZE + 4, 64)
            except BlockingIOError:
                return
            except OSError as error:
                log.debug("a request could not be read: %s", error)
                return
            asked = _asked(ancillary)
            if asked is not None:
                self._answer(served, data, sender, asked)

    def _answer(
        self,
        served: socket.socket,
        data: bytes,
        sender: tuple[str, int],
        asked: tuple[int, int, bytes],
    ) -> None:
        moment, host = now(), sender[0]
        if not self._rate.allows(host, moment):
            return
        if not (ip_address(host).is_link_local or self._is_behind(self._sockets[served], host)):
            return
        server = self._natpmp if data[:1] == bytes((natpmp.VERSION,)) else self._pcp
        try:
            answer = server.answer(data, host, moment)
        except Exception:
            log.exception("a request for a mapping got no answer because of an error in sipnat")
            return
        if answer is not None:
            with contextlib.suppress(OSError):
                served.sendmsg([answer], [asked], 0, sender)


def _bound(interface: str, family: socket.AddressFamily) -> socket.socket:
    """Returns the socket of an interface; raises OSError, which says of what."""
    made = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        _bind_to(made, interface)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        else:
            made.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        made.bind(("", SERVER_PORT))
    except OSError as error:
        made.close()
        if error.errno == errno.EADDRINUSE:
            text = f"another program has UDP port {SERVER_PORT} of {interface}"
            raise OSError(error.errno, text) from error
        raise
    return made


def _bind_to(made: socket.socket, interface: str) -> None:
    made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode() + b"\0")


def _asked(ancillary: list[tuple[int, int, bytes]]) -> tuple[int, int, bytes] | None:
    """Returns what has an answer leave from the address that was asked; None if that is no host's.

    Of IPv4 the kernel tells both where a packet was sent to and which address of ours that means.
    """
    for level, kind, data in ancillary:
        if (level, kind) == (socket.IPPROTO_IP, _IP_PKTINFO):
            index, own, asked = _INFO.unpack(data)
            return (level, kind, _INFO.pack(index, own, bytes(4))) if own == asked else None
        if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
            asked, _ = _INFO6.unpack(data)
            return (level, kind, data) if asked[0] != 0xFF else None
    return None


def _send(by: socket.socket, payload: bytes, to: Endpoint) -> None:
    with contextlib.suppress(OSError):
        by.sendto(payload, to)
