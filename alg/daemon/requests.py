"""Serves requests for mappings: those of the configuration, and those of clients.

Clients ask by the control socket (`map`), and by the protocols of internal hosts. A protocol that
cannot be served (its port is another program's) is said in one line and left out: calls do not
depend on it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from typing import Protocol

from alg.config import Config
from alg.daemon.ledger import Key
from alg.daemon.static_mappings import StaticMappings
from alg.daemon.upnp_servers import upnp_servers
from alg.gateway import Gateway
from alg.io.clock import now
from alg.io.control import RequestRefused, Row
from alg.port_manager.epoch import Epoch
from alg.port_manager.leases import LeaseLimits, Leases
from alg.port_manager.map_command import MapCommand
from alg.port_manager.natpmp_server import NatPmpServer
from alg.port_manager.pcp_listener import PcpListener
from alg.port_manager.pcp_server import PcpServer
from alg.port_manager.rate import Rate
from alg.port_manager.refusal import GatewayFailed, Refused
from nat_table.endpoint import of_one_family
from nat_table.masquerade import Masqueraded
from rules.interfaces import is_reached_by

log = logging.getLogger("sipnat")

EPOCH = "epoch"
"""The kind under which the store keeps since when leases are kept."""


class Server(Protocol):
    """A protocol towards the internal side."""

    async def start(self) -> None:
        """Serves; raises OSError where its port cannot be had."""

    async def close(self) -> None:
        """Stops serving; leases stay."""

    def announce(self) -> None:
        """Tells clients that the external address is another one."""


class MappingRequests:
    """Starts and stops what hands out mappings."""

    def __init__(
        self,
        config: Config,
        leases: Leases,
        gateway: Gateway,
        masqueraded: Masqueraded,
        *,
        has_ipv6: bool,
    ) -> None:
        self._leases = leases
        self._gateway = gateway
        self._masqueraded = masqueraded
        self._has_ipv6 = has_ipv6
        self._epoch = Epoch(now())
        self._has_news = True
        self._servers: list[Server] = []
        self._static = StaticMappings(config.static, leases)
        self._keeping: asyncio.Task[None] | None = None
        self._command: MapCommand | None = None
        self._want(config)

    def restore(self, rows: Mapping[Key, bytes]) -> None:
        """Goes on where the leases of an earlier run, which are in the table by now, have begun."""
        row = rows.get((EPOCH, ""))
        if row is not None:
            try:
                self._epoch.restore(row)
                self._has_news = False
            except ValueError as error:
                log.warning("%s; clients are told that their mappings are lost", error)

    def take_rows(self, *, has_all: bool) -> dict[Key, bytes | None]:
        """Returns what the store does not know yet, or all it has to know."""
        row = self._epoch.take_row(has_all=has_all)
        return {} if row is None else {(EPOCH, ""): row}

    async def start(self) -> None:
        """Makes the static mappings, and serves each protocol that is wanted and can be had."""
        self._static.begin()
        self._keeping = asyncio.create_task(self._static.keep())
        self._command = MapCommand(self._leases, now)
        await self._serve()

    async def configure(self, config: Config) -> None:
        """Goes by another configuration: static mappings, and who is served how."""
        self._static.configure(config.static)
        self._static.begin()
        if _served(config) != _served(self._config):
            await self._stop_serving()
            self._want(config)
            await self._serve()

    def _want(self, config: Config) -> None:
        """Makes a server for each protocol that is wanted."""
        self._config = config
        self._wanted: list[tuple[str, Server]] = []
        self._listener: PcpListener | None = None
        if config.pcp:
            self._listener = self._pcp_listener()
            self._wanted.append(("PCP and NAT-PMP", self._listener))
        if config.upnp:
            self._wanted += upnp_servers(config, self._leases)

    async def _serve(self) -> None:
        for what, server in self._wanted:
            try:
                await server.start()
            except OSError as error:
                log.warning("%s is not served: %s", what, error.strerror or error)
                continue
            self._servers.append(server)
            if self._has_news:
                server.announce()

    async def close(self) -> None:
        """Stops serving; leases stay, in the kernel too."""
        if self._keeping is not None:
            self._keeping.cancel()
        await self._stop_serving()

    async def _stop_serving(self) -> None:
        for server in self._servers:
            await server.close()
        self._servers.clear()

    def announce(self) -> None:
        """Tells clients that the external address is another one (RFC 6887 §8.5)."""
        self._epoch.reset(now())
        self._has_news = True
        for server in self._servers:
            server.announce()

    def rebind(self) -> None:
        """Serves internal interfaces that were made anew."""
        if self._listener is not None:
            self._listener.rebind()

    def map(self, request: Row) -> Iterable[Row]:
        """Answers a request `map` of the control socket; raises RequestRefused."""
        if self._command is None:
            raise RequestRefused("the gateway is starting, ask again", GatewayFailed.code)
        try:
            return self._command.answer(request)
        except Refused as refusal:
            raise RequestRefused(str(refusal), refusal.code) from refusal

    def _pcp_listener(self) -> PcpListener:
        config, table = self._config, self._gateway.table
        lifetime = config.max_lease
        pcp = PcpServer(
            self._leases,
            table,
            self._epoch,
            self._masqueraded,
            max_lifetime=lifetime,
            is_secure=config.secure_mode,
        )
        natpmp = NatPmpServer(self._leases, table, self._epoch, max_lifetime=lifetime)
        rate = Rate(config.max_requests_per_host)
        address = self._only_address
        return PcpListener(
            config.internal, pcp, natpmp, rate, address, _is_behind, has_ipv6=self._has_ipv6
        )

    def _only_address(self) -> str | None:
        """Returns the external address that all hosts have, None where they have several."""
        addresses = of_one_family(self._gateway.external_addresses, of_ipv6=False)
        return addresses[0] if len(addresses) == 1 else None


def _served(config: Config) -> tuple[object, ...]:
    """Returns what servers are made of."""
    return (
        config.pcp,
        config.upnp,
        config.secure_mode,
        config.max_lease,
        config.max_requests_per_host,
    )


def _is_behind(interface: str, host: str) -> bool:
    return is_reached_by((interface,), host)


def lease_limits(config: Config, own_addresses: frozenset[str]) -> LeaseLimits:
    """Returns what nobody may have mapped."""
    return LeaseLimits(
        frozenset(config.deny_ports),
        own_addresses,
        config.max_lease,
        lambda address: is_reached_by(config.internal, address),
    )
