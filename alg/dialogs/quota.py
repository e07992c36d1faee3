"""How many things of one kind each internal host may have (RFC 6888 REQ-4, in spirit)."""

from __future__ import annotations

from collections.abc import Mapping

from nat_table.refusal import QuotaExceeded


class HostQuota:
    """Counts by internal address, up to a limit."""

    __slots__ = ("_counts", "limit", "what")

    def __init__(self, what: str, limit: int) -> None:
        self.what = what
        self.limit = limit
        self._counts: dict[str, int] = {}

    def counts(self) -> Mapping[str, int]:
        """Returns how many each host has."""
        return self._counts

    @property
    def total(self) -> int:
        """How many all hosts have."""
        return sum(self._counts.values())

    def check(self, host: str) -> None:
        """Raises QuotaExceeded at the limit."""
        count = self._counts.get(host, 0)
        if count >= self.limit:
            raise QuotaExceeded(f"{host} has {count} {self.what}")

    def take(self, host: str) -> None:
        """Counts one more; raises QuotaExceeded at the limit."""
        self.check(host)
        self.add(host)

    def add(self, host: str) -> None:
        """Counts one more that is there already, whatever the limit."""
        self._counts[host] = self._counts.get(host, 0) + 1

    def give_back(self, host: str) -> None:
        """Counts one less."""
        count = self._counts[host] - 1
        if count:
            self._counts[host] = count
        else:
            del self._counts[host]
