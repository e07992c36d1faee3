"""The command `trace`: nobody misses a message unknowingly, or gets one twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from typing import Any, cast

import pytest

from alg.config import Config
from alg.daemon.tracing import MAX_CLIENTS, Tracing
from alg.io.control import RequestRefused
from alg.observe.feed import MAX_WAITING
from alg.observe.observers import Observers
from alg.observe.passage import Passage
from alg.observe.ring import Ring
from tests.alg.observe.test_ring import call

CONFIG = Config(internal=("lan0", "lan1"), external="wan0")
CALL = call("call-1")


class Gate:
    """What a gateway has for those who trace."""

    def __init__(self) -> None:
        self.observers = Observers()
        self.ring = Ring(1 << 20)
        self.observers.add(self.ring)
        self.tracing = Tracing(CONFIG, self.observers, self.ring)

    def follow(self, **request: object) -> AsyncGenerator[dict[str, Any], None]:
        return cast(AsyncGenerator[dict[str, Any], None], self.tracing.follow(request))

    def pass_call(self) -> None:
        for event in CALL.events:
            if isinstance(event, Passage):
                self.observers.see(event)
            else:
                self.observers.notice(event)


def test_a_trace_begins_with_what_it_watches_and_has_messages_and_changes() -> None:
    gate = Gate()

    async def scenario() -> list[dict[str, Any]]:
        async with aclosing(gate.follow()) as rows:
            first = await anext(rows)
            gate.pass_call()
            return [first, *[await anext(rows) for _ in CALL.events]]

    first, *rows = asyncio.run(scenario())
    assert first["event"] == "watching"
    assert (first["internal"], first["external"]) == (["lan0", "lan1"], "wan0")
    kinds = ["message" if isinstance(event, Passage) else "change" for event in CALL.events]
    assert [row["event"] for row in rows] == kinds
    assert [row["number"] for row in rows if "number" in row] == [*range(1, len(CALL.passages) + 1)]
    assert "before" not in rows[0]


def test_what_is_remembered_comes_once_and_before_what_passes() -> None:
    gate = Gate()
    gate.pass_call()

    async def scenario() -> list[dict[str, Any]]:
        async with aclosing(gate.follow(recent=True, method="BYE", count=4)) as rows:
            first = await anext(rows)
            assert first["event"] == "watching"
            gate.pass_call()
            return [row async for row in rows]

    assert [row["number"] for row in asyncio.run(scenario())] == [1, 2, 3, 4]


def test_where_nothing_is_remembered_it_cannot_come_first() -> None:
    gate = Gate()
    gate.ring.resize(0)
    with pytest.raises(RequestRefused, match="trace_megabytes is 0") as refusal:
        gate.follow(recent=True)
    assert refusal.value.code == "off"


def test_a_slow_client_is_told_how_much_it_has_missed() -> None:
    gate = Gate()

    async def scenario() -> dict[str, Any]:
        async with aclosing(gate.follow()) as rows:
            await anext(rows)
            for _ in range(MAX_WAITING + 7):
                gate.observers.see(CALL.passages[0])
            async for row in rows:
                if row["event"] == "lost":
                    return row
        raise AssertionError("nothing was said to be lost")

    assert asyncio.run(scenario()) == {"event": "lost", "count": 7}


def test_nobody_watches_before_and_after() -> None:
    gate = Gate()
    gate.observers.remove(gate.ring)

    async def scenario() -> None:
        async with aclosing(gate.follow()) as rows:
            assert not gate.observers
            await anext(rows)
            assert gate.observers

    asyncio.run(scenario())
    assert not gate.observers


def test_a_client_too_many_is_refused_until_another_ends() -> None:
    gate = Gate()

    async def scenario() -> None:
        async with AsyncExitStack() as stack:
            traces = [gate.follow() for _ in range(MAX_CLIENTS)]
            for each in traces:
                await anext(await stack.enter_async_context(aclosing(each)))
            with pytest.raises(RequestRefused, match="clients trace already"):
                await anext(gate.follow())
            await traces[0].aclose()
            async with aclosing(gate.follow()) as another:
                assert (await anext(another))["event"] == "watching"

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "request_",
    [{"count": 0}, {"count": "1"}, {"count": True}, {"call_id": 5}, {"internal": "phone"}],
)
def test_a_request_that_makes_no_sense_is_refused(request_: dict[str, object]) -> None:
    with pytest.raises(RequestRefused):
        Gate().follow(**request_)
