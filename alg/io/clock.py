"""The time that deadlines are kept in: CLOCK_BOOTTIME runs through suspend and is never set."""

from __future__ import annotations

import time


def now() -> float:
    """Returns seconds since boot."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
