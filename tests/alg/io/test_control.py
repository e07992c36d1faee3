"""The control socket with real sockets: what is asked is answered, and no client does harm."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import socket
import stat
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alg.io.control import (
    MAX_REQUEST,
    ROWS_PER_CHUNK,
    ControlError,
    ControlInUse,
    ControlServer,
    RequestRefused,
    ask,
)

ROWS = [{"internal": f"10.0.0.{host}:4000", "call_id": None} for host in range(1, 255)]
SHOW = {"command": "show", "what": "mappings"}
SHOW_LINE = b'{"version":1,"command":"show","what":"mappings"}\n'


def show(request: Mapping[str, object]) -> Iterable[Mapping[str, object]]:
    if request["what"] != "mappings":
        raise RequestRefused("nothing of that name can be shown")
    return ROWS


def refuse_later(request: Mapping[str, object]) -> Iterator[Mapping[str, object]]:
    yield ROWS[0]
    raise RequestRefused("the table went away", "gone")


def fail(request: Mapping[str, object]) -> Iterable[Mapping[str, object]]:
    raise KeyError("a fault of ours")


def show_forever(request: Mapping[str, object]) -> Iterable[Mapping[str, object]]:
    return itertools.repeat(ROWS[0])


HANDLERS = {"show": show, "late": refuse_later, "fail": fail, "forever": show_forever}
NO_COMMAND = f"the command is none of {', '.join(HANDLERS)}"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "control.sock"


@contextlib.asynccontextmanager
async def serving(
    path: Path, *, max_clients: int = 8, client_timeout: float = 5.0
) -> AsyncIterator[ControlServer]:
    server = ControlServer(path, HANDLERS, max_clients=max_clients, client_timeout=client_timeout)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def answer(path: Path, request: Mapping[str, object]) -> list[dict[str, object]]:
    return await asyncio.to_thread(lambda: list(ask(path, request)))


async def exchange(path: Path, sent: bytes) -> list[dict[str, object]]:
    """Sends bytes and returns the lines that come until the server closes."""
    reader, writer = await asyncio.open_unix_connection(path)
    with contextlib.suppress(ConnectionError):
        writer.write(sent)
        writer.write_eof()
        await writer.drain()
    lines = []
    with contextlib.suppress(ConnectionError):
        async for line in reader:
            lines.append(json.loads(line))
    writer.close()
    return lines


def test_rows_come_as_the_handler_made_them(path: Path) -> None:
    async def scenario() -> None:
        async with serving(path):
            assert await answer(path, SHOW) == ROWS

    asyncio.run(scenario())


def test_an_answer_is_rows_and_then_done(path: Path) -> None:
    async def scenario() -> None:
        async with serving(path):
            *rows, last = await exchange(path, SHOW_LINE)
            assert rows == [{"row": row} for row in ROWS]
            assert last == {"done": True}

    asyncio.run(scenario())


def test_a_request_may_end_with_the_stream(path: Path) -> None:
    async def scenario() -> None:
        async with serving(path):
            assert (await exchange(path, SHOW_LINE.rstrip()))[-1] == {"done": True}

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("request_line", "expected"),
    [
        (b"show mappings", "the request is not a JSON object on one line"),
        (b"[1]", "the request is not a JSON object on one line"),
        (b'{"version":1,"command":"\xff"}', "the request is not a JSON object on one line"),
        (b'{"a":' * 800, "the request is not a JSON object on one line"),
        (b"{}", "the request is not of version 1 of the control protocol"),
        (b'{"version":2}', "the request is not of version 1 of the control protocol"),
        (b'{"version":1}', NO_COMMAND),
        (b'{"version":1,"command":["show"]}', NO_COMMAND),
        (b'{"version":1,"command":"flush"}', NO_COMMAND),
        (b" " * MAX_REQUEST + SHOW_LINE, f"the request is longer than {MAX_REQUEST} bytes"),
        (
            b'{"version":1,"command":"show","what":"secrets"}',
            "nothing of that name can be shown",
        ),
    ],
)
def test_a_bad_request_is_answered_with_a_sentence(
    path: Path, request_line: bytes, expected: str
) -> None:
    async def scenario() -> None:
        async with serving(path):
            assert await exchange(path, request_line + b"\n") == [{"error": expected}]

    asyncio.run(scenario())


def test_a_refusal_may_have_a_code_for_the_client(path: Path) -> None:
    async def scenario() -> None:
        async with serving(path):
            with pytest.raises(ControlError, match="the table went away") as refusal:
                await answer(path, {"command": "late"})
            assert refusal.value.code == "gone"

    asyncio.run(scenario())


def test_the_client_reads_why_its_huge_request_was_refused(path: Path) -> None:
    async def scenario() -> None:
        async with serving(path):
            with pytest.raises(ControlError, match=f"longer than {MAX_REQUEST} bytes$"):
                await answer(path, {**SHOW, "filter": "x" * 1_000_000})

    asyncio.run(scenario())


@given(st.lists(st.binary(max_size=200), max_size=5))
def test_no_request_stops_the_server(
    tmp_path_factory: pytest.TempPathFactory, requests: list[bytes]
) -> None:
    async def scenario() -> None:
        path = tmp_path_factory.getbasetemp() / "fuzz.sock"
        async with serving(path):
            for request in requests:
                lines = await exchange(path, request)
                assert [set(line) for line in lines] == ([{"error"}] if request else [])
            assert (await exchange(path, SHOW_LINE))[-1] == {"done": True}

    asyncio.run(scenario())


def test_a_refusal_between_rows_ends_the_answer(path: Path) -> None:
    async def scenario() -> None:
        async with serving(path):
            with pytest.raises(ControlError, match=r"^the table went away$"):
                await answer(path, {"command": "late"})

    asyncio.run(scenario())


def test_a_fault_in_a_handler_is_logged_and_survived(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with serving(path):
            with pytest.raises(ControlError, match=r"^the request failed"):
                await answer(path, {"command": "fail"})
            assert await answer(path, SHOW) == ROWS

    asyncio.run(scenario())
    assert "a fault of ours" in caplog.text


def test_one_client_more_than_there_is_room_for_is_refused(path: Path) -> None:
    async def scenario() -> None:
        async with serving(path, max_clients=1):
            reader, writer = await asyncio.open_unix_connection(path)
            await asyncio.sleep(0)
            with pytest.raises(ControlError, match=r"^there are too many clients already$"):
                await answer(path, SHOW)
            writer.write(SHOW_LINE)
            assert (await reader.read()).endswith(b'{"done":true}\n')
            assert await answer(path, SHOW) == ROWS
            writer.close()

    asyncio.run(scenario())


def test_a_client_that_asks_nothing_is_dropped(path: Path) -> None:
    async def scenario() -> None:
        async with serving(path, client_timeout=0.05):
            reader, writer = await asyncio.open_unix_connection(path)
            assert await asyncio.wait_for(reader.read(), 2) == b""
            writer.close()

    asyncio.run(scenario())


def test_a_client_that_reads_nothing_is_dropped(path: Path) -> None:
    async def scenario() -> None:
        async with serving(path, max_clients=1, client_timeout=0.2):
            with socket.socket(socket.AF_UNIX) as deaf:
                deaf.connect(str(path))
                deaf.sendall(b'{"version":1,"command":"forever"}\n')
                await asyncio.sleep(0.4)
                assert await answer(path, SHOW) == ROWS

    asyncio.run(scenario())


def test_the_loop_turns_between_chunks_of_rows(path: Path) -> None:
    """A packet waits for one turn of the loop, so no turn may make more than a chunk of rows."""
    made = itertools.count()

    def count_rows(request: Mapping[str, object]) -> Iterator[Mapping[str, object]]:
        return ({"number": number} for number in made)

    async def scenario() -> list[int]:
        server = ControlServer(path, {"count": count_rows})
        await server.start()
        client = asyncio.create_task(exchange(path, b'{"version":1,"command":"count"}\n'))
        marks: list[int] = []
        while not marks or marks[-1] < 50 * ROWS_PER_CHUNK:
            await asyncio.sleep(0)
            marks.append(next(made))
        client.cancel()
        await server.stop()
        return marks

    marks = asyncio.run(scenario())
    assert max(after - before for before, after in itertools.pairwise(marks)) <= ROWS_PER_CHUNK + 1


def test_stop_leaves_clients_and_removes_the_socket(path: Path) -> None:
    async def scenario() -> None:
        async with serving(path) as server:
            reader, writer = await asyncio.open_unix_connection(path)
            await asyncio.sleep(0.01)
            await asyncio.wait_for(server.stop(), 1)
            assert not path.exists()
            assert await reader.read() == b""
            writer.close()

    asyncio.run(scenario())


def test_stop_spares_the_socket_of_a_successor(path: Path) -> None:
    async def scenario() -> None:
        async with serving(path):
            path.unlink()
            successor = ControlServer(path, HANDLERS)
            await successor.start()
        assert await answer(path, SHOW) == ROWS
        await successor.stop()

    asyncio.run(scenario())


def test_only_owner_and_group_may_connect(path: Path) -> None:
    async def scenario() -> None:
        async with serving(path):
            assert stat.S_IMODE(path.stat().st_mode) == 0o660
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755

    before = os.umask(0o077)
    try:
        asyncio.run(scenario())
    finally:
        os.umask(before)


def test_a_stale_socket_is_replaced(path: Path) -> None:
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))

    async def scenario() -> None:
        async with serving(path):
            assert await answer(path, SHOW) == ROWS

    asyncio.run(scenario())


def test_a_living_server_is_left_alone(path: Path) -> None:
    async def scenario() -> None:
        async with serving(path):
            with pytest.raises(ControlInUse, match="another sipnat is running"):
                await ControlServer(path, HANDLERS).start()
            assert await answer(path, SHOW) == ROWS

    asyncio.run(scenario())


def test_a_server_too_busy_to_accept_is_left_alone(path: Path) -> None:
    path.parent.mkdir()
    with contextlib.ExitStack() as sockets:
        busy = sockets.enter_context(socket.socket(socket.AF_UNIX))
        busy.bind(str(path))
        busy.listen(0)
        sockets.enter_context(socket.socket(socket.AF_UNIX)).connect(str(path))
        with pytest.raises(ControlInUse):
            asyncio.run(ControlServer(path, HANDLERS).start())


def test_another_file_is_never_removed(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("precious")
    with pytest.raises(ControlError, match="there is another file"):
        asyncio.run(ControlServer(path, HANDLERS).start())
    assert path.read_text() == "precious"


def test_a_socket_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ControlError, match=r"cannot make the control socket .*: Not a directory"):
        asyncio.run(ControlServer(tmp_path / "file" / "control.sock", HANDLERS).start())
    with pytest.raises(ControlError, match="path too long"):
        asyncio.run(ControlServer(tmp_path / ("x" * 108), HANDLERS).start())


@pytest.mark.parametrize("is_stale", [False, True])
def test_without_a_server_the_client_says_so(path: Path, is_stale: bool) -> None:
    path.parent.mkdir()
    if is_stale:
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
    with pytest.raises(ControlError, match=f"^no sipnat is running: nobody answers at {path}$"):
        list(ask(path, SHOW))


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (b'{"row":{}}\n', "ended its answer early"),
        (b"HTTP/1.1 400 Bad Request\r\n", "is not sipnat"),
        (b"{}\n", "is not sipnat"),
        (b"\xff\n", "is not sipnat"),
        (b'{"row":1}\n', "is not sipnat"),
        (None, "says nothing for 0.05 s"),
    ],
)
def test_a_strange_server_is_a_sentence(tmp_path: Path, reply: bytes | None, expected: str) -> None:
    path = tmp_path / "strange.sock"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        if reply is None:
            await reader.read()
        else:
            writer.write(reply)
        writer.close()

    async def scenario() -> None:
        async with await asyncio.start_unix_server(serve, path):
            with pytest.raises(ControlError, match=expected):
                await asyncio.to_thread(lambda: list(ask(path, SHOW, timeout=0.05)))

    asyncio.run(scenario())
