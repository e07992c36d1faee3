"""What watches: nobody where nothing is to be remembered, so that nothing is paid."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from alg.config import Config, Hep, Http
from alg.daemon.connections import Connections
from alg.daemon.observation import Observation
from alg.gateway import Gateway
from alg.gateway_settings import GatewaySettings
from rules.aliases import Aliases
from tests.alg.daemon.test_ledger import Router

QUIET = Config(internal=("lan0",), external="wan0", watch_media=False, trace_megabytes=0)


def observation_of(router: Router, config: Config) -> Observation:
    settings = GatewaySettings(("203.0.113.1",))
    gateway = Gateway(settings, router.table)
    connections = Connections(gateway, router.ledger, settings, Aliases())
    return Observation(config, gateway, router.ledger, router.kernel, connections)


@pytest.mark.parametrize(("megabytes", "room"), [(0, 0), (1, 1 << 20)])
def test_the_ring_watches_only_where_it_has_room(megabytes: int, room: int) -> None:
    router = Router()

    async def watch() -> None:
        config = msgspec.structs.replace(QUIET, trace_megabytes=megabytes)
        observation = observation_of(router, config)
        await observation.start({})
        assert bool(router.ledger.observers) is bool(megabytes)
        assert observation.ring.room == room
        await observation.configure(QUIET)
        assert not router.ledger.observers
        await observation.close()

    asyncio.run(watch())


@pytest.mark.parametrize(
    "changed",
    [
        {"trace_megabytes": 1},
        {"hep": Hep(server="127.0.0.1:9060")},
        {"http": Http(listen="127.0.0.1:0")},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_who_watches_comes_and_goes_with_the_configuration(changed: dict[str, object]) -> None:
    router = Router()

    async def watch() -> None:
        observation = observation_of(router, QUIET)
        await observation.start({})
        assert not router.ledger.observers
        for _ in range(2):
            await observation.configure(msgspec.structs.replace(QUIET, **changed))
            async with asyncio.timeout(10):
                while not router.ledger.observers:
                    await asyncio.sleep(0.01)
            await observation.configure(QUIET)
            assert not router.ledger.observers
        await observation.close()

    asyncio.run(watch())
