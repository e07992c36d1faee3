"""Drives rtpload.c: one process with the phones, one with the remotes, and what both have counted.

The processes wait for commands: flows that one command has opened are there for the next, and no
figure contains what it took to start them.
"""

from __future__ import annotations

import functools
import os
import subprocess
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec

from tests.bench.peers.sipload import compile_program
from tests.lab.closable import Closable
from tests.lab.namespace import Namespace

SOURCE = Path(__file__).with_name("rtpload.c")
PHONE_PORT, REMOTE_PORT = 4000, 40000
ON_THE_WAY = 0.1
"""Seconds in which packets arrive that a relay still has in its hands."""


class Flow(NamedTuple):
    """A stream between a phone and a remote, and where the phone sends its packets."""

    phone: str
    remote: str
    address: str
    port: int = REMOTE_PORT


@dataclass(frozen=True, slots=True)
class Count:
    """What one end has counted; `cpu_ns` is its process's, and the kernel's within its calls."""

    sent: int
    received: int
    refused: int
    stalls: int
    cpu_ns: int
    seconds: float

    def plus(self, late: Count) -> Count:
        """Returns this with what has come after it."""
        both = zip(astuple(self), astuple(late), strict=True)
        return Count(*(mine + its for mine, its in both))


class RtpLoad(Closable):
    """Streams between phones in one namespace and remotes in another."""

    def __init__(self, lan: Namespace, wan: Namespace, flows: Sequence[Flow]) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="sipnat-lab-")
        self._ends: list[subprocess.Popen[str]] = []
        try:
            self._start(
                lan, PHONE_PORT, (f"{each.phone} {each.address} {each.port}" for each in flows)
            )
            self._start(wan, REMOTE_PORT, (each.remote for each in flows))
        except BaseException:
            self.close()
            raise

    @property
    def pids(self) -> tuple[int, ...]:
        """The two processes."""
        return tuple(end.pid for end in self._ends)

    def open(self) -> tuple[Count, Count]:
        """Sends a packet from the phone of each flow; returns what phones and remotes count."""
        phones, remotes = self._ends
        sent = _ask(phones, "open")
        time.sleep(ON_THE_WAY)
        return sent, _ask(remotes, "report")

    def run(self, seconds: float, rate: float = 0.0) -> tuple[Count, Count]:
        """Sends both ways; `rate` is in packets a second each way, 0 is as many as can be."""
        for end in self._ends:
            _tell(end, f"run {seconds} {rate}")
        counts = list(map(_answer, self._ends))
        time.sleep(ON_THE_WAY)
        phones, remotes = (
            count.plus(_ask(end, "report")) for count, end in zip(counts, self._ends, strict=True)
        )
        return phones, remotes

    def close(self) -> None:
        """Ends both processes."""
        for end in self._ends:
            end.kill()
            end.communicate()
        self._directory.cleanup()

    def _start(self, namespace: Namespace, port: int, lines: Iterable[str]) -> None:
        flows = Path(self._directory.name, f"{port}")
        flows.write_text("".join(f"{line}\n" for line in lines))
        command = namespace.command(str(program()), str(port), str(flows))
        pipe = subprocess.PIPE
        cpus = sorted(os.sched_getaffinity(0))
        self._ends.append(subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, bufsize=1))
        os.sched_setaffinity(self._ends[-1].pid, {cpus[len(self._ends) % len(cpus)]})
        _answer(self._ends[-1])


@functools.cache
def program() -> Path:
    """Returns the generator, compiled."""
    return compile_program(SOURCE)


def _ask(end: subprocess.Popen[str], command: str) -> Count:
    _tell(end, command)
    return _answer(end)


def _tell(end: subprocess.Popen[str], command: str) -> None:
    assert end.stdin is not None
    end.stdin.write(f"{command}\n")


def _answer(end: subprocess.Popen[str]) -> Count:
    assert end.stdout is not None
    line = end.stdout.readline()
    if not line:
        raise RuntimeError(f"rtpload has ended with {end.wait()}")
    return msgspec.json.decode(line, type=Count)
