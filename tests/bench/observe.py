"""`./dev bench observe`: what the ring, `sipnat trace` and a HEP collector cost at full load.

A gateway handles the packets of calls as fast as it can, its commits in a real kernel, and turns to
its event loop after some tens of them, as the daemon does. Each row is a packet path of its own,
with its own watchers, over one table; they take turns. The trace goes to a client process by the
control socket, HEP to a socket. A figure is the processor time of the gateway for a message, at
the lower quartile of the rounds: what else the machine does only adds to it. A ratio is that to the
figure where nobody watches.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import statistics
import subprocess
import tempfile
import time
from contextlib import ExitStack, closing
from pathlib import Path

from alg.config import Config, Hep
from alg.daemon.ledger import Ledger
from alg.daemon.packet_path import PacketPath
from alg.daemon.tracing import Tracing
from alg.gateway import Gateway as Engine
from alg.gateway_settings import GatewaySettings
from alg.io.collector import Collector
from alg.io.control import ControlServer
from alg.observe.observers import Observers
from alg.observe.ring import Ring
from rules.backend import KernelBackend
from tests.bench.loaded import SETTINGS, SIDES, call
from tests.bench.table import EXTERNAL, new_table
from tests.lab.gateway import SIPNAT
from tests.lab.network import EXTERNAL_INTERFACE, INTERNAL_INTERFACE, Network

NOBODY, RING, TRACE, CAPTURE, HEP, ALL = ROWS = (
    "nobody",
    "the ring",
    "sipnat trace",
    "sipnat trace --pcap",
    "a HEP collector",
    "ring, trace and HEP",
)
ROUNDS, CALLS = 61, 20
TURN = 64
"""Packets between two turns of the loop, as in alg/io/queue.py."""

REST = 0.3
"""Seconds in which watchers are done with what waits for them."""

RING_BYTES = 16 << 20
CONFIG = Config(internal=(INTERNAL_INTERFACE,), external=EXTERNAL_INTERFACE)


class Watchers:
    """All who watch, each those of its rows."""

    def __init__(self, observers: dict[str, Observers], stack: ExitStack) -> None:
        self._observers = observers
        self._stack = stack
        self._sink = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self._sink.bind(("127.0.0.1", 0))

    async def start(self) -> None:
        """Has them watch."""
        for name in (RING, ALL):
            self._observers[name].add(Ring(RING_BYTES))
        for name in (HEP, ALL):
            address = f"127.0.0.1:{self._sink.getsockname()[1]}"
            collector = Collector(Hep(server=address), self._observers[name])
            self._stack.enter_context(closing(collector)).start()
        await self._trace(TRACE)
        await self._trace(ALL)
        await self._trace(CAPTURE, "--pcap", "-")
        while not all(map(bool, (self._observers[name] for name in ROWS[1:]))):
            await asyncio.sleep(0.01)
        await asyncio.sleep(1)

    async def _trace(self, name: str, *options: str) -> None:
        directory = self._stack.enter_context(tempfile.TemporaryDirectory())
        path = Path(directory, "control.sock")
        tracing = Tracing(CONFIG, self._observers[name], Ring())
        server = ControlServer(path, {"trace": tracing.follow})
        await server.start()
        command = [SIPNAT, "trace", "--control", str(path), *options]
        client = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._stack.callback(client.wait)
        self._stack.callback(client.terminate)


async def handle(path: PacketPath, first: int) -> float:
    """Handles the packets of some calls; returns the microseconds of processor time a message."""
    packets = [each for number in range(first, first + CALLS) for each in call(number)]
    start = time.process_time()
    for number, packet in enumerate(packets, 1):
        path.handle(*packet)
        if number % TURN == 0:
            await asyncio.sleep(0)
    return (time.process_time() - start) / len(packets) * 1e6


async def measure(paths: dict[str, PacketPath], observers: dict[str, Observers]) -> None:
    """Prints the table."""
    times: dict[str, list[float]] = {name: [] for name in ROWS}
    with ExitStack() as stack:
        await Watchers(observers, stack).start()
        gc.freeze()
        for number in range(ROUNDS * len(ROWS)):
            name = ROWS[number % len(ROWS)]
            times[name].append(await handle(paths[name], number * CALLS))
            await asyncio.sleep(REST)
    print(f"{'who watches':24}{'us a message':>14}{'ratio':>8}")
    figures = {name: statistics.quantiles(taken)[0] for name, taken in times.items()}
    for name, figure in figures.items():
        print(f"{name:24}{figure:14.1f}{figure / figures[NOBODY]:8.2f}")


def main() -> None:
    """Measures in a network of the lab."""
    with Network() as network:
        for address in EXTERNAL[1:]:
            network.router.run("ip", "addr", "add", f"{address}/24", "dev", EXTERNAL_INTERFACE)
        backend = network.router.call(lambda: KernelBackend(SETTINGS))
        network.router.call(backend.install)
        table = new_table()
        engine = Engine(GatewaySettings(tuple(EXTERNAL)), table, backend.masqueraded)
        ledgers = {name: Ledger(table, backend) for name in ROWS}
        paths = {
            name: PacketPath(engine, ledger, SIDES.__getitem__, 0)
            for name, ledger in ledgers.items()
        }
        observers = {name: ledger.observers for name, ledger in ledgers.items()}
        asyncio.run(measure(paths, observers))
