"""`./dev bench listing`: what it takes to list 100,000 mappings, and how long packets wait for it.

The gateway's table and control socket are in this process, the command is another one, as a user
starts it. A wait is how late the event loop comes to a timer that is due every millisecond: so long
may a packet wait for its turn.
"""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from alg.daemon.mapping_view import MappingView
from alg.daemon.selection import FILTERS, parse_selection
from alg.io.control import ControlServer, Request, Rows
from nat_table.table import NatTable
from rules.memory import MemoryBackend
from rules.settings import Settings
from tests.bench.table import EXTERNAL, MAPPINGS, fill, new_table

CASES: dict[str, Sequence[str]] = {
    "as text": (),
    "as JSON": ("--json",),
    "one host of them": ("--internal", "10.0.1.20"),
    "one kind of them, none": ("--kind", "any"),
}


class Waits:
    """Watches how late timers are."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._task = asyncio.create_task(self._watch())

    def end(self) -> float:
        """Returns the longest wait, in milliseconds."""
        self._task.cancel()
        return self.longest * 1e3

    async def _watch(self) -> None:
        while True:
            due = time.perf_counter() + 0.001
            await asyncio.sleep(0.001)
            self.longest = max(self.longest, time.perf_counter() - due)


def serve(table: NatTable, path: Path) -> ControlServer:
    """Returns a control socket that shows mappings."""
    settings = Settings(("lan0",), "wan0", tuple(EXTERNAL))
    view = MappingView(table, MemoryBackend(settings))

    def show(request: Request) -> Rows:
        return view.rows(parse_selection(request, FILTERS))

    return ControlServer(path, {"show": show})


async def listing(path: Path, options: Sequence[str]) -> tuple[float, float, int]:
    """Returns the seconds that the command takes, the longest wait in ms, and its lines."""
    command = [sys.executable, "-m", "alg", "show", "mappings", "--control", str(path), *options]
    waits = Waits()
    start = time.perf_counter()
    with tempfile.TemporaryFile() as output:
        process = await asyncio.create_subprocess_exec(*command, stdout=output)
        if await process.wait():
            raise subprocess.CalledProcessError(1, command)
        seconds = time.perf_counter() - start
        output.seek(0)
        return seconds, waits.end(), sum(1 for _ in output)


async def measure(table: NatTable) -> None:
    """Prints a line for each case."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "control.sock")
        server = serve(table, path)
        await server.start()
        try:
            for what, options in CASES.items():
                seconds, wait, lines = await listing(path, options)
                print(f"{what:24}{lines:9,} lines{seconds:8.2f} s, longest wait{wait:7.1f} ms")
        finally:
            await server.stop()


def main() -> None:
    """Prints the table."""
    table = new_table()
    fill(table, has_remotes=True)
    gc.freeze()  # as the daemon does with what it has taken over
    print(f"{MAPPINGS:,} mappings")
    asyncio.run(measure(table))
