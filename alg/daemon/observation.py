"""Who watches the gateway, put together: what is kept in memory, and who is told.

Nothing here is needed for calls: what cannot be had is said in one line and left out.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from alg.config import Config
from alg.daemon.connections import Connections
from alg.daemon.http_port import HttpPort
from alg.daemon.ledger import Ledger
from alg.daemon.media_watch import MediaWatch
from alg.daemon.scrape import Scrape
from alg.daemon.stories import Stories
from alg.daemon.tracing import Tracing
from alg.gateway import Gateway
from alg.io.collector import Collector
from alg.io.control import Handler
from alg.observe.ring import Ring
from rules.backend import Backend


class Observation:
    """Everything that watches; `handlers` are the commands it answers at the control socket."""

    def __init__(
        self,
        config: Config,
        gateway: Gateway,
        ledger: Ledger,
        backend: Backend,
        connections: Connections,
    ) -> None:
        self._config = config
        self._observers = ledger.observers
        self.media = MediaWatch(gateway.state.calls, backend, ledger, is_on=config.watch_media)
        self.ring = Ring()
        self._collector = Collector(config.hep, self._observers)
        self._port = HttpPort(
            Scrape(config, gateway, ledger, backend, connections, self.media.activity),
            self._observers,
        )
        self._commands: Mapping[str, Handler] = {}
        self.handlers: dict[str, Handler] = {
            "why": Stories(self.ring).tell,
            "trace": Tracing(config, self._observers, self.ring).follow,
            "configuration": lambda request: [configuration_row(self._config)],
        }

    async def start(self, handlers: Mapping[str, Handler]) -> None:
        """Begins to watch; the status page shows what these commands tell."""
        self.media.start()
        self.remember(self._config.trace_megabytes)
        self._copy()
        self._commands = handlers
        await self._port.open(self._config.http, handlers)

    def remember(self, megabytes: int) -> None:
        """Keeps so much of what passes in memory; with 0 nothing is kept, and nothing paid."""
        self._observers.remove(self.ring)
        self.ring.resize(megabytes << 20)
        if megabytes:
            self._observers.add(self.ring)

    async def configure(self, config: Config) -> None:
        """Watches as another configuration says; what has not changed is not disturbed."""
        before, self._config = self._config, config
        if config.watch_media != before.watch_media:
            await self.media.turn(is_on=config.watch_media)
        if config.trace_megabytes != before.trace_megabytes:
            self.remember(config.trace_megabytes)
        if config.hep != before.hep:
            self._collector.close()
            self._collector = Collector(config.hep, self._observers)
            self._copy()
        if config.http != before.http:
            await self._port.close()
            await self._port.open(config.http, self._commands)

    async def close(self) -> None:
        """Watches no more."""
        self._collector.close()
        await self._port.close()
        await self.media.close()

    def _copy(self) -> None:
        if self._config.hep.server:
            self._collector.start()


def configuration_row(config: Config) -> dict[str, object]:
    """Returns every key and its value; the password for HEP is kept back."""
    row: dict[str, object] = msgspec.to_builtins(config)
    return row | {"hep": {"server": config.hep.server, "id": config.hep.id}}
