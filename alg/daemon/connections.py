"""SIP over TCP: who is dialled from where, the mapping of each connection, and its messages.

    a phone calls out         from the mapping of the phone's endpoint to whom it called
    a remote calls a mapping  from the remote itself to the internal endpoint behind the mapping
    a phone calls a mapping   both (hairpin)

A connection keeps the mappings that it uses while it is open and speaks SIP. Where a phone can have
no mapping it is connected without, from any port, and its messages pass as they came.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from ipaddress import ip_address
from typing import TypedDict

from alg.daemon.decisions import Decisions
from alg.daemon.ledger import Ledger
from alg.datagram import Datagram, Side
from alg.failures import reason_of
from alg.gateway import Gateway
from alg.gateway_settings import GatewaySettings
from alg.io.clock import now
from alg.io.legs import TryAgain
from alg.outbound import LOWEST_PORT
from alg.sip.stream import Fault
from alg.verdict import Reason, Verdict
from nat_table.binding import Binding, Kind, Owner
from nat_table.endpoint import Endpoint, Transport, is_ipv6
from nat_table.refusal import BindRefused
from rules.aliases import Aliases
from rules.backend import CommitFailed

log = logging.getLogger("sipnat")

CONNECTION = "connection"
"""The scope of the owner of what a connection keeps."""

HOLD_TIMEOUT = 3600.0
RENEW_INTERVAL = 1200.0
RENEWED_AT_ONCE = 100


class ConnectionRow(TypedDict):
    """What the command line shows of a connection; these names never change."""

    phone: str
    server: str
    mapping: str | None
    age: float
    from_phone: int
    to_phone: int
    state: str


class Connections:
    """The connections that are open, and what the relay asks about new ones."""

    def __init__(
        self, gateway: Gateway, ledger: Ledger, settings: GatewaySettings, aliases: Aliases
    ) -> None:
        """Takes the engine, what commits its changes, and which addresses connections have."""
        self.gateway = gateway
        self.decisions = Decisions(gateway, ledger)
        self._ledger = ledger
        self._settings = settings
        self._aliases = aliases
        self._open: dict[RelayedConnection, None] = {}
        self._opened = 0
        self._is_stopping = False

    def __len__(self) -> int:
        return len(self._open)

    def connect(self, caller: Endpoint, called: Endpoint) -> RelayedConnection | None:
        """Returns whom to dial from where; None for a connection that leads nowhere."""
        called = self._aliases.public(called)
        try:
            mapped = self.gateway.table.look_up_external(Transport.TCP, called)
            if mapped is not None or called.address in self.gateway.external_addresses:
                return self._connect_mapping(caller, called, mapped)
            return self._connect_phone(caller, called, called, Side.EXTERNAL)
        except CommitFailed as error:
            reason = Reason.COMMIT_FAILED
            self.decisions.warn(
                f"the kernel refused a mapping, a connection is reset: {error}", reason
            )
            self.count(reason)
            return None

    def configure(self, settings: GatewaySettings) -> None:
        """Goes by other settings, for the connections that come."""
        self._settings = settings

    def using(self, internal: Endpoint | None = None) -> list[RelayedConnection]:
        """Returns the connections that keep the mapping of this endpoint, or all that keep any."""
        return [
            each
            for each in self._open
            if (internal in each.kept if internal is not None else each.kept)
        ]

    def count(self, reason: Reason) -> None:
        """Counts a connection."""
        self.gateway.count(reason)
        if reason is Reason.CONNECTION_LIMIT:
            number = len(self._open)
            self.decisions.warn(
                f"connections are reset: {number} are open (max_connections, nofile)", reason
            )

    def rows(self) -> Iterator[ConnectionRow]:
        """Yields a row for every connection that is open at the time of the call."""
        return (connection.row() for connection in list(self._open))

    async def renew(self) -> None:
        """Keeps the mappings of open connections, for as long as it runs."""
        while True:
            await asyncio.sleep(RENEW_INTERVAL)
            for number, connection in enumerate(list(self._open)):
                if connection in self._open:
                    self._keep(connection, now() + HOLD_TIMEOUT)
                if number % RENEWED_AT_ONCE == 0:
                    await asyncio.sleep(0)

    def stop(self) -> None:
        """Lets mappings stand from now on while connections end; the next start closes them."""
        self._is_stopping = True

    def turn_opaque(self, connection: RelayedConnection) -> None:
        """Closes at once what nothing but a connection keeps that is not SIP."""
        self.count(Reason.OPAQUE)
        table, moment = self.gateway.table, now()
        for binding in self._kept(connection):
            table.close(binding, connection.owner, moment)
        try:
            self.gateway.forget_closed(self._ledger.settle())
        except CommitFailed:
            self._keep(connection, moment)  # it has expired, and is tried again
        connection.kept, connection.mapping = (), None

    def forget(self, connection: RelayedConnection) -> None:
        """Has what a connection that has ended kept expire now: hundreds may end at once."""
        self._open.pop(connection, None)
        if not self._is_stopping:
            self._keep(connection, now())

    def _keep(self, connection: RelayedConnection, until: float) -> None:
        """Moves the deadline of what a connection keeps."""
        table = self.gateway.table
        for binding in self._kept(connection):
            table.refresh(binding, connection.owner, until)
        self._ledger.note(table.take_changes())

    def _kept(self, connection: RelayedConnection) -> list[Binding]:
        """Returns the mappings of a connection, wherever they have moved to."""
        found = (
            self.gateway.table.look_up_internal(Transport.TCP, internal)
            for internal in connection.kept
        )
        return [binding for binding in found if binding is not None]

    def _connect_mapping(
        self, caller: Endpoint, called: Endpoint, binding: Binding | None
    ) -> RelayedConnection | None:
        """Connects a remote, or a phone, with the phone that has a mapping."""
        if binding is None or binding.kind is not Kind.SIP:
            self.count(Reason.UNMAPPED)
            return None
        if self._is_internal(caller.address):
            connection = self._connect_phone(caller, called, binding.internal, Side.INTERNAL)
        else:
            sides = Side.EXTERNAL, Side.INTERNAL
            connection = self._open_one(caller, caller, binding.internal, sides)
            connection.mapping = called
        self._hold(connection, binding.internal, caller)
        return connection

    def _connect_phone(
        self, caller: Endpoint, called: Endpoint, target: Endpoint, side: Side
    ) -> RelayedConnection:
        """Connects a phone with the target that is behind whom it called."""
        source = Endpoint(self._unmapped(caller.address), 0)
        connection = self._open_one(caller, source, target, (Side.INTERNAL, side))
        if self.gateway.outside.passes(target.address):
            connection.has_sip = False
            self.count(Reason.HANDS_OFF)
            return connection
        if caller.port < LOWEST_PORT or caller.port in self._settings.denied_ports:
            self._leave_alone(connection, Reason.DENIED_PORT, str(caller))
            return connection
        try:
            connection.mapping = self._hold(connection, caller, called)
        except BindRefused as error:
            self._leave_alone(connection, reason_of(error), str(error))
        else:
            connection.source = self._aliases.wire(connection.mapping)
        return connection

    def _unmapped(self, host: str) -> str:
        """Returns the address that a phone without a mapping calls from: any, or its own one."""
        usual = self.gateway.table.external_address(host)
        if usual is None or usual in self.gateway.external_addresses:
            return "::" if is_ipv6(host) else "0.0.0.0"
        return usual

    def _leave_alone(self, connection: RelayedConnection, reason: Reason, detail: str) -> None:
        connection.has_sip = False
        self.count(reason)
        self.decisions.warn(
            f"a connection passes as it is, so its calls may lack audio: {detail}", reason
        )

    def _open_one(
        self, caller: Endpoint, source: Endpoint, target: Endpoint, sides: tuple[Side, Side]
    ) -> RelayedConnection:
        self._opened += 1
        owner = Owner(CONNECTION, tag=str(self._opened))
        connection = RelayedConnection(self, owner, caller, source, target, sides)
        self._open[connection] = None
        return connection

    def _hold(
        self, connection: RelayedConnection, internal: Endpoint, remote: Endpoint
    ) -> Endpoint:
        """Keeps a mapping for the connection, and admits its remote; returns the external endpoint.

        Raises BindRefused or CommitFailed.
        """
        moment = now()
        binding = self.gateway.table.bind(
            Transport.TCP,
            internal,
            Kind.SIP,
            connection.owner,
            now=moment,
            expires_at=moment + HOLD_TIMEOUT,
            remotes=(remote,),
        )
        try:
            self._ledger.settle()
        except CommitFailed:
            connection.close()
            raise
        connection.kept += (internal,)
        return binding.external

    def _is_internal(self, address: str) -> bool:
        """Whether a host is behind the NAT: it has mappings, or is in an internal network."""
        parsed = ip_address(address)
        networks = self._settings.internal_networks
        return self.gateway.table.count(address) > 0 or any(parsed in each for each in networks)


class RelayedConnection:
    """One connection, its endpoints in internal form; `kept` are endpoints whose mappings it keeps.

    `mapping` is the external endpoint of its phone, None where it has none.
    """

    __slots__ = (
        "_caller",
        "_connections",
        "_counts",
        "_opened_at",
        "_sides",
        "has_sip",
        "kept",
        "mapping",
        "owner",
        "source",
        "target",
    )

    def __init__(
        self,
        connections: Connections,
        owner: Owner,
        caller: Endpoint,
        source: Endpoint,
        target: Endpoint,
        sides: tuple[Side, Side],
    ) -> None:
        """Takes the sides of the caller and the target, which is dialled from `source`."""
        self._connections = connections
        self._caller = caller
        self._sides = sides
        self._counts = [0, 0]
        self._opened_at = now()
        self.owner = owner
        self.source = source
        self.target = target
        self.has_sip = True
        self.kept: tuple[Endpoint, ...] = ()
        self.mapping: Endpoint | None = None

    def translate(self, message: bytes, is_from_caller: bool) -> bytes:
        """Returns the message as the engine has rewritten it, once the kernel knows what it opens.

        Raises TryAgain where the kernel refuses.
        """
        ends, sides = (self._caller, self.target), self._sides
        if not is_from_caller:
            ends, sides = ends[::-1], sides[::-1]
        outcome = self._connections.decisions.decide(
            Datagram(*ends, message, *sides, transport=Transport.TCP)
        )
        if outcome.reason is Reason.DRAINING:
            return b""
        if outcome.verdict in (Verdict.DROPPED, Verdict.HELD):
            raise TryAgain
        self._counts[is_from_caller] += 1
        return outcome.payload

    def turn_opaque(self, fault: Fault) -> None:
        """Opens nothing any more: another protocol is no reason to let anybody in."""
        log.debug("%s -> %s passes as it is: %s", self._caller, self.target, fault.value)
        self.has_sip = False
        self._connections.turn_opaque(self)

    def close(self) -> None:
        """Lets go of what it keeps."""
        self._connections.forget(self)

    def row(self) -> ConnectionRow:
        """Returns what the command line shows."""
        is_outbound = self._sides[0] is Side.INTERNAL
        phone, server = (self._caller, self.target)[:: 1 if is_outbound else -1]
        to_caller, from_caller = self._counts
        return {
            "phone": str(phone),
            "server": str(server),
            "mapping": self.mapping and str(self.mapping),
            "age": round(now() - self._opened_at, 1),
            "from_phone": from_caller if is_outbound else to_caller,
            "to_phone": to_caller if is_outbound else from_caller,
            "state": "sip" if self.has_sip else "opaque",
        }
