"""Compiles and drives the generator, and reads what it has found and what everybody has used."""

from __future__ import annotations

import functools
import json
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.peers.box import Box
from tests.bench.peers.cpu import Cpu, Meter
from tests.bench.peers.stage import WIRE, Wire
from tests.lab.network import SERVER

SOURCE = Path(__file__).with_name("sipload.c")


@dataclass(frozen=True, slots=True)
class Load:
    """What became of the calls that began in one phase, and what the phase has cost.

    `latencies` are pairs of nanoseconds and how many messages took that long, shortest first.
    `behind` is by how many seconds a call began too late at the worst.
    """

    rate: float
    seconds: float
    started: int
    good: int
    late: int
    wrong: int
    refused: int
    messages: int
    behind: float
    latencies: tuple[tuple[int, int], ...]
    cpu: Cpu

    @property
    def failed(self) -> float:
        """The share of calls that failed."""
        return 1 - self.good / self.started if self.started else 1.0

    @property
    def microseconds(self) -> float:
        """Processor time of everything, for a message that got through."""
        return self.cpu.total / max(self.messages, 1) * 1e6

    def latency(self, share: float) -> float:
        """Returns the milliseconds within which this share of the messages got through."""
        left = share * sum(count for _, count in self.latencies)
        for nanoseconds, count in self.latencies:
            left -= count
            if left <= 0:
                return nanoseconds / 1e6
        return 0.0


Phases = Sequence[tuple[float, float]]
"""Calls per second, and for how many seconds; what is asked of the generator."""


def play(place: Box | Wire, phases: Phases, *options: str) -> list[Load]:
    """Plays phases one after the other and returns what became of each; raises RuntimeError."""
    lan, wan, edge, server = (
        (place.lan, place.wan, WIRE[1], WIRE[1])
        if isinstance(place, Wire)
        else (place.stage.lan, place.stage.wan, place.edge, SERVER)
    )
    words = [str(program()), "--lan", lan.name, "--wan", wan.name, "--edge", edge]
    words += ["--server", server, "--phases", ",".join(f"{r:g}:{s:g}" for r, s in phases)]
    if isinstance(place, Box):
        words += ["--route", place.route, "--promises", place.promises]
    process = subprocess.Popen(
        [*words, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        used, result = _follow(process, place.pids)
    finally:
        process.kill()
        _, complaint = process.communicate()
    if not result:
        raise RuntimeError(f"the generator ended without a result: {complaint.strip()}")
    return [
        Load(
            **{**phase, "latencies": tuple(map(tuple, phase["latencies"]))},
            cpu=cpu,
        )
        for phase, cpu in zip(json.loads(result)["phases"], used, strict=True)
    ]


def _follow(process: subprocess.Popen[str], box: Iterable[int]) -> tuple[list[Cpu], str]:
    """Returns what was used in each phase, and the line with the result."""
    assert process.stdout is not None
    used: list[Cpu] = []
    meter: Meter | None = None
    for line in process.stdout:
        if line.startswith("{"):
            return used, line
        if meter is None:
            meter = Meter((process.pid,), box)
        else:
            used.append(meter.lap())
    return used, ""


@functools.cache
def program() -> Path:
    """Returns the generator, compiled."""
    return compile_program(SOURCE)


def compile_program(source: Path) -> Path:
    """Compiles a C file into the scratch folder; raises CalledProcessError."""
    made = scratch() / source.stem
    subprocess.run(["gcc", "-O2", "-Wall", "-Werror", "-o", str(made), str(source)], check=True)
    return made


def scratch() -> Path:
    """Returns a folder that goes with this process."""
    return Path(_folder().name)


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="sipnat-bench-")
