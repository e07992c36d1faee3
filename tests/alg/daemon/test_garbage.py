"""The cyclic collector looks through what is young, and no further."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator

import pytest

from alg.daemon import garbage
from alg.daemon.garbage import keep_out_of_sight


@pytest.fixture(autouse=True)
def threshold() -> Iterator[None]:
    """Leaves the collector of this process as it was."""
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


class _Knot:
    """An object that refers to itself."""

    def __init__(self) -> None:
        self.itself = self


def test_what_stays_is_frozen_and_young_knots_are_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(garbage, "INTERVAL", 0.01)

    async def play() -> None:
        task = asyncio.create_task(keep_out_of_sight())
        await asyncio.sleep(0)
        before = gc.get_freeze_count()
        stays = [_Knot() for _ in range(1000)]
        gone = weakref.ref(_Knot())
        await asyncio.sleep(0.1)
        assert gone() is None and len(stays) == 1000
        assert gc.get_freeze_count() > before + 900
        assert task.done() is False
        task.cancel()

    try:
        asyncio.run(play())
    finally:
        gc.unfreeze()


def test_all_is_looked_through_where_memory_has_grown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(garbage, "INTERVAL", 0.01)

    async def play() -> None:
        task = asyncio.create_task(keep_out_of_sight())
        knot = _Knot()
        gone = weakref.ref(knot)
        await asyncio.sleep(0.1)
        del knot
        await asyncio.sleep(0.1)
        assert gone() is not None
        monkeypatch.setattr(garbage, "_resident", lambda: 1 << 40)
        await asyncio.sleep(0.1)
        assert gone() is None
        task.cancel()

    try:
        asyncio.run(play())
    finally:
        gc.unfreeze()
