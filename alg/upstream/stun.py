"""What STUN servers tell of the NAT above: the public address, and how it maps and filters.

Mapping is seen by asking two addresses from one socket, filtering by asking one address to have the
answer sent from another (RFC 5780 section 4, in the words of RFC 3489 section 5). Who has been sent
to may answer, so each question of filtering has a socket of its own. A server with one address
tells how a socket is mapped and nothing of filtering; a second such server shows whether the
mapping is the same for all.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple, cast

from aioice import stun

from alg.upstream.nat import Nat, NatType
from nat_table.endpoint import Endpoint, is_unicast

PATIENCE = 2.0
"""How long an answer may take, in seconds; a question is sent three times meanwhile."""

_RETRANSMISSIONS = 2
_CHANGE_ADDRESS, _CHANGE_PORT = 4, 2  # of CHANGE-REQUEST (RFC 5780 section 7.2)


class Sighting(NamedTuple):
    """How a socket looks to a server, and the server's other endpoint if it has one."""

    public: Endpoint
    other: Endpoint | None


async def classify(servers: Sequence[Endpoint], wire: str, device: str = "") -> Nat:
    """Asks the servers from an address of this router, by one interface if it is named.

    The first that answers is asked about filtering too. Raises OSError where the address is gone.
    """
    async with _prober(wire, device) as prober:
        for number, server in enumerate(servers):
            first = await prober.ask(server)
            if first is not None:
                others = [] if first.other is None else [first.other]
                second = await prober.ask_first([*others, *servers[number + 1 :]])
                break
        else:
            return Nat(NatType.BLOCKED)
        own = prober.own
    address = first.public.address
    if first.public == own:
        return Nat(NatType.OPEN, address, keeps_ports=True)
    seen = [(own, first.public)]
    if second is not None and second.public != first.public:
        return Nat(NatType.SYMMETRIC, address)
    type_ = NatType.UNKNOWN
    if first.other is not None and first.other.address != server.address:
        type_, more = await _filtering(server, wire, device)
        seen += more
    return Nat(type_, address, any(one.port == other.port for one, other in seen))


async def public_address(servers: Sequence[Endpoint], wire: str, device: str = "") -> str | None:
    """Returns the public address alone, None where no server answers; raises OSError."""
    async with _prober(wire, device) as prober:
        seen = await prober.ask_first(servers)
    return None if seen is None else seen.public.address


async def _filtering(
    server: Endpoint, wire: str, device: str
) -> tuple[NatType, list[tuple[Endpoint, Endpoint]]]:
    """Returns who may answer, and how each socket that asked was mapped."""
    async with _prober(wire, device) as one, _prober(wire, device) as other:
        from_anywhere, from_host = await asyncio.gather(
            one.ask(server, _CHANGE_ADDRESS | _CHANGE_PORT), other.ask(server, _CHANGE_PORT)
        )
        seen = [
            (prober.own, answer.public)
            for prober, answer in ((one, from_anywhere), (other, from_host))
            if answer is not None
        ]
    if from_anywhere is not None:
        return NatType.FULL_CONE, seen
    return (NatType.PORT_RESTRICTED if from_host is None else NatType.RESTRICTED), seen


class _Prober(asyncio.DatagramProtocol):
    """A UDP socket that asks STUN servers."""

    _transport: asyncio.DatagramTransport

    def __init__(self) -> None:
        self._waiting: dict[bytes, stun.Transaction] = {}

    @property
    def own(self) -> Endpoint:
        """The socket's own endpoint."""
        return Endpoint(*self._transport.get_extra_info("sockname"))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        with contextlib.suppress(ValueError, struct.error):  # the library raises either
            message = stun.parse_message(data)
            if message.message_class in (stun.Class.RESPONSE, stun.Class.ERROR):
                transaction = self._waiting.get(message.transaction_id)
                if transaction is not None:
                    transaction.response_received(message, addr)

    def send_stun(self, message: stun.Message, addr: tuple[str, int]) -> None:
        """Sends a question, or sends it again."""
        self._transport.sendto(bytes(message), addr)

    async def ask_first(self, servers: Sequence[Endpoint]) -> Sighting | None:
        """Returns what the first server to answer sees."""
        for server in servers:
            if seen := await self.ask(server):
                return seen
        return None

    async def ask(self, server: Endpoint, change: int = 0) -> Sighting | None:
        """Returns what a server sees, None where it does not answer as it is asked to."""
        request = stun.Message(stun.Method.BINDING, stun.Class.REQUEST)
        if change:
            request.attributes["CHANGE-REQUEST"] = change
        transaction = stun.Transaction(request, server, self, _RETRANSMISSIONS)
        self._waiting[request.transaction_id] = transaction
        try:
            async with asyncio.timeout(PATIENCE):
                answer, source = await transaction.run()
        except (stun.TransactionError, TimeoutError):
            return None
        finally:
            del self._waiting[request.transaction_id]
        if change & _CHANGE_ADDRESS and source[0] == server.address:
            return None
        if change & _CHANGE_PORT and source[1] == server.port:
            return None
        return _sighting(answer)


def _sighting(answer: stun.Message) -> Sighting | None:
    """Returns what an answer says; None where that can be no address of a NAT."""
    told = answer.attributes
    public = told.get("XOR-MAPPED-ADDRESS") or told.get("MAPPED-ADDRESS")
    other = told.get("OTHER-ADDRESS") or told.get("CHANGED-ADDRESS")
    if public is None or not is_unicast(public[0]):
        return None
    if other is not None and not (other[1] and is_unicast(other[0])):
        other = None
    return Sighting(Endpoint(*public), other and Endpoint(*other))


@contextlib.asynccontextmanager
async def _prober(wire: str, device: str) -> AsyncIterator[_Prober]:
    asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        asking.setblocking(False)
        if device:
            asking.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        asking.bind((wire, 0))
        loop = asyncio.get_running_loop()
        transport, prober = await loop.create_datagram_endpoint(_Prober, sock=asking)
    except OSError:
        asking.close()
        raise
    try:
        yield prober
    finally:
        transport.close()
