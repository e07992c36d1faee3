"""How the kernel's side stands and fares, for people to look at: calls need nothing of it.

What the kernel has no number for is counted by a dump, so all this is read in a thread beside the
packet path. Files of /proc are read as those of the thread's network namespace.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from rules import elements
from rules.installation import Installation
from rules.netlink import KernelRefused, Netlink
from rules.programs import ProgramFailed
from rules.settings import Settings

_QUEUES = Path("/proc/thread-self/net/netfilter/nfnetlink_queue")
_CONNTRACK = Path("/proc/sys/net/netfilter")
_FILLED_BY_PACKETS = elements.of_both("contacted", "flooding") + elements.of_both(
    elements.LATCHED, elements.STRAYS, elements.REFUSED
)


class QueueLoad(NamedTuple):
    """One netfilter queue: packets that wait, and since it was bound those seen and lost.

    What is `refused` found the queue full, what is `undelivered` its socket; a queue that fails
    open passes the first instead, and does not count them.
    """

    waiting: int
    refused: int
    undelivered: int
    seen: int

    @property
    def answered(self) -> int:
        """Returns how many have had their verdict."""
        return self.seen - self.waiting - self.undelivered


class ConntrackLoad(NamedTuple):
    """How many flows the kernel follows, how many it can, and whether it counts their packets."""

    flows: int
    max_flows: int
    is_counting: bool


class Inspection(NamedTuple):
    """Whether our rules and the capture rule stand, the load, and what is in our table.

    None stands for what this kernel does not tell.
    """

    has_rules: bool
    has_capture: bool | None
    is_native_queue: bool
    queue: QueueLoad | None
    conntrack: ConntrackLoad | None
    elements: Mapping[str, int]
    counters: Mapping[str, int]


def inspect(settings: Settings, netlink: Netlink, installation: Installation) -> Inspection:
    """Looks at everything; raises KernelRefused."""
    has_rules = netlink.has_table()
    names = elements.OF_BINDINGS + elements.OF_REMOTES + _FILLED_BY_PACKETS
    has_capture: bool | None = has_rules
    if has_rules:
        try:
            has_capture = installation.has_capture(settings)
        except (ProgramFailed, KernelRefused):
            has_capture = None
    return Inspection(
        has_rules,
        has_capture,
        installation.is_native_queue,
        read_queue(settings.queue_number),
        read_conntrack(),
        {name: netlink.count(name) for name in names},
        netlink.counters() if has_rules else {},
    )


def read_queue(number: int) -> QueueLoad | None:
    """Reads the load of a queue; None where nobody has bound it, or the kernel does not tell."""
    try:
        lines = _QUEUES.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    for line in lines:
        # number, port, waiting, mode, range, dropped, dropped for the user, last id, 1
        fields = [int(field) for field in line.split()]
        if fields[0] == number:
            return QueueLoad(fields[2], fields[5], fields[6], fields[7])
    return None


def read_conntrack() -> ConntrackLoad | None:
    """Reads the load of conntrack; None where the kernel has none, or does not tell."""
    try:
        flows, max_flows, is_counting = (
            int(Path(_CONNTRACK, f"nf_conntrack_{name}").read_text(encoding="ascii"))
            for name in ("count", "max", "acct")
        )
    except OSError:
        return None
    return ConntrackLoad(flows, max_flows, bool(is_counting))
