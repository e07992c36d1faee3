"""How long packets have waited in a netfilter queue, by the numbers that the kernel gives them.

The kernel numbers what it queues, and tells the latest number (/proc). Whoever noted that number at
one moment, and has not come to that packet by another, knows how long it has waited at least.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque

_QUEUES = "/proc/thread-self/net/netfilter/nfnetlink_queue"
_LATEST = 7  # number, port, waiting, mode, range, dropped, dropped for the user, latest packet, 1
_HALF = 2**31  # packets are numbered by 32 bits, and begin anew


class Backlog:
    """What waits in one queue."""

    def __init__(self, queue: int) -> None:
        """Takes the number of a queue that is bound."""
        self._queue = queue
        self._seen: deque[tuple[int, float]] = deque()
        self._file: int | None = None
        with contextlib.suppress(OSError):  # then nothing is known to wait
            self._file = os.open(_QUEUES, os.O_RDONLY | os.O_CLOEXEC)

    def waited(self, served: int, now: float) -> float:
        """Returns for how many seconds the packet after the one `served` has waited, at least."""
        latest = self._latest()
        return 0.0 if latest is None else self._note(latest, served, now)

    def forget(self) -> None:
        """Takes note that nothing waits."""
        self._seen.clear()

    def close(self) -> None:
        """Looks no more."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _note(self, latest: int, served: int, now: float) -> float:
        seen = self._seen
        seen.append((latest, now))
        while seen and not 0 < (seen[0][0] - served) % 2**32 < _HALF:
            seen.popleft()
        return now - seen[0][1] if seen else 0.0

    def _latest(self) -> int | None:
        """Returns the number of the latest packet, None where the kernel does not tell."""
        if self._file is None:
            return None
        for line in os.pread(self._file, 1 << 16, 0).splitlines():
            fields = line.split()
            if int(fields[0]) == self._queue:
                return int(fields[_LATEST])
        return None
