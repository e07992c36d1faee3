"""Turns: everybody comes, in order, and the event loop in between."""

from __future__ import annotations

import asyncio

import pytest

from alg.io import turns
from alg.io.turns import Turns
from tests.alg.io.wires import Recorder, run, wired

OPTIONS = b"options sip:example.com SIP/2.0\r\nl: 0\r\n\r\n"


class Worker:
    """Has so many pieces of work, and notes each."""

    def __init__(self, name: str, pieces: int, done: list[str]) -> None:
        self._name = name
        self._pieces = pieces
        self._done = done

    def work(self) -> bool:
        self._done.append(self._name)
        self._pieces -= 1
        return self._pieces > 0


@run
async def test_the_loop_goes_round_between_two_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "SLICE", 0.0)
    queue, done = Turns(), list[str]()
    for name, pieces in (("a", 3), ("b", 1), ("c", 2)):
        queue.ask(Worker(name, pieces, done))
    for count in range(1, 7):
        await asyncio.sleep(0)
        assert "".join(done) == "abcaca"[:count]


@run
async def test_within_a_slice_all_have_their_turns() -> None:
    queue, done = Turns(), list[str]()
    for _ in range(2):
        for name in "ab":
            queue.ask(Worker(name, 1, done))
        await asyncio.sleep(0)
    assert done == ["a", "b"] * 2


@run
async def test_a_connection_takes_a_turn_for_each_of_its_messages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns, "SLICE", 0.0)
    looks: list[int] = []
    owner = Recorder()

    async def look() -> None:
        while True:
            looks.append(len(owner.seen))
            await asyncio.sleep(0)

    async with wired(owner) as wire:
        looking = asyncio.create_task(look())
        await wire.phone.send(OPTIONS * 20)
        assert await wire.server.receive(20 * len(OPTIONS)) == OPTIONS.upper() * 20
        looking.cancel()
    assert set(looks) >= set(range(1, 20))
