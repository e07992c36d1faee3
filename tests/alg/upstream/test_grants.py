"""What is wanted of the gateway above, and what becomes of who waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from alg.upstream import grants as module
from alg.upstream.grants import LIFETIME, Grants
from alg.upstream.mapper import Denied, Grant, Key, Mapper, Silent
from nat_table.binding import Binding, Kind, Owner, Pinhole
from nat_table.changes import Change, Closed, Opened
from nat_table.endpoint import Endpoint, Transport

HOST, PUBLIC = "10.0.0.20", "203.0.113.1"
PINHOLE = Pinhole(Owner("call"), 60.0)


class Asked(Mapper):
    """A gateway that grants at once; `answers` has what it does instead, by port."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []
        self.answers: dict[int, Exception | Grant | Awaitable[None]] = {}

    async def map(self, key: Key, lifetime: int) -> Grant:
        self.asked.append((key[1], lifetime))
        answer = self.answers.get(key[1])
        if isinstance(answer, Exception) and lifetime:
            raise answer
        if isinstance(answer, Grant):
            return answer
        if isinstance(answer, Awaitable):
            await answer
        return Grant(Endpoint(PUBLIC, key[1]), lifetime)


class Scene:
    """The parts, and what was called."""

    def __init__(self) -> None:
        self.gateway = Asked()
        self.grants = Grants()
        self.refused: list[int] = []
        self.settled = 0
        self.grants.refused = lambda binding: self.refused.append(binding.external.port)
        self.grants.settled = self._settle
        self.grants.use(self.gateway, ())

    def _settle(self) -> None:
        self.settled += 1

    def open(self, *ports: int) -> None:
        self.grants.follow([Opened(bind(port), PINHOLE) for port in ports])


def bind(port: int, *, address: str = PUBLIC) -> Binding:
    return Binding(Transport.UDP, Endpoint(HOST, port), Endpoint(address, port), Kind.RTP, 0.0)


def close(port: int) -> Change:
    return Closed(bind(port), (PINHOLE,))


async def quiet() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def play(scene: Callable[[Scene], Awaitable[None]]) -> None:
    async def run() -> None:
        await scene(Scene())

    asyncio.run(run())


def test_who_waits_goes_on_when_all_of_its_host_is_granted() -> None:
    async def scene(it: Scene) -> None:
        gate = asyncio.get_running_loop().create_future()
        it.gateway.answers[4001] = gate
        it.open(4000, 4001)
        await quiet()
        assert it.grants.is_waiting(HOST) and not it.grants.is_waiting("10.0.0.21")
        assert (it.grants.count, it.settled) == (1, 0)
        gate.set_result(None)
        await quiet()
        assert not it.grants.is_waiting(HOST)
        assert (it.grants.count, it.settled) == (2, 1)
        assert it.gateway.asked == [(4000, LIFETIME), (4001, LIFETIME)]

    play(scene)


def test_what_closes_is_ended_above_even_while_it_is_asked_for() -> None:
    async def scene(it: Scene) -> None:
        gate = asyncio.get_running_loop().create_future()
        it.gateway.answers[4000] = gate
        it.open(4000)
        await quiet()
        it.grants.follow([close(4000)])
        assert not it.grants.is_waiting(HOST)
        gate.set_result(None)
        await quiet()
        assert it.gateway.asked == [(4000, LIFETIME), (4000, 0)]
        assert it.grants.count == 0

    play(scene)


def test_what_moves_to_another_address_is_not_asked_for_again() -> None:
    async def scene(it: Scene) -> None:
        it.open(4000)
        await quiet()
        moved = bind(4000, address="203.0.113.2")
        it.grants.follow([close(4000), Opened(moved, PINHOLE)])
        it.grants.follow([close(4000), Opened(moved, PINHOLE), Closed(moved, (PINHOLE,))])
        await quiet()
        assert it.gateway.asked == [(4000, LIFETIME), (4000, 0)]

    play(scene)


@pytest.mark.parametrize("is_said", [True, False])
def test_a_port_of_somebody_else_is_told_of_and_given_back(is_said: bool) -> None:
    async def scene(it: Scene) -> None:
        denied = Denied("CANNOT_PROVIDE_EXTERNAL", is_port=True)
        it.gateway.answers[4000] = denied if is_said else Grant(Endpoint(PUBLIC, 4711), 600)
        it.open(4000)
        await quiet()
        assert (it.refused, it.settled, it.grants.count) == ([4000], 1, 0)
        assert ((4000, 0) in it.gateway.asked) is not is_said

    play(scene)


