"""Turns: who has something to do does it piece by piece, and packets wait for no more than a slice.

An event loop calls everybody who is ready before it looks at the queue again. Where a hundred
connections have a full read each, that is seconds.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

SLICE = 0.005
"""Seconds of work between two looks at what else is to be done."""


class Worker(Protocol):
    """Somebody who asks for turns."""

    def work(self) -> bool:
        """Does one piece of work; returns whether there is more."""


class Turns:
    """Workers in the order in which they have asked."""

    def __init__(self) -> None:
        self._workers: deque[Worker] = deque()
        self._is_due = False

    def ask(self, worker: Worker) -> None:
        """Gives a worker a turn, which must not wait for one already."""
        self._workers.append(worker)
        self._schedule()

    def _schedule(self) -> None:
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._run)

    def _run(self) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + SLICE
        self._is_due = False
        while self._workers:
            worker = self._workers.popleft()
            if worker.work():
                self._workers.append(worker)
            if loop.time() >= until:
                break
        if self._workers:
            self._schedule()
