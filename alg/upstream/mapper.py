"""Asks the gateway above for mappings: by PCP (RFC 6887), by NAT-PMP (RFC 6886) if it knows no PCP.

    map        asks for a mapping whose external port is the internal one; with lifetime 0, ends it
    address    asks for the public address; which protocol is spoken is known from then on

The socket is connected, so that nobody but the gateway is heard. A gateway that has lost its state
(another epoch, RFC 6887 section 8.5) or announces itself is told of by `has_lost`: what it had
granted must be asked for again.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import secrets
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, cast

from alg.io.clock import now
from alg.port_manager import natpmp, pcp
from nat_table.endpoint import TCP, UDP, Endpoint, Transport, is_unicast

log = logging.getLogger("sipnat")

PAUSES = (0.25, 0.5, 1.0, 2.0)
"""Seconds until a question is sent again, and in the end given up (RFC 6886 section 3.1)."""

PROBE_LIFETIME = 120
_MULTICAST = "224.0.0.1"
_MACHINE_ID = Path("/etc/machine-id")
_NATPMP_OF = {17: natpmp.Opcode.MAP_UDP, 6: natpmp.Opcode.MAP_TCP}

Key = tuple[Transport, int]
"""A mapping upstream: a transport, and the port that is the same on both sides."""


class Grant(NamedTuple):
    """What the gateway has granted; `lifetime` in seconds."""

    external: Endpoint
    lifetime: int


class Silent(Exception):
    """The gateway does not answer."""


class Denied(Exception):
    """The gateway refuses; the text is its word for it. `is_port` where another port may do."""

    def __init__(self, word: str, *, is_port: bool = False) -> None:
        super().__init__(word)
        self.is_port = is_port


class Mapper(asyncio.DatagramProtocol):
    """A client of one gateway; `open` before use."""

    _transport: asyncio.DatagramTransport

    def __init__(self, gateway: str, wire: str, device: str, has_lost: Callable[[], None]) -> None:
        """Takes the gateway's address, and ours on the interface to it."""
        self.gateway = gateway
        self.wire = wire
        self._device = device
        self._has_lost = has_lost
        self._public = ""
        self._secret = _secret()
        self._waiting: dict[Key | None, asyncio.Future[pcp.Response | natpmp.Response]] = {}
        self._granted: dict[Key | None, Endpoint] = {}
        self._turn = asyncio.Lock()
        self._epoch: tuple[float, int] | None = None
        self._listener: asyncio.DatagramTransport | None = None
        self._is_pcp = False
        self.is_natpmp = False

    async def open(self) -> None:
        """Makes the sockets; raises OSError."""
        loop = asyncio.get_running_loop()
        asking = _socket(self._device)
        with _closed_on_error(asking):
            asking.bind((self.wire, 0))
            asking.connect((self.gateway, pcp.SERVER_PORT))
            await loop.create_datagram_endpoint(lambda: self, sock=asking)
        hearing = _socket(self._device)
        with contextlib.suppress(OSError), _closed_on_error(hearing):  # another client has it
            hearing.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            hearing.bind((_MULTICAST, pcp.CLIENT_PORT))
            group = socket.inet_aton(_MULTICAST) + socket.inet_aton(self.wire)
            hearing.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
            self._listener, _ = await loop.create_datagram_endpoint(
                lambda: _Announcements(self), sock=hearing
            )

    def close(self) -> None:
        """Closes the sockets; what was granted stays, and who waits for an answer gets none."""
        self._transport.close()
        self._fail(Silent())
        if self._listener is not None:
            self._listener.close()

    async def address(self) -> str | None:
        """Returns the public address, None where the gateway does not answer or refuses.

        Some without a way out answer with 0.0.0.0.
        """
        told = await self._ask_address()
        return told if told is not None and is_unicast(told) else None

    async def map(self, key: Key, lifetime: int) -> Grant:
        """Asks for a mapping, or ends it with lifetime 0; raises Denied or Silent."""
        transport, port = key
        if self.is_natpmp:
            asked = natpmp.Mapped(port, port if lifetime else 0, lifetime)
            request = natpmp.Request(_NATPMP_OF[transport.value], asked)
            async with self._turn:  # a refusal does not say of what
                answer = await self._ask(key, natpmp.encode_request(request))
            assert isinstance(answer, natpmp.Response) and answer.mapped is not None
            external = Endpoint(self._public, answer.mapped.external_port)
            return Grant(external, answer.mapped.lifetime)
        body = pcp.Body(self._nonce(key), transport.value, port, Endpoint("0.0.0.0", port))
        options = pcp.Options(prefers_failure=lifetime > 0)
        asking = pcp.Request(pcp.Opcode.MAP, self.wire, lifetime, body, options)
        response = await self._ask(key, pcp.encode_request(asking))
        assert isinstance(response, pcp.Response) and response.body is not None
        self._granted.pop(key, None)
        if lifetime:
            self._granted[key] = response.body.external
        return Grant(response.body.external, response.lifetime)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def error_received(self, error: Exception) -> None:
        """Gives up at once where nobody listens, unless somebody did before."""
        if not (self._is_pcp or self.is_natpmp):
            self._fail(Silent())

    def hear_news(self, data: bytes) -> None:
        """Takes note of the epoch in what is said to all; it answers no question of ours."""
        with contextlib.suppress(pcp.NotResponse):
            self._follow_epoch(pcp.parse_response(data).epoch)
        with contextlib.suppress(natpmp.NotResponse):
            self._follow_epoch(natpmp.parse_response(data).epoch)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        with contextlib.suppress(pcp.NotResponse):
            self._hear_pcp(pcp.parse_response(data))
        with contextlib.suppress(natpmp.NotResponse):
            self._hear_natpmp(natpmp.parse_response(data))

    async def _ask_address(self) -> str | None:
        if self.is_natpmp:
            return await self._address_by_natpmp()
        if self._is_pcp:
            return await self._address_by_pcp()
        pcp_says, natpmp_says = await asyncio.gather(
            self._address_by_pcp(), self._address_by_natpmp()
        )
        self._is_pcp = pcp_says is not None
        self.is_natpmp = not self._is_pcp and natpmp_says is not None
        return pcp_says or natpmp_says

    async def _address_by_pcp(self) -> str | None:
        """Returns what a mapping of our own socket has, which nobody else uses."""
        own_port = self._transport.get_extra_info("sockname")[1]
        try:
            return (await self.map((UDP, own_port), PROBE_LIFETIME)).external.address
        except Denied as denied:
            log.debug("the gateway %s maps nothing by PCP: %s", self.gateway, denied)
        except Silent:
            pass
        return None

    async def _address_by_natpmp(self) -> str | None:
        request = natpmp.encode_request(natpmp.Request(natpmp.Opcode.ADDRESS))
        with contextlib.suppress(Silent, Denied):
            answer = await self._ask(None, request)
            assert isinstance(answer, natpmp.Response)
            self._public = answer.address or ""
            return answer.address
        return None

    def _hear_pcp(self, answer: pcp.Response) -> None:
        self._follow_epoch(answer.epoch)
        if answer.opcode is not pcp.Opcode.MAP:
            return
        key = _key_of(answer.body)
        if answer.result is pcp.Result.UNSUPP_VERSION:
            self._fail_pcp(answer.result.name)
        elif answer.body is None or answer.body.nonce != self._nonce(key):
            return
        elif key in self._waiting:
            self._settle(key, answer, answer.result)
        elif self._granted.get(key, answer.body.external) != answer.body.external:
            self._has_lost()  # a mapping has changed by itself (RFC 6887 section 14.2)

    def _hear_natpmp(self, answer: natpmp.Response) -> None:
        if answer.result is natpmp.Result.UNSUPPORTED_VERSION:
            self._fail_pcp(answer.result.name)
            return
        self._follow_epoch(answer.epoch)
        if answer.opcode is natpmp.Opcode.ADDRESS:
            self._settle(None, answer, answer.result)
        elif answer.mapped is not None:
            transport = UDP if answer.opcode is natpmp.Opcode.MAP_UDP else TCP
            self._settle((transport, answer.mapped.internal_port), answer, answer.result)
        else:
            self._fail(Denied(answer.result.name))

    def _settle(
        self,
        key: Key | None,
        answer: pcp.Response | natpmp.Response,
        result: pcp.Result | natpmp.Result,
    ) -> None:
        future = self._waiting.get(key)
        if future is None or future.done():
            return
        if result:
            is_port = result is pcp.Result.CANNOT_PROVIDE_EXTERNAL
            future.set_exception(Denied(result.name, is_port=is_port))
        else:
            future.set_result(answer)

    def _fail(self, error: Exception) -> None:
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(error)

    def _fail_pcp(self, word: str) -> None:
        """Gives up what was asked by PCP: the gateway does not know it."""
        for key, future in self._waiting.items():
            if key is not None and not self.is_natpmp and not future.done():
                future.set_exception(Denied(word))

    def _follow_epoch(self, epoch: int) -> None:
        """Compares the gateway's clock with ours, a sixteenth and two seconds apart at the most."""
        moment = now()
        before, self._epoch = self._epoch, (moment, epoch)
        if before is None:
            return
        passed, counted = moment - before[0], epoch - before[1]
        slower, faster = sorted((passed, counted))
        if counted < -1 or slower + 2 < faster - faster / 16:
            self._has_lost()

    def _nonce(self, key: Key | None) -> bytes:
        """Returns the same nonce for a mapping at each start, so that it is still ours."""
        return hmac.digest(self._secret, repr(key).encode(), "sha256")[: pcp.NONCE_SIZE]

    async def _ask(self, key: Key | None, request: bytes) -> pcp.Response | natpmp.Response:
        future = self._waiting[key] = asyncio.get_running_loop().create_future()
        try:
            for pause in PAUSES:
                if self._transport.is_closing():
                    break
                self._transport.sendto(request)
                with contextlib.suppress(TimeoutError):
                    return await asyncio.wait_for(asyncio.shield(future), pause)
            raise Silent
        finally:
            if self._waiting.get(key) is future:
                del self._waiting[key]
            if not future.cancel():
                future.exception()  # it came too late to be raised


class _Announcements(asyncio.DatagramProtocol):
    """Hears what gateways say to all (RFC 6887 section 14.1, RFC 6886 section 3.2.1)."""

    def __init__(self, mapper: Mapper) -> None:
        self._mapper = mapper

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if addr == (self._mapper.gateway, pcp.SERVER_PORT):
            self._mapper.hear_news(data)


def _key_of(body: pcp.Body | None) -> Key | None:
    with contextlib.suppress(ValueError):
        return None if body is None else (Transport(body.protocol), body.internal_port)
    return None


def _secret() -> bytes:
    """Returns what nonces are made of: the machine's own (machine-id(5)), or one of this run."""
    with contextlib.suppress(OSError):
        return hmac.digest(_MACHINE_ID.read_bytes().strip(), b"sipnat upstream", "sha256")
    return secrets.token_bytes(32)


def _socket(device: str) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setblocking(False)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
    return made


@contextlib.contextmanager
def _closed_on_error(made: socket.socket) -> Iterator[None]:
    try:
        yield
    except OSError:
        made.close()
        raise