def test_a_gateway_that_has_no_port_for_a_host_is_not_asked_for_all() -> None:
    async def scene(it: Scene) -> None:
        def take_another(binding: Binding) -> None:
            port = binding.external.port
            it.refused.append(port)
            it.grants.follow([close(port), Opened(bind(port + 1), PINHOLE)])

        it.grants.refused = take_another
        denied = Denied("CANNOT_PROVIDE_EXTERNAL", is_port=True)
        it.gateway.answers = dict.fromkeys(range(4000, 4100), denied)
        it.open(4000)
        async with asyncio.timeout(5.0):
            while it.grants.is_waiting(HOST):
                await quiet()
        assert it.refused == list(range(4000, 4000 + module.MAX_REFUSALS))

    play(scene)


@pytest.mark.parametrize("answer", [Silent(), Denied("NO_RESOURCES")])
def test_nobody_waits_for_a_gateway_that_does_not_map_and_it_is_asked_again(
    answer: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "RETRY_INTERVAL", 0.01)

    async def scene(it: Scene) -> None:
        it.gateway.answers[4000] = answer
        it.open(4000)
        await asyncio.sleep(0.1)
        assert (it.refused, it.settled, it.grants.count) == ([], 1, 0)
        del it.gateway.answers[4000]
        await asyncio.sleep(0.1)
        assert it.grants.count == 1
        assert caplog.text.count("does not map udp port 4000") == 1

    play(scene)


def test_what_was_granted_is_renewed_at_half_its_life() -> None:
    async def scene(it: Scene) -> None:
        it.gateway.answers[4000] = Grant(Endpoint(PUBLIC, 4000), 2)
        it.open(4000)
        await asyncio.sleep(1.3)
        assert it.gateway.asked == [(4000, LIFETIME)] * 2

    play(scene)


def test_nobody_waits_for_long_however_many_are_asked_for_before(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.01)

    async def scene(it: Scene) -> None:
        gate = it.gateway.answers[4000] = asyncio.get_running_loop().create_future()
        it.open(4000)
        await asyncio.sleep(0.1)
        assert not it.grants.is_waiting(HOST) and it.settled == 1
        assert caplog.text.count("takes long to map udp port 4000") == 1
        gate.set_result(None)
        await quiet()
        assert (it.grants.count, it.settled) == (1, 1)

    play(scene)


def test_what_stands_already_is_asked_for_and_waited_for_by_nobody() -> None:
    async def scene(it: Scene) -> None:
        it.gateway.answers[4000] = Denied("CANNOT_PROVIDE_EXTERNAL", is_port=True)
        it.grants.use(None, ())
        it.grants.use(it.gateway, [bind(4000), bind(4001)])
        assert not it.grants.is_waiting(HOST)
        await quiet()
        assert (it.refused, it.grants.count) == ([], 1), "phones have been told of it"
        it.grants.ask_again()
        await quiet()
        assert it.gateway.asked == [(4000, LIFETIME), (4001, LIFETIME)] * 2

    play(scene)


def test_ipv6_is_not_asked_for_and_without_a_gateway_nothing_is() -> None:
    async def scene(it: Scene) -> None:
        six = replace(bind(4000), external=Endpoint("2001:db8::1", 4000))
        it.grants.follow([Opened(six, PINHOLE)])
        it.grants.use(None, ())
        it.open(4000)
        await quiet()
        assert it.gateway.asked == [] and not it.grants.is_waiting(HOST)

    play(scene)


def test_a_gateway_that_begins_anew_all_the_time_is_not_asked_more_and_more() -> None:
    """Who writes the gateway's address into announcements must not fill our memory."""

    async def scene() -> None:
        parts, held = Scene(), asyncio.get_running_loop().create_future()
        parts.gateway.answers[4000] = held
        parts.open(4000)
        await asyncio.sleep(0)
        for _ in range(1000):
            parts.grants.ask_again()
            await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) <= 3
        held.set_result(None)
        await asyncio.sleep(0.01)
        assert parts.gateway.asked == [(4000, LIFETIME)] * 2

    asyncio.run(scene())
