"""A gateway at a real control socket that says what a test has it say."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import pytest

from alg.io.control import ControlServer, Handler, RequestRefused

Row = Mapping[str, object]
Serve = Callable[[Iterable[Row]], str]

LEASE: dict[str, object] = {
    "transport": "tcp",
    "internal": "10.0.0.20:4000",
    "external": "203.0.113.1:4000",
    "kind": "any",
    "remote": None,
    "source": "pcp",
    "name": "00ff",
    "expires_in": None,
}


@pytest.fixture
def asked() -> list[dict[str, object]]:
    """Returns the requests `map` that a gateway has been sent."""
    return []


@pytest.fixture
def serve(tmp_path: Path, asked: list[dict[str, object]]) -> Iterator[Serve]:
    """Returns a function that makes a gateway show the given rows, and names its socket."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    servers = []

    def answer(request: Mapping[str, object]) -> Iterable[Row]:
        asked.append(dict(request))
        if request["action"] == "release":
            raise RequestRefused("there is no such mapping", "no-mapping")
        return [LEASE]

    def start(rows: Iterable[Row]) -> str:
        path = str(tmp_path / "control.sock")
        asked_for = dict.fromkeys(("show", "why", "trace"), lambda request: rows)
        handlers: dict[str, Handler] = {**asked_for, "map": answer}
        servers.append(ControlServer(path, handlers))
        asyncio.run_coroutine_threadsafe(servers[0].start(), loop).result(5)
        return path

    yield start
    for server in servers:
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result(5)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
