"""The retransmission timers of RFC 3261 §17: T1 doubling up to T2, given up after 64 T1."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from nat_table.endpoint import Endpoint
from tests.lab.message import Message, parameter

T1 = 0.5
T2 = 4.0
GIVE_UP_TIMEOUT = 64 * T1


@dataclass
class Retransmission:
    """A datagram that is sent again until its owner removes it."""

    raw: bytes
    destination: Endpoint
    interval: float = T1
    started_at: float = field(default_factory=time.monotonic)
    _due_at: float = 0.0

    def __post_init__(self) -> None:
        self._due_at = self.started_at + self.interval

    def is_due(self, now: float) -> bool:
        """Tells whether it is time to send again and, if so, sets the next time."""
        if now < self._due_at:
            return False
        self.interval = min(2 * self.interval, T2)
        self._due_at = now + self.interval
        return True

    def slow_down(self) -> None:
        """Goes on at T2: the peer has the request and works on it (RFC 3261 §17.1.2.2)."""
        self.interval = T2


def branch_of(message: Message) -> str:
    """Returns the branch of the top Via, or ""."""
    return parameter(message["Via"], "branch") or ""
