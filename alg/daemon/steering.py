"""What an administrator asks of the running gateway: how it is, to end something, to rest.

    status    how it is
    drop      ends a mapping, or what has a Call-ID
    flush     ends everything that was signalled, and if asked to what was requested
    drain     takes no new calls, or takes them again

What is ended is gone from the kernel too when the answer comes; where the kernel refuses, it is
tried again before long.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TypedDict

from alg.daemon.connections import Connections
from alg.daemon.ledger import Ledger
from alg.drop import drop_all, drop_mapping, drop_named
from alg.gateway import Gateway
from alg.io.clock import now
from alg.io.control import Handler, Request, RequestRefused, Row
from alg.io.relay import Relay
from alg.version import version
from nat_table.binding import Binding, Pinhole
from nat_table.changes import Change, Closed
from nat_table.endpoint import Endpoint, Transport, parse_endpoint
from nat_table.snapshot import mapping_row
from rules.interfaces import faults

DRAIN_INTERVAL = 1.0
_TRANSPORTS = {transport.label: transport for transport in Transport}


class StatusRow(TypedDict):
    """How the gateway is; these names never change.

    `faults` are sentences: what keeps packets from passing, though the gateway itself is well.
    """

    version: str
    uptime: float
    draining: bool
    is_behind: bool
    faults: list[str]
    calls: int
    registrations: int
    connections: int
    mappings: int


class Steering:
    """Answers at the control socket; `handlers` are the commands.

    `external` and `internal` are the names of the interfaces. `relay` is what ends connections,
    None where there is none; `has_forgotten` is called when what clients have asked for is gone.
    """

    def __init__(
        self,
        gateway: Gateway,
        ledger: Ledger,
        connections: Connections,
        external: str,
        internal: Sequence[str],
    ) -> None:
        self._gateway = gateway
        self._ledger = ledger
        self._connections = connections
        self._external = external
        self._internal = internal
        self._began = now()
        self.relay: Relay | None = None
        self.has_forgotten: Callable[[], None] = lambda: None
        self.handlers: dict[str, Handler] = {
            "status": self.status,
            "drop": self.drop,
            "flush": self.flush,
            "drain": self.drain,
        }

    async def status(self, request: Request) -> list[StatusRow]:
        """Returns one row: how the gateway is."""
        gateway = self._gateway
        found = await asyncio.to_thread(lambda: list(faults(self._external, self._internal)))
        return [
            {
                "version": version(),
                "uptime": round(now() - self._began, 1),
                "draining": gateway.is_draining,
                "is_behind": self._ledger.is_behind,
                "faults": found,
                "calls": gateway.open_call_count,
                "registrations": gateway.registration_count,
                "connections": len(self._connections),
                "mappings": len(gateway.table),
            }
        ]

    async def drop(self, request: Request) -> list[Row]:
        """Ends what is named, and returns what that was; raises RequestRefused."""
        call_id = request.get("call_id")
        if isinstance(call_id, str):
            return self._drop_named(call_id)
        rows: list[Row] = []
        for binding in self._named(request):
            await self._hang_up(binding.internal)
            rows += self._row(binding, self._gateway.table.pinholes(binding))
            drop_mapping(self._gateway.state, binding, now())
        self._settle()
        return rows

    async def flush(self, request: Request) -> AsyncIterator[Row]:
        """Ends everything that was signalled; yields how many mappings that were so far."""
        has_leases, closed = request.get("all") is True, 0
        await self._hang_up(None)
        try:
            for _ in drop_all(self._gateway.state, now(), has_leases=has_leases):
                closed += sum(isinstance(change, Closed) for change in self._settle())
                yield {"mappings": closed}
                await asyncio.sleep(0)
        finally:  # whoever asked may be gone by now
            if has_leases:
                self.has_forgotten()

    async def drain(self, request: Request) -> AsyncIterator[StatusRow]:
        """Takes no new calls, or takes them again; yields how the gateway is.

        Whoever waits is told again and again, until no call is left or the gateway drains no more.
        """
        self._gateway.is_draining = request.get("off") is not True
        is_waiting = request.get("wait") is True
        while True:
            (row,) = await self.status(request)
            yield row
            if not (is_waiting and row["draining"] and row["calls"]):
                return
            await asyncio.sleep(DRAIN_INTERVAL)

    def _drop_named(self, call_id: str) -> list[Row]:
        dropped = drop_named(self._gateway.state, call_id, now())
        if not dropped:
            raise RequestRefused("nothing has this Call-ID", "not-found")
        rows: list[Row] = [
            {"what": what, "host": host, "call_id": call_id} for what, host in dropped
        ]
        for change in self._settle():
            if isinstance(change, Closed):
                rows += self._row(change.binding, change.pinholes)
        return rows

    def _row(self, binding: Binding, pinholes: Sequence[Pinhole]) -> list[Row]:
        """Returns the row of a mapping that ends; none where it has ended meanwhile."""
        return [{"what": "mapping", **mapping_row(binding, pinholes, now())}] if pinholes else []

    def _named(self, request: Request) -> list[Binding]:
        """Returns the mappings that have the end which is named; raises RequestRefused."""
        try:
            named = parse_endpoint(str(request["mapping"]))
            label = request.get("transport")
            transports = _TRANSPORTS.values() if label is None else [_TRANSPORTS[str(label)]]
        except (KeyError, ValueError):
            raise RequestRefused(
                'what is dropped is a "mapping", such as "10.0.0.20:4000", with a "transport" '
                '"udp" or "tcp" if need be, or a "call_id"',
                "refused",
            ) from None
        table = self._gateway.table
        found = [
            binding
            for transport in transports
            for look_up in (table.look_up_internal, table.look_up_external)
            if (binding := look_up(transport, named)) is not None
        ]
        if not found:
            raise RequestRefused(f"{named} has no mapping", "not-found")
        return list(dict.fromkeys(found))

    async def _hang_up(self, internal: Endpoint | None) -> None:
        """Resets connections that keep a mapping, or this one, while their resets still leave."""
        connections = self._connections.using(internal)
        if self.relay is not None and connections:
            self.relay.reset(connections)
            await asyncio.sleep(0)

    def _settle(self) -> list[Change]:
        """Has the kernel follow what the table has dropped."""
        changes = self._gateway.table.take_changes()
        self._ledger.push(changes, "dropped")
        self._gateway.forget_closed(changes)
        return changes
