"""A beat is sent while the queue is served, by what the kernel tells of it from look to look."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import chain, repeat
from pathlib import Path

import pytest

from alg.daemon import supervision
from alg.daemon.supervision import Service, beat, report
from alg.io import systemd
from rules.inspection import QueueLoad

Load = tuple[int, int] | None  # packets that wait, packets seen


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Yields the socket at which systemd would listen."""
    address = str(tmp_path / "notify")
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as manager:
        manager.bind(address)
        manager.settimeout(5.0)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        yield manager


@pytest.mark.parametrize(
    ("loads", "goes_on"),
    [
        ([(0, 0), (0, 0), (0, 0)], True),
        ([(0, 5), (3, 8)], True),
        ([(3, 8), (0, 8)], True),
        ([(3, 8), (3, 11)], True),
        ([(8192, 9000), (8192, 9001)], True),
        ([(3, 8), (3, 8)], False),
        ([(3, 8), (5, 10)], False),
        ([(3, 8), (3, 8), (2, 8)], True),
        ([None, None], True),
        ([(3, 8), None, (3, 8)], True),
    ],
    ids=[
        *("idle", "come-since", "all-answered", "others-wait", "overloaded"),
        *(
            "none-answered",
            "none-answered-and-more-come",
            "answered-again",
            "not-told",
            "told-late",
        ),
    ],
)
def test_a_queue_is_not_served_when_some_wait_and_none_was_answered(
    loads: list[Load], goes_on: bool
) -> None:
    service = Service()
    answers = [service.goes_on(load and QueueLoad(load[0], 0, 0, load[1])) for load in loads]
    assert answers[-1] is goes_on


def test_a_packet_that_found_no_room_at_the_socket_was_not_answered() -> None:
    service = Service()
    assert service.goes_on(QueueLoad(waiting=90, refused=0, undelivered=0, seen=90))
    assert not service.goes_on(QueueLoad(waiting=90, refused=0, undelivered=5, seen=95))


def test_beats_stop_when_the_queue_is_not_served(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    loads = chain([QueueLoad(0, 0, 0, 7)], repeat(QueueLoad(2, 0, 0, 9)))
    monkeypatch.setattr(supervision, "read_queue", lambda number: next(loads))
    monkeypatch.setenv("WATCHDOG_USEC", "3000")
    asyncio.run(until(lambda: "none is handled" in caplog.text, beat(5060)))
    assert [manager.recv(64), manager.recv(64)] == [b"WATCHDOG=1"] * 2
    manager.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.recv(64)


@pytest.mark.parametrize(
    "environment",
    [{}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "5000000", "WATCHDOG_PID": "1"}],
    ids=["not-asked", "never", "for-another-process"],
)
def test_nobody_is_told_who_has_not_asked(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    for name in ("WATCHDOG_USEC", "WATCHDOG_PID", "NOTIFY_SOCKET"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert systemd.watchdog_timeout() is None
    asyncio.run(beat(5060))
    asyncio.run(report(never_asked))


def test_the_watchdog_of_this_process_has_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "10000000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    assert systemd.watchdog_timeout() == 10.0


def test_systemd_that_does_not_read_holds_nobody_up(manager: socket.socket) -> None:
    for _ in range(10_000):
        systemd.notify("WATCHDOG=1")


def test_the_status_is_told_when_it_changes_and_after_an_error(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervision, "STATUS_INTERVAL", 0.001)
    row: dict[str, object] = {"calls": 1, "registrations": 2, "mappings": 3}
    rows = [row, row, row | {"draining": True}, None, row | {"faults": ["wan0 is down"]}]
    asked = 0

    async def status() -> list[dict[str, object]]:
        nonlocal asked
        asked += 1
        found = rows[min(asked, len(rows)) - 1]
        if found is None:
            raise OSError("no such device")
        return [found]

    asyncio.run(until(lambda: asked > len(rows), report(status)))
    counts = b"calls 1, registrations 2, mappings 3"
    for state in (b"in service", b"draining", b"wan0 is down"):
        assert manager.recv(128) == b"STATUS=" + state + b": " + counts
    assert "no such device" in caplog.text


async def never_asked() -> list[dict[str, object]]:
    raise AssertionError("nobody wants to know")


async def until(is_over: Callable[[], bool], work: object) -> None:
    """Runs a coroutine until something is so."""
    assert asyncio.iscoroutine(work)
    task = asyncio.get_running_loop().create_task(work)
    while not is_over():
        await asyncio.sleep(0.001)
        if task.done():
            task.result()
    task.cancel()
