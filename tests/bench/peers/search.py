"""How many calls per second a box sustains: the highest rate at which it keeps up.

It keeps up where fewer than one call in a thousand fails and no queue grows: at a rate a little
above what it can do, two seconds end before anything is late enough to fail. The search goes from a
guess, up or down by a factor, until a rate that is kept up with has a neighbour that is not, and
then halves the distance between the two.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol, TypeVar

FAILED = 0.001
DELAY = 0.1
"""Seconds that the generator, or one message in a hundred, may be late."""
RESOLUTION = 1.06
LOWEST, HIGHEST = 10.0, 100_000.0


class Run(Protocol):
    """What became of the calls of one rate."""

    @property
    def rate(self) -> float:
        """Calls per second."""

    @property
    def failed(self) -> float:
        """The share of calls that failed."""

    @property
    def behind(self) -> float:
        """By how many seconds a call began too late at the worst."""

    def latency(self, share: float) -> float:
        """Returns the milliseconds within which this share of the messages got through."""


R = TypeVar("R", bound=Run)


def is_sustained(run: Run) -> bool:
    """Tells whether a box kept up."""
    return run.failed < FAILED and run.behind < DELAY and run.latency(0.99) < DELAY * 1e3


def find_sustained(play: Callable[[float], R], guess: float, factor: float) -> R:
    """Returns the run of the highest rate that was kept up with; raises RuntimeError."""
    best, limit = None, math.inf
    rate = guess
    while LOWEST <= rate <= HIGHEST:
        run = play(rate)
        if is_sustained(run):
            best, lowest = run, rate
        else:
            limit = rate
        if best is None:
            rate /= factor
        elif limit == math.inf:
            rate *= factor
        elif limit / lowest > RESOLUTION:
            rate = math.sqrt(lowest * limit)
        else:
            break
    if best is None:
        raise RuntimeError(f"not even {LOWEST:g} calls/s are sustained")
    return best
