"""How often each host may ask: so many requests a second, whatever they are."""

from __future__ import annotations

MAX_HOSTS = 4096


class Rate:
    """Counts requests of each host within the running second."""

    def __init__(self, per_second: int) -> None:
        self._per_second = per_second
        self._second = 0
        self._counts: dict[str, int] = {}

    def allows(self, host: str, now: float) -> bool:
        """Counts one request; returns whether it is within the limit."""
        if int(now) != self._second:
            self._second = int(now)
            self._counts.clear()
        count = self._counts.get(host, 0) + 1
        if count == 1 and len(self._counts) >= MAX_HOSTS:
            return False
        self._counts[host] = count
        return count <= self._per_second
