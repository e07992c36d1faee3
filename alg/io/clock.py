"""The time that deadlines are kept in: CLOCK_BOOTTIME runs through suspend and is never set."""

from __future__ import annotations

import time


def now() -> float:
    """Returns seconds since boot."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def pause(seconds: float) -> None:
    """Returns after so many seconds; for commands, which have nothing else to do."""
    time.sleep(seconds)


def wall_offset() -> float:
    """Returns what makes such a time one of the day, in seconds since 1970 (UTC)."""
    return time.time() - now()
