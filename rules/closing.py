"""What nobody waits for: elements that only go, and the flows of mappings that have closed.

A commit that opens something is made at once, because a message waits for it. One that only closes
is handed over here and made in a thread: what comes within a moment is one transaction, and then
its flows are cut. Until then a mapping stands that nobody is told of any more, on a port that is in
quarantine. A commit that opens a mapping with an endpoint that has still to go takes all that waits
along, so the order between the two is kept.

A flow that is cut too late, or by mistake, is harmless: it meets the maps again with its next
packet. Finding flows is a walk through conntrack, so with very many of them the walks become rare
(`_SHARE`); flows of one closed mapping cost no more than those of a thousand.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterable, Sequence
from threading import Event, Lock, Thread
from typing import Final

from nat_table.endpoint import Transport
from rules.conntrack import Conntrack, End
from rules.elements import INBOUND, Step
from rules.netlink import KernelRefused, Netlink

_GATHERING_TIMEOUT = 0.05
_RETRY_INTERVAL = 1.0
_SHARE = 100
"""A walk that takes a second of the processor is begun again when so many have passed."""

_SLICE = 512
"""Steps of one transaction: who commits meanwhile waits for it, which takes about a millisecond."""

_UDP: Final = Transport.UDP.value

_log = logging.getLogger(__name__)


class Closer:
    """Deletes elements, and then cuts flows, in a thread of its own."""

    def __init__(self, netlink: Netlink, conntrack: Conntrack, mark: int) -> None:
        """Takes sockets of its own, and the mark bit that flows of mappings have."""
        self._netlink = netlink
        self._conntrack = conntrack
        self._mark = mark
        self._lock = Lock()  # held while what waits is looked at, or on its way into the kernel
        self._steps: list[Step] = []
        self._keys: set[bytes] = set()  # of the steps that wait
        self._ends: list[End] = []
        self._endpoints: set[bytes] = set()  # external ones whose flows are to be swept
        self._next_walk = 0.0
        self._has_failed = False
        self._wanted = Event()
        self._closing = Event()
        self._thread = Thread(target=self._work, name="closing", daemon=True)
        self._thread.start()

    def delete(self, steps: Sequence[Step]) -> None:
        """Takes deletions on and returns at once."""
        with self._lock:
            self._steps += steps
            for step in steps:
                self._keys.add(step[2])
        self._wake()

    def cut(self, ends: Iterable[End]) -> None:
        """Takes a cut on and returns at once."""
        with self._lock:
            self._ends += ends
        self._wake()

    def sweep(self, steps: Iterable[Step]) -> None:
        """Takes on the marked UDP flows of mappings of IPv4 whose elements these steps delete."""
        endpoints = [
            key[4:10]
            for is_added, name, key, _ in steps
            if name == INBOUND and key[0] == _UDP and not is_added
        ]
        if not endpoints:
            return
        with self._lock:
            self._endpoints.update(endpoints)
        self._wake()

    def take_back(self, steps: Sequence[Step]) -> list[Step]:
        """Returns all deletions that wait, and forgets them, if one has a key of these steps."""
        if not self._keys:
            return []
        with self._lock:
            if not any(step[2] in self._keys for step in steps):
                return []
            taken, self._steps = self._steps, []
            self._keys.clear()
            return taken

    def flush(self) -> None:
        """Returns when all deletions that were taken on are made; raises KernelRefused."""
        while self._steps:
            self._delete()

    def close(self) -> None:
        """Returns when all that was taken on is done."""
        self._closing.set()
        self._wanted.set()
        self._thread.join()
        with contextlib.suppress(KernelRefused):  # what came while it was at its last round
            self.flush()
            self._walk()
        self._conntrack.close()
        self._netlink.close()

    def _wake(self) -> None:
        if not self._wanted.is_set():
            self._wanted.set()

    def _work(self) -> None:
        while not self._closing.is_set():
            self._wanted.wait()
            self._closing.wait(_GATHERING_TIMEOUT)
            self._wanted.clear()
            try:
                self.flush()
                self._walk()
                self._has_failed = False
            except KernelRefused as refusal:
                if not self._has_failed:
                    _log.warning("closed mappings stay a while, or their flows do: %s", refusal)
                self._has_failed = True
                self._again(_RETRY_INTERVAL)

    def _delete(self) -> None:
        with self._lock:
            steps = self._steps[:_SLICE]
            if steps:
                self._netlink.commit(steps)
            del self._steps[: len(steps)]
            self._keys = {step[2] for step in self._steps}

    def _walk(self) -> None:
        """Cuts what is to be cut, unless the last time is too near."""
        with self._lock:
            ends, endpoints = self._ends, self._endpoints
        if not ends and not endpoints:
            return
        wait = self._next_walk - time.monotonic()
        if wait > 0 and not self._closing.is_set():
            self._again(wait)
            return
        with self._lock:
            self._ends, self._endpoints = [], set()
        began = time.thread_time()
        if ends:
            self._conntrack.cut(ends)
        if endpoints:
            self._conntrack.sweep(self._mark, endpoints)
        self._next_walk = time.monotonic() + _SHARE * (time.thread_time() - began)

    def _again(self, delay: float) -> None:
        """Has the thread look again after a while, or as soon as more is to do."""
        if not self._closing.is_set():
            self._wanted.wait(delay)
            self._wanted.set()
