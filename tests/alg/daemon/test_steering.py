"""What an administrator asks for, when he does not stay for the answer."""

from __future__ import annotations

import asyncio

from alg.daemon.connections import Connections
from alg.daemon.ledger import Ledger
from alg.daemon.steering import Steering
from alg.gateway_settings import GatewaySettings
from rules.aliases import Aliases
from rules.memory import MemoryBackend
from rules.settings import Settings
from tests.alg.dialogs.test_calls import call_out
from tests.alg.playbook import EXTERNAL, Playbook


def test_clients_are_told_of_a_flush_that_nobody_waits_for() -> None:
    play = Playbook()
    call_out(play)
    ledger = Ledger(play.table, MemoryBackend(Settings(("lan0",), "wan0", (EXTERNAL,))))
    connections = Connections(play.gateway, ledger, GatewaySettings((EXTERNAL,)), Aliases())
    steering, told = Steering(play.gateway, ledger, connections, "wan0", ("lan0",)), []
    steering.has_forgotten = lambda: told.append(True)

    async def ask_and_go() -> None:
        rows = steering.flush({"all": True})
        await anext(rows)
        await rows.aclose()  # type: ignore[attr-defined]

    asyncio.run(ask_and_go())
    assert told == [True]
