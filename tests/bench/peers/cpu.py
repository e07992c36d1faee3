"""Who has used how much of the processors: run time as the scheduler counts it, in nanoseconds.

A process is charged with all that runs in its context, the softirq work that its system calls set
off included: on veth pairs a packet crosses the router while its sender is still in sendmsg. So the
generator's own part cannot be read off its process; it is what the same load costs through a wire.
What is counted is the generator, the box's processes, and the kernel's threads that do their work
(ksoftirqd, kworker: conntrack's and nftables' collectors). Other processes of the machine are not.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

KERNEL_THREADS = ("ksoftirqd/", "kworker/")
KTHREADD = 2
TICK = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Cpu:
    """Seconds of processor time: of all together, and of the box's processes by mode."""

    total: float
    user: float
    system: float


class Meter:
    """Reads the processes of a generator and a box, from when it was made."""

    def __init__(self, load: Iterable[int], box: Iterable[int]) -> None:
        self._load, self._box = tuple(load), tuple(box)
        self._runs, self._modes = self._read()

    def lap(self) -> Cpu:
        """Returns what was used since the last lap."""
        runs, modes = self._read()
        total = sum(run - self._runs.get(pid, 0.0) for pid, run in runs.items())
        user, system = (now - then for now, then in zip(modes, self._modes, strict=True))
        self._runs, self._modes = runs, modes
        return Cpu(total, user, system)

    def _read(self) -> tuple[Mapping[int, float], tuple[float, float]]:
        pids = (*self._load, *self._box, *_kernel_threads())
        modes = [_stat(pid)[11:13] for pid in self._box]
        user, system = (sum(int(mode[each]) for mode in modes) * TICK for each in (0, 1))
        return {pid: _run_time(pid) for pid in pids}, (user, system)


def memory(pids: Iterable[int]) -> int:
    """Returns the bytes that processes have in memory, each its share of what is shared (PSS)."""
    kilobytes = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                kilobytes += int(line.split()[1])
    return kilobytes * 1024


def _run_time(pid: int) -> float:
    """Returns the seconds that the threads of a process have run."""
    nanoseconds = 0
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            nanoseconds += int(task.joinpath("schedstat").read_text().split()[0])
    return nanoseconds / 1e9


def _kernel_threads() -> list[int]:
    found = []
    for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))):
        with suppress(OSError):
            name, parent = _stat(pid)[:2]
            if int(parent) == KTHREADD and name.startswith(KERNEL_THREADS):
                found.append(pid)
    return found


def _stat(pid: int) -> list[str]:
    """Returns the name of a process and its fields from the fourth on (proc(5))."""
    name, _, rest = Path(f"/proc/{pid}/stat").read_text().partition("(")[2].rpartition(")")
    return [name, *rest.split()[1:]]
