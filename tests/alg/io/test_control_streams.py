"""Streams at the control socket: rows that come when they come, and clients that harm nobody."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import socket
import threading
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from alg.io.control import ControlError, ControlServer, Handler, RequestRefused, ask

TICK = b'{"version":1,"command":"tick"}\n'
WAITING = 5.0


class Ticker:
    """Streams of numbers; `is_closed` is set for each that was begun and has ended."""

    def __init__(self) -> None:
        self.begun = 0
        self.given = 0
        self.is_closed = asyncio.Event()
        self.handlers: dict[str, Handler] = {
            "tick": self.tick,
            "idle": self.idle,
            "few": self.few,
            "refuse": self.refuse,
            "fail": self.fail,
            "show": lambda request: [{"shown": True}],
        }

    async def tick(self, request: Mapping[str, object]) -> AsyncIterator[dict[str, object]]:
        self.begun += 1
        try:
            for number in itertools.count():
                self.given = number
                yield {"number": number, "padding": "x" * 1000}
                await asyncio.sleep(0)
        finally:
            self.is_closed.set()

    async def idle(self, request: Mapping[str, object]) -> AsyncIterator[dict[str, object]]:
        self.begun += 1
        try:
            yield {"number": 0}
            await asyncio.Event().wait()
        finally:
            self.is_closed.set()

    async def few(self, request: Mapping[str, object]) -> AsyncIterator[dict[str, object]]:
        for number in range(3):
            await asyncio.sleep(0.02)
            yield {"number": number}

    async def refuse(self, request: Mapping[str, object]) -> AsyncIterator[dict[str, object]]:
        yield {"number": 0}
        raise RequestRefused("the call is over", "over")

    async def fail(self, request: Mapping[str, object]) -> AsyncIterator[dict[str, object]]:
        yield {"number": 0}
        raise KeyError("a fault of ours")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control.sock"


@contextlib.asynccontextmanager
async def serving(path: Path, **limits: float) -> AsyncIterator[Ticker]:
    ticker = Ticker()
    server = ControlServer(path, ticker.handlers, **limits)  # type: ignore[arg-type]
    await server.start()
    try:
        yield ticker
    finally:
        await server.stop()


async def answer(path: Path, command: str) -> list[dict[str, object]]:
    return await asyncio.to_thread(lambda: list(ask(path, {"command": command})))


async def begin(path: Path, command: str = "tick") -> socket.socket:
    """Asks for a stream and returns the socket at its first octet."""
    client = socket.socket(socket.AF_UNIX)
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(client, str(path))
    await loop.sock_sendall(client, TICK.replace(b"tick", command.encode()))
    assert await asyncio.wait_for(loop.sock_recv(client, 1), WAITING) == b"{"
    return client


def test_rows_come_when_they_come_and_may_take_longer_than_a_conversation(path: Path) -> None:
    async def scenario() -> None:
        async with serving(path, client_timeout=0.03):
            assert [row["number"] for row in await answer(path, "few")] == [0, 1, 2]

    asyncio.run(scenario())


@pytest.mark.parametrize("command", ["tick", "idle"])
def test_a_client_that_hangs_up_ends_its_stream_even_where_nothing_is_sent(
    path: Path, command: str
) -> None:
    async def scenario() -> None:
        async with serving(path) as ticker:
            (await begin(path, command)).close()
            await asyncio.wait_for(ticker.is_closed.wait(), WAITING)

    asyncio.run(scenario())


def test_rows_that_come_at_once_are_not_written_to_a_client_that_is_gone(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def burst(request: Mapping[str, object]) -> AsyncIterator[dict[str, object]]:
        yield {"number": 0}
        is_gone.wait(WAITING)
        for number in range(100):
            yield {"number": number}

    async def scenario() -> None:
        server = ControlServer(path, {"burst": burst})
        await server.start()
        hanging_up = asyncio.to_thread(ask_and_go)
        try:
            await asyncio.wait_for(hanging_up, WAITING)
            await asyncio.sleep(0.05)
        finally:
            await server.stop()

    def ask_and_go() -> None:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(TICK.replace(b"tick", b"burst"))
            client.recv(1)
        is_gone.set()

    is_gone = threading.Event()
    asyncio.run(scenario())
    assert caplog.messages == []


def test_a_client_with_no_more_to_say_is_still_streamed_to(path: Path) -> None:
    async def scenario() -> None:
        async with serving(path) as ticker:
            client = await begin(path)
            client.shutdown(socket.SHUT_WR)
            await asyncio.sleep(0.05)
            before = ticker.given
            loop = asyncio.get_running_loop()
            while ticker.given < before + 1000:
                assert await asyncio.wait_for(loop.sock_recv(client, 1 << 16), WAITING)
            client.close()
            await asyncio.wait_for(ticker.is_closed.wait(), WAITING)

    asyncio.run(scenario())


def test_a_finite_answer_comes_whole_after_the_clients_last_word(path: Path) -> None:
    async def scenario() -> bytes:
        async with serving(path):
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(TICK.replace(b"tick", b"few"))
            writer.write_eof()  # as nc -N does
            answered = await asyncio.wait_for(reader.read(), WAITING)
            writer.close()
            return answered

    *rows, last = map(json.loads, asyncio.run(scenario()).splitlines())
    assert len(rows) == 3
    assert last == {"done": True}


def test_a_client_that_takes_nothing_is_asked_for_nothing_and_dropped(path: Path) -> None:
    async def scenario() -> None:
        async with serving(path, client_timeout=0.2) as ticker:
            with await begin(path):
                await asyncio.sleep(0.1)
                standing = ticker.given
                assert await answer(path, "show") == [{"shown": True}]
                assert ticker.given == standing
                await asyncio.wait_for(ticker.is_closed.wait(), WAITING)

    asyncio.run(scenario())


def test_streams_have_a_limit_of_their_own_and_others_are_answered_beside_them(
    path: Path,
) -> None:
    async def scenario() -> None:
        async with serving(path, max_clients=1, max_streams=2) as ticker:
            with await begin(path, "idle"), await begin(path, "idle"):
                with pytest.raises(ControlError, match=r"^there are too many streams already$"):
                    await answer(path, "few")
                assert await answer(path, "show") == [{"shown": True}]
                ticker.is_closed.clear()
            await asyncio.wait_for(ticker.is_closed.wait(), WAITING)
            await asyncio.sleep(0.01)
            assert len(await answer(path, "few")) == 3

    asyncio.run(scenario())


def test_a_refusal_or_a_fault_between_rows_ends_the_stream(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with serving(path):
            with pytest.raises(ControlError, match=r"^the call is over$") as refusal:
                await answer(path, "refuse")
            assert refusal.value.code == "over"
            with pytest.raises(ControlError, match=r"^the request failed"):
                await answer(path, "fail")

    asyncio.run(scenario())
    assert "a fault of ours" in caplog.text


def test_a_stop_ends_streams(path: Path) -> None:
    async def scenario() -> None:
        async with serving(path) as ticker:
            client = await begin(path, "idle")
        assert ticker.is_closed.is_set()
        client.close()

    asyncio.run(asyncio.wait_for(scenario(), WAITING))
