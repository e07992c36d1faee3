"""Whether connections that the kernel hands to the relay arrive there.

They are addressed to this machine then, and a firewall that lets phones through to their server may
well drop what is for the router itself. The kernel counts how many connections were handed over,
and how many were answered.
"""

from __future__ import annotations

from collections.abc import Mapping

ENOUGH = 3


class Diversion:
    """Compares the two counters, look by look."""

    def __init__(self) -> None:
        self._diverted = self._answered = -1

    def is_kept_away(self, counters: Mapping[str, int]) -> bool:
        """Tells whether some were handed over since the last answer, or since this was last so."""
        diverted, answered = counters.get("diverted", 0), counters.get("answered", 0)
        has_answered = answered != self._answered or diverted < self._diverted
        is_kept_away = not has_answered and diverted >= self._diverted + ENOUGH
        if has_answered or is_kept_away:
            self._diverted, self._answered = diverted, answered
        return is_kept_away
