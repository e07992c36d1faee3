"""Looking at media without a kernel: when it is asked, and what one that refuses changes."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Awaitable, Callable

import pytest

from alg.daemon import media_watch
from alg.daemon.ledger import Ledger
from alg.daemon.media_watch import MediaWatch
from alg.daemon.selection import Selection
from alg.observe.call_rows import CallRow
from nat_table.endpoint import UDP, Socket, parse_endpoint
from rules.memory import MemoryBackend
from rules.netlink import KernelRefused
from rules.settings import Settings
from rules.traffic import Traffic
from tests.alg.dialogs.test_calls import call_out, hang_up
from tests.alg.playbook import EXTERNAL, Playbook

SOCKET = UDP, parse_endpoint("10.0.0.20:4000")


class Kernel(MemoryBackend):
    """A kernel that counts how often it is asked, and may refuse."""

    def __init__(self) -> None:
        super().__init__(Settings(("lan0",), "wan0", (EXTERNAL,)))
        self.asked = 0
        self.cuts = 0
        self.is_silent = False

    def traffic(self) -> dict[Socket, Traffic]:
        self.asked += 1
        if self.is_silent:
            raise KernelRefused(errno.EPERM, "dump")
        return dict(self.carried)

    def cut_flows(self) -> None:
        self.cuts += 1


@pytest.fixture
def switch(monkeypatch: pytest.MonkeyPatch) -> dict[str, bool]:
    """Stands for nf_conntrack_acct; returns what to change it by."""
    switch = {"is_on": False}
    monkeypatch.setattr(media_watch, "is_counting", lambda: switch["is_on"])
    monkeypatch.setattr(media_watch, "start_counting", lambda: switch.update(is_on=True))
    monkeypatch.setattr(media_watch, "LEAST_INTERVAL", 0.0)
    monkeypatch.setattr(media_watch, "REST", 0.0)
    return switch


def watching(play: Playbook, kernel: Kernel, look: Callable[[MediaWatch], Awaitable[None]]) -> None:
    """Runs a watch while somebody looks."""

    async def run() -> None:
        ledger = Ledger(play.table, kernel)
        watch = MediaWatch(play.gateway.state.calls, kernel, ledger, is_on=True)
        watch.start()
        try:
            await look(watch)
        finally:
            await watch.close()

    asyncio.run(run())


async def sent(watch: MediaWatch, **request: object) -> list[int | None]:
    """Returns what the RTP of each call has sent."""
    rows: list[CallRow] = [row for row in await watch.rows(request, Selection()) if row]
    return [row["streams"][0]["sent"] for row in rows]


def test_the_kernel_is_not_asked_while_there_are_no_calls(switch: dict[str, bool]) -> None:
    play, kernel = Playbook(), Kernel()

    async def look(watch: MediaWatch) -> None:
        assert await sent(watch) == []
        assert kernel.asked == 0
        call_out(play)
        kernel.carried[SOCKET] = Traffic(7, 700, 0, 0)
        assert await sent(watch) == [7]
        hang_up(play)
        assert await sent(watch, ended=True) == [7]
        asked = kernel.asked
        assert await sent(watch, ended=True) == [7]
        assert kernel.asked == asked

    watching(play, kernel, look)


def test_flows_are_cut_once_where_counting_begins_with_this_start(switch: dict[str, bool]) -> None:
    async def look(watch: MediaWatch) -> None:
        pass

    kernel = Kernel()
    watching(Playbook(), kernel, look)
    assert (switch["is_on"], kernel.cuts) == (True, 1)
    watching(Playbook(), kernel, look)
    assert kernel.cuts == 1


def test_where_counting_cannot_be_had_one_line_says_so(
    switch: dict[str, bool], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse() -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(media_watch, "start_counting", refuse)
    play, kernel = Playbook(), Kernel()
    call_out(play)

    async def look(watch: MediaWatch) -> None:
        assert await sent(watch) == [None]

    with caplog.at_level(logging.INFO):
        watching(play, kernel, look)
    assert len(caplog.records) == 1 and "media is not watched" in caplog.text
    assert kernel.asked == 0


def test_a_kernel_that_does_not_answer_changes_nothing_that_was_counted(
    switch: dict[str, bool],
) -> None:
    play, kernel = Playbook(), Kernel()
    call_out(play)

    async def look(watch: MediaWatch) -> None:
        kernel.carried[SOCKET] = Traffic(100, 10000, 0, 0)
        assert await sent(watch) == [100]
        kernel.is_silent = True
        assert await sent(watch) == [100]
        kernel.is_silent = False
        kernel.carried[SOCKET] = Traffic(150, 15000, 0, 0)
        assert await sent(watch) == [150]
        assert watch.activity.total.sent == 150

    watching(play, kernel, look)


def test_flows_that_began_while_nobody_counted_are_cut_when_counting_is_on_again(
    switch: dict[str, bool],
) -> None:
    play, kernel = Playbook(), Kernel()
    call_out(play)

    async def look(watch: MediaWatch) -> None:
        kernel.carried[SOCKET] = Traffic(7, 700, 0, 0)
        assert await sent(watch) == [7]
        switch["is_on"] = False
        assert await sent(watch) == [None]
        cuts, switch["is_on"] = kernel.cuts, True
        assert await sent(watch) == [7]
        assert kernel.cuts == cuts + 1
        assert await sent(watch) == [7]
        assert kernel.cuts == cuts + 1

    watching(play, kernel, look)


def test_a_sample_is_made_to_its_end_where_who_asks_is_let_go(
    switch: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(media_watch, "CALLS_PER_STEP", 1)
    monkeypatch.setattr(media_watch, "INTERVAL", 60.0)
    play, kernel = Playbook(), Kernel()

    async def look(watch: MediaWatch) -> None:
        await asyncio.sleep(0.05)
        call_out(play)
        call_out(play, "call-2", 4100)
        kernel.carried[SOCKET] = Traffic(7, 700, 0, 0)
        asking = asyncio.create_task(sent(watch))
        while not watch.activity.total.sent:
            await asyncio.sleep(0)
        asking.cancel()
        await asyncio.sleep(0.05)
        assert await sent(watch) == [7, 0]
        assert watch.activity.total.sent == 7

    watching(play, kernel, look)


def test_many_calls_are_looked_at_in_steps(
    switch: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(media_watch, "CALLS_PER_STEP", 2)
    play, kernel = Playbook(), Kernel()
    for number in range(6):
        call_out(play, call_id=f"call-{number}", port=4000 + 2 * number)

    async def look(watch: MediaWatch) -> None:
        async def end_one() -> None:
            await asyncio.sleep(0)
            hang_up(play, call_id="call-5")

        ending = asyncio.create_task(end_one())
        assert len(await sent(watch)) in (5, 6)
        await ending
        assert len(await sent(watch)) == 5
        assert len(await sent(watch, ended=True)) == 6

    watching(play, kernel, look)
