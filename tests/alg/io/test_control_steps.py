"""Answers at the control socket that are not plain rows: awaited ones, and steps without a row."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from alg.io.control import ControlError, ControlServer, Handler, Row, ask


def answer(path: Path, handler: Handler) -> list[dict[str, object]]:
    """Returns the rows that a client gets of one handler."""

    async def serve() -> list[dict[str, object]]:
        server = ControlServer(path, {"show": handler})
        await server.start()
        try:
            return await asyncio.to_thread(lambda: list(ask(path, {"command": "show"})))
        finally:
            await server.stop()

    return asyncio.run(serve())


def test_a_step_without_a_row_sends_nothing_and_lets_others_have_the_loop(tmp_path: Path) -> None:
    turns: list[int] = []

    async def counted(request: Row) -> Iterator[Row | None]:
        asyncio.get_running_loop().call_soon(turn)
        return (({"row": i} if i == 950 else None) for i in range(1000))

    def turn() -> None:
        turns.append(1)
        asyncio.get_running_loop().call_soon(turn)

    assert answer(tmp_path / "control.sock", counted) == [{"row": 950}]
    assert len(turns) >= 10


def test_what_an_answer_waits_for_happens_beside_the_loop(tmp_path: Path) -> None:
    threads = set()

    async def waiting(request: Row) -> list[Row]:
        threads.add(threading.get_ident())
        await asyncio.to_thread(lambda: threads.add(threading.get_ident()))
        return [{"sent": 1}]

    assert answer(tmp_path / "control.sock", waiting) == [{"sent": 1}]
    assert len(threads) == 2


def test_a_failure_while_waiting_is_an_error_like_any_other(tmp_path: Path) -> None:
    async def failing(request: Row) -> list[Row]:
        raise KeyError

    with pytest.raises(ControlError, match="the request failed"):
        answer(tmp_path / "control.sock", failing)
