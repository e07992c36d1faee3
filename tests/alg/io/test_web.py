"""The HTTP server with real sockets: whom it answers, and that nobody does harm."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from alg.io import web
from alg.io.web import Answer, Asked, WebServer

Exchange = Callable[[bytes], Awaitable[tuple[int, dict[str, str], bytes]]]


async def echo(asked: Asked) -> Answer:
    """Answers with the path and the query."""
    if asked.path == "/fail":
        raise KeyError("a fault of ours")
    if asked.path == "/hang":
        await asyncio.Event().wait()
    return Answer(f"{asked.path} {dict(asked.query)} {asked.accept}".encode())


@contextlib.asynccontextmanager
async def serving(
    answer: web.Answering = echo, *names: str, address: str = "127.0.0.1"
) -> AsyncIterator[tuple[str, int]]:
    """Yields where a server listens, at a port that was free."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    host = f"[{address}]" if ":" in address else address
    server = WebServer(f"{host}:{port}", names, answer)
    await server.start()
    try:
        yield address, port
    finally:
        await server.close()


async def send(where: tuple[str, int], raw: bytes) -> tuple[int, dict[str, str], bytes]:
    """Sends bytes on a connection of its own; returns status, header fields and body."""
    reader, writer = await asyncio.open_connection(*where)
    try:
        writer.write(raw)
        status = int((await reader.readline()).split()[1])
        fields: dict[str, str] = {}
        while (line := await reader.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode().partition(":")
            fields[name.lower()] = value.strip()
        body = b""
        if not raw.startswith(b"HEAD"):
            body = await reader.readexactly(int(fields.get("content-length", "0")))
        return status, fields, body
    finally:
        writer.transport.abort()


def get(path: str = "/", *hosts: str) -> bytes:
    lines = [f"GET {path} HTTP/1.1", *(f"Host: {host}" for host in hosts or ("127.0.0.1",))]
    return "\r\n".join((*lines, "", "")).encode()


@pytest.mark.parametrize(
    ("hosts", "status"),
    [
        (("127.0.0.1:9570",), 200),
        (("192.0.2.1",), 200),
        (("[2001:db8::1]:9570",), 200),
        (("LOCALHOST:9570",), 200),
        (("router.example.com",), 200),
        ((os.uname().nodename,), 200),
        (("evil.example:9570",), 403),
        (("127.0.0.1.evil.example",), 403),
        (("localhost.evil.example",), 403),
        (("127.0.0.1:9570@evil.example",), 403),
        (("127.0.0.1:evil",), 403),
        (("",), 403),
        (("127.0.0.1", "evil.example"), 400),
    ],
)
def test_only_who_asks_by_our_name_is_answered(hosts: tuple[str, ...], status: int) -> None:
    async def scene() -> None:
        async with serving(echo, "Router.Example.com") as where:
            answered, _, body = await send(where, get("/", *hosts))
            assert answered == status, body

    asyncio.run(scene())


def test_without_a_host_nobody_is_answered() -> None:
    async def scene() -> None:
        async with serving() as where:
            assert (await send(where, b"GET / HTTP/1.0\r\n\r\n"))[0] == 403

    asyncio.run(scene())


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"])
def test_nothing_can_be_changed(method: str) -> None:
    async def scene() -> None:
        async with serving() as where:
            raw = f"{method} / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
            status, fields, _ = await send(where, raw)
            assert (status, fields.get("allow")) in ((405, "GET, HEAD"), (400, None))

    asyncio.run(scene())


def test_a_browser_is_kept_from_running_loading_or_framing_anything_else() -> None:
    async def scene() -> None:
        async with serving() as where:
            for raw in (get(), get().replace(b"GET", b"HEAD"), get("/fail"), get("/", "evil")):
                _, fields, _ = await send(where, raw)
                policy = fields["content-security-policy"]
                assert policy.startswith("default-src 'none'; script-src 'self';")
                assert "unsafe" not in policy
                assert "frame-ancestors 'none'" in policy
                assert fields["x-content-type-options"] == "nosniff"
                assert fields["cross-origin-resource-policy"] == "same-origin"
                assert "access-control-allow-origin" not in fields
                assert fields["server"] == "sipnat"

    asyncio.run(scene())


def test_a_query_is_handed_on() -> None:
    async def scene() -> None:
        async with serving() as where:
            _, _, body = await send(where, get("/api/x?call_id=%3Cb%3E%0a&n=2"))
            assert body == b"/api/x {'call_id': '<b>\\n', 'n': '2'} "

    asyncio.run(scene())


def test_a_fault_of_ours_is_one_sentence_and_one_log_entry(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scene() -> None:
        async with serving() as where:
            status, _, body = await send(where, get("/fail"))
            assert (status, b"KeyError" in body) == (500, False)

    asyncio.run(scene())
    assert [record.message for record in caplog.records] == ["an HTTP request failed"]


@pytest.mark.parametrize(
    "raw",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
        b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -1\r\n\r\n",
        b"\0" * 1000,
    ],
)
def test_garbage_is_refused_and_not_logged(raw: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        async with serving() as where:
            with contextlib.suppress(ConnectionError, IndexError):
                assert (await send(where, raw))[0] == 400
            assert (await send(where, get()))[0] == 200

    asyncio.run(scene())
    assert not [each for each in caplog.records if each.levelname != "DEBUG"]


def test_those_that_hang_keep_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "MAX_CONNECTIONS", 4)

    async def scene() -> None:
        async with asyncio.timeout(5), serving() as where:
            hanging = [await asyncio.open_connection(*where) for _ in range(12)]
            assert (await send(where, get()))[0] == 200
            reader, _ = hanging[0]
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b"", "the oldest was let go"
            for _, writer in hanging:
                writer.transport.abort()

    asyncio.run(scene())


def test_an_answer_that_takes_too_long_ends_and_lets_the_next_one_through(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(web, "TIMEOUT", 0.2)

    async def scene() -> None:
        async with serving() as where:
            first = asyncio.create_task(send(where, get("/hang")))
            assert (await first)[0] == 503
            assert (await send(where, get()))[0] == 200

    asyncio.run(scene())


def test_one_request_is_worked_on_at_a_time() -> None:
    busy, most = 0, 0

    async def answer(asked: Asked) -> Answer:
        nonlocal busy, most
        busy, most = busy + 1, max(most, busy + 1)
        await asyncio.sleep(0.01)
        busy -= 1
        return Answer(b"")

    async def scene() -> None:
        async with serving(answer) as where:
            answers = await asyncio.gather(*(send(where, get()) for _ in range(10)))
            assert {status for status, _, _ in answers} == {200}

    asyncio.run(scene())
    assert most == 1


def test_it_listens_at_an_ipv6_address_too() -> None:
    async def scene() -> None:
        async with serving(address="::1") as where:
            assert (await send(where, get("/", f"[::1]:{where[1]}")))[0] == 200

    asyncio.run(scene())


def test_closing_waits_for_no_client() -> None:
    async def scene() -> None:
        async with asyncio.timeout(5), serving() as where:
            idle = await asyncio.open_connection(*where)
            kept = await asyncio.open_connection(*where)
            kept[1].write(get())
            await kept[0].readline()
            working = asyncio.create_task(send(where, get("/hang")))
            await asyncio.sleep(0.1)
        for reader, writer in (idle, kept):
            with contextlib.suppress(ConnectionError):
                await reader.read()
            writer.transport.abort()
        with contextlib.suppress(ConnectionError, IndexError):
            await working

    asyncio.run(scene())


def test_a_port_in_use_is_an_error() -> None:
    async def scene() -> None:
        async with serving() as (address, port):
            with pytest.raises(OSError, match="in use"):
                await WebServer(f"{address}:{port}", (), echo).start()

    asyncio.run(scene())
