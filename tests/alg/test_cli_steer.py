"""Steering commands as a user meets them, with a gateway that says what the test has it say."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from alg.cli import app
from alg.io.control import ControlServer, Request, RequestRefused, Row

HOSTILE = "[bold]\x1b]0;owned\x07\x9b31m\u202e<script>\n"
STATUS: dict[str, object] = {
    "version": "1.2.3",
    "uptime": 754.2,
    "draining": False,
    "is_behind": False,
    "faults": [],
    "calls": 2,
    "registrations": 20,
    "connections": 0,
    "mappings": 46,
}
MAPPING: dict[str, object] = {
    "what": "mapping",
    "kind": "rtp",
    "transport": "udp",
    "internal": "10.0.0.20:4000",
    "external": "203.0.113.1:4000",
}


class FakeGateway:
    """Answers at `path`, and keeps the requests."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.requests: list[Request] = []
        self.rows: list[Row] = []
        self.refusal = ""

    def answer(self, request: Request) -> list[Row]:
        self.requests.append(request)
        if self.refusal:
            raise RequestRefused(self.refusal, "refused")
        return self.rows

    async def stream(self, request: Request) -> AsyncIterator[Row]:
        for row in self.answer(request):
            yield row

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(app, [*arguments, "--control", self.path], prog_name="sipnat")


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[FakeGateway]:
    fake = FakeGateway(str(tmp_path / "control.sock"))
    handlers = dict.fromkeys(("status", "drop", "reload"), fake.answer)
    server = ControlServer(fake.path, handlers | dict.fromkeys(("drain", "flush"), fake.stream))
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(server.start(), loop).result(5)
    yield fake
    asyncio.run_coroutine_threadsafe(server.stop(), loop).result(5)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def test_status_is_one_line_or_one_row(gateway: FakeGateway) -> None:
    gateway.rows = [STATUS]
    line = "sipnat 1.2.3 up 754s, in service: calls 2, registrations 20, mappings 46\n"
    assert gateway.run("status").stdout == line
    assert json.loads(gateway.run("status", "--json").stdout) == [STATUS]
    gateway.rows = [STATUS | {"draining": True, "is_behind": True}]
    assert "draining and the kernel is behind: " in gateway.run("status").stdout
    gateway.rows = [STATUS | {"faults": ["interface wan0 is down\x1b[2J"]}]
    assert ", interface wan0 is down\\x1b[2J: calls" in gateway.run("status").stdout


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        (["10.0.0.20:4000"], {"mapping": "10.0.0.20:4000"}),
        (["[2001:db8::1]:4000"], {"mapping": "[2001:db8::1]:4000"}),
        (
            ["10.0.0.20:4000", "--transport", "tcp"],
            {"mapping": "10.0.0.20:4000", "transport": "tcp"},
        ),
        (["a84b4c76@10.0.0.20"], {"call_id": "a84b4c76@10.0.0.20"}),
        (["10.0.0.20:99999"], {"call_id": "10.0.0.20:99999"}),
    ],
)
def test_what_is_dropped_is_a_mapping_or_a_call_id(
    gateway: FakeGateway, arguments: list[str], asked: dict[str, str]
) -> None:
    gateway.rows = [{"what": "call", "host": "10.0.0.20", "call_id": HOSTILE}, MAPPING]
    assert gateway.run("drop", *arguments).stdout.splitlines() == [
        "call of 10.0.0.20 ended",
        "rtp/udp 10.0.0.20:4000 <-> 203.0.113.1:4000 closed",
    ]
    [request] = gateway.requests
    assert request == {"version": 1, "command": "drop", **asked}


def test_a_refusal_is_one_safe_sentence_and_status_1(gateway: FakeGateway) -> None:
    gateway.refusal = f"nothing has changed: {HOSTILE}"
    for command in (["reload"], ["drop", HOSTILE], ["drain"], ["flush"], ["status"]):
        result = gateway.run(*command)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.startswith("sipnat: nothing has changed: ")
        assert result.stderr.count("\n") == 1 and "\x1b" not in result.stderr


def test_a_longer_call_id_than_a_request_may_have_is_refused(gateway: FakeGateway) -> None:
    result = gateway.run("drop", "x" * 60_000)
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1


def test_draining_says_what_changes_until_it_ends(gateway: FakeGateway) -> None:
    draining = STATUS | {"draining": True}
    gateway.rows = [draining, draining, draining | {"calls": 0}]
    assert gateway.run("drain", "--wait").stdout.splitlines() == [
        "calls that go on: 2; new ones are turned away",
        "calls that go on: 0; new ones are turned away",
    ]
    assert gateway.requests[-1] == {"version": 1, "command": "drain", "off": False, "wait": True}
    gateway.rows = [STATUS]
    assert gateway.run("drain", "--off").stdout == "new calls are taken\n"
    assert json.loads(gateway.run("drain", "--json").stdout) == [STATUS]


def test_a_reload_says_of_each_key_what_becomes_of_it(gateway: FakeGateway) -> None:
    gateway.rows = [{"key": "queue", "state": "at the next start"}]
    assert gateway.run("reload").stdout == "queue: at the next start\n"
    assert json.loads(gateway.run("reload", "--json").stdout) == gateway.rows
    gateway.rows = []
    assert gateway.run("reload").stdout == "nothing has changed\n"
    assert json.loads(gateway.run("reload", "--json").stdout) == []


@pytest.mark.parametrize(("answer", "status"), [(b"y\n", 0), (b"n\n", 1), (b"\n", 1)])
def test_on_a_terminal_a_flush_asks_first(gateway: FakeGateway, answer: bytes, status: int) -> None:
    gateway.rows = [{"mappings": 100}, {"mappings": 146}]
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "alg", "flush", "--control", gateway.path]
    with subprocess.Popen(
        command, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        os.close(theirs)
        os.write(ours, answer)
        printed, _ = process.communicate(timeout=20)
    os.close(ours)
    assert process.returncode == status
    assert len(gateway.requests) == (status == 0)
    assert printed.strip() == ("mappings closed: 146" if status == 0 else "")


def test_a_flush_that_is_sure_or_has_no_terminal_does_not_ask(gateway: FakeGateway) -> None:
    gateway.rows = [{"mappings": 3}]
    assert gateway.run("flush").stdout == "mappings closed: 3\n"
    assert gateway.run("flush", "--yes", "--all").exit_code == 0
    assert [request["all"] for request in gateway.requests] == [False, True]
