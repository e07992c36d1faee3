"""`./dev bench kernel`: what a commit takes: a mapping, a media pair, and all that a call commits.

The changes are the table's, and for the call the gateway's own, recorded beforehand: what is timed
is `KernelBackend.commit` alone, as processor time of the thread that waits for it: what the kernel
does for it is in there, other threads and processes are not. Two kernels take turns, one of them
with 100,000 mappings; both are given the same. Each figure is the median of several runs, with the
lowest and the highest.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterable, Sequence

from nat_table.binding import Kind, Owner
from nat_table.changes import Change
from nat_table.endpoint import Endpoint, Transport
from nat_table.table import NatTable
from rules.backend import KernelBackend
from rules.memory import MemoryBackend
from tests.bench.loaded import SETTINGS, call, filled, path_of, reconcile
from tests.bench.peers.report import Sample, aligned, cell, number
from tests.bench.table import EXTERNAL
from tests.lab.network import EXTERNAL_INTERFACE, Network

RUNS, TIMES = 9, 100
EMPTY, FULL = "nothing there", "100,000 there"
Commits = Sequence[Sequence[Change]]


class Recorder(MemoryBackend):
    """A kernel that only remembers what it was given."""

    def __init__(self) -> None:
        super().__init__(SETTINGS)
        self.commits: list[Sequence[Change]] = []

    def commit(self, changes: Sequence[Change]) -> None:
        """Remembers changes."""
        if changes:
            self.commits.append(tuple(changes))


def mapping(table: NatTable, place: int) -> Commits:
    """Returns the commits that open and close a mapping."""
    owner = Owner("flow")
    phone = Endpoint(f"10.201.{place // 250}.{place % 250}", 5060)
    made = table.bind(Transport.UDP, phone, Kind.SIP, owner, now=0.0, expires_at=60.0)
    opened = table.take_changes()
    table.close(made, owner, 1.0)
    return opened, table.take_changes()


def pair(table: NatTable, place: int) -> Commits:
    """Returns the commits that open and close a media pair."""
    owner, host = Owner("call", f"{place}"), f"10.202.{place // 250}.{place % 250}"
    rtp, rtcp = Endpoint(host, 4000), Endpoint(host, 4001)
    pair = table.bind_pair(rtp, rtcp, owner, now=0.0, expires_at=60.0)
    opened = table.take_changes()
    for made in pair:
        table.close(made, owner, 1.0)
    return opened, table.take_changes()


def calls(table: NatTable, count: int) -> list[Commits]:
    """Returns what the messages of calls have the gateway commit, call by call."""
    recorder = Recorder()
    path = path_of(table, recorder)
    found: list[Commits] = []
    for place in range(count):
        for packet in call(place):
            path.handle(*packet)
        found.append(tuple(recorder.commits))
        recorder.commits.clear()
    return found


def commits(table: NatTable) -> dict[str, list[Commits]]:
    """Returns what is committed, by its name, each so many times; no two are alike."""
    count = RUNS * TIMES
    every = calls(table, count)
    mappings = [mapping(table, place) for place in range(count)]
    pairs = [pair(table, place) for place in range(count)]
    return {
        "a mapping opens": [each[:1] for each in mappings],
        "a mapping closes": [each[1:] for each in mappings],
        "a media pair opens": [each[:1] for each in pairs],
        "a media pair closes": [each[1:] for each in pairs],
        f"a call, its {len(every[0])} commits": every,
    }


def microseconds(backend: KernelBackend, every: Iterable[Commits]) -> float:
    """Commits all and returns the microseconds that one of them took."""
    start = time.thread_time()
    for each in every:
        for changes in each:
            backend.commit(changes)
    return (time.thread_time() - start) / TIMES * 1e6


def install(network: Network, table: NatTable | None) -> KernelBackend:
    """Returns the kernel of a router, with the mappings of a table."""
    for address in EXTERNAL[1:]:
        network.add_address(network.router, EXTERNAL_INTERFACE, address)
    backend = network.router.call(lambda: KernelBackend(SETTINGS))
    network.router.call(backend.install)
    if table is not None:
        reconcile(table, backend)
    return backend


def measure(
    every: dict[str, list[Commits]], backends: dict[str, KernelBackend]
) -> dict[str, dict[str, Sample]]:
    """Returns the microseconds of each thing with each kernel."""
    times: dict[str, dict[str, list[float]]] = {
        what: {name: [] for name in backends} for what in every
    }
    for run in range(RUNS):
        for what, things in every.items():
            for name, backend in backends.items():
                taken = microseconds(backend, things[run * TIMES : (run + 1) * TIMES])
                times[what][name].append(taken)
    return {
        what: {name: Sample.of(runs) for name, runs in of.items()} for what, of in times.items()
    }


def main() -> None:
    """Prints the table."""
    table = filled()
    with Network() as empty, Network() as full:
        backends = {EMPTY: install(empty, None), FULL: install(full, table)}
        every = commits(table)
        gc.freeze()
        found = measure(every, backends)
    rows = [["microseconds", *backends, "times"]]
    for what, samples in found.items():
        times = samples[FULL].over(samples[EMPTY]).median
        rows.append([what, *map(cell, samples.values()), number(times)])
    print("\n".join(aligned(rows)))
