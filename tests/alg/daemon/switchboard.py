"""The daemon's side of the relay without a kernel: engine, table and ledger in memory."""

from __future__ import annotations

import random
from ipaddress import IPv4Network

from alg.daemon.connections import Connections, RelayedConnection
from alg.daemon.ledger import Ledger
from alg.gateway import Gateway
from alg.gateway_settings import GatewaySettings
from nat_table.behavior import Behavior
from nat_table.endpoint import Endpoint
from nat_table.table import NatTable
from rules.aliases import Aliases
from rules.memory import MemoryBackend
from rules.settings import Settings

EXTERNAL = "203.0.113.1"
PHONE = Endpoint("10.0.0.20", 45000)
OTHER_PHONE = Endpoint("10.0.0.21", 45000)
SERVER = Endpoint("203.0.113.10", 5060)


class Switchboard:
    """`Connections` with all that they need; the same seed draws the same ports."""

    def __init__(self, behavior: Behavior | None = None, *, denied: frozenset[int] = frozenset()):
        self.table = NatTable((EXTERNAL,), behavior or Behavior(), random.Random(5060))
        settings = GatewaySettings(
            external_addresses=(EXTERNAL,),
            internal_networks=(IPv4Network("10.0.0.0/24"),),
            denied_ports=denied,
        )
        self.gateway = Gateway(settings, self.table)
        self.kernel = MemoryBackend(
            Settings(
                internal_interfaces=("lan0",),
                external_interface="wan0",
                external_addresses=(EXTERNAL,),
            )
        )
        self.ledger = Ledger(self.table, self.kernel)
        self.connections = Connections(self.gateway, self.ledger, settings, Aliases())

    def connect(self, caller: Endpoint, called: Endpoint) -> RelayedConnection:
        """Returns what becomes of a connection that must not be refused."""
        connection = self.connections.connect(caller, called)
        assert connection is not None
        return connection

    def expire(self, now: float) -> None:
        """Does what upkeep does with what is over."""
        self.kernel.commit(self.gateway.handle_timer(now))
