"""What the table keeps of each internal address: how many bindings, how many new ones, and where.

Nothing is kept of a host that has no binding and has opened none within the last second.
"""

from __future__ import annotations

import zlib
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence

from nat_table.behavior import Behavior
from nat_table.binding import ANYONE
from nat_table.changes import Change, Forbidden, Permitted
from nat_table.endpoint import is_ipv6, of_one_family
from nat_table.prefix import PrefixTranslation
from nat_table.refusal import NoFreePort, QuotaExceeded, RateExceeded

_WINDOW = 1.0  # seconds

MAX_FILTERS, MAX_FILTERS_PER_HOST = 512, 64
"""The most permits for less than everybody: the kernel takes 30 us longer for each at a commit."""


class Hosts:
    """Counts the bindings of internal addresses and pairs each with one external address.

    That is one of the host's family, or what a translation of prefixes makes of an IPv6 address.
    A host's external address follows from its own, so that it is the same whenever it comes back.
    While it has bindings, it stays where they are: with another list of addresses than when they
    were made, that may be elsewhere (RFC 4787 REQ-2, "paired"). `leased` is how many bindings
    clients have asked for.
    """

    __slots__ = (
        *("_addresses", "_counts", "_elsewhere", "_filters", "_opened", "_recent", "_translation"),
        *("behavior", "leased"),
    )

    def __init__(
        self,
        external_addresses: Sequence[str],
        behavior: Behavior,
        translation: PrefixTranslation | None = None,
    ) -> None:
        self.behavior = behavior
        self._addresses: dict[bool, tuple[str, ...]] = {
            of_ipv6: of_one_family(external_addresses, of_ipv6=of_ipv6) for of_ipv6 in (False, True)
        }
        self._translation = translation
        self._counts: dict[str, int] = {}
        self._elsewhere: dict[str, str] = {}
        self._filters: Counter[str] = Counter()
        self.leased = 0
        self._opened: deque[tuple[float, str]] = deque()  # when and by whom, within the window
        self._recent: dict[str, int] = {}  # how often each is in there

    def configure(self, behavior: Behavior) -> None:
        """Goes by other limits from now on."""
        self.behavior = behavior

    def external_address(self, host: str) -> str | None:
        """Returns the external address of a host; None where it has none.

        Where that one has no port left, binding is refused: another address would let a call's
        signalling and its media come from two.
        """
        return self._elsewhere.get(host) or self._usual_address(host)

    def may_be_behind(self, external_address: str, host: str) -> bool:
        """Whether an external address may stand for a host: of its family, and as computed."""
        if self._translation is not None and is_ipv6(host):
            return external_address == self._usual_address(host)
        return is_ipv6(external_address) is is_ipv6(host)

    def count(self, host: str) -> int:
        """Returns how many bindings a host has."""
        return self._counts.get(host, 0)

    def counts(self) -> Mapping[str, int]:
        """Returns how many bindings each host has."""
        return self._counts

    def recent_counts(self, now: float) -> Mapping[str, int]:
        """Returns how many bindings each host has opened within the last second."""
        self.forget(now)
        return self._recent

    def filters(self) -> Mapping[str, int]:
        """Returns how many permits for less than everybody each host's bindings have."""
        return self._filters

    def add(self, host: str, external_address: str) -> None:
        """Counts a binding in; the first one of a host decides where it is."""
        count = self.count(host)
        if not count and external_address != self._usual_address(host):
            self._elsewhere[host] = external_address
        self._counts[host] = count + 1

    def remove(self, host: str) -> None:
        """Counts a binding out."""
        if self._counts[host] > 1:
            self._counts[host] -= 1
        else:
            del self._counts[host]
            self._elsewhere.pop(host, None)

    def count_leases(self, host: str, leased: int, changes: Iterable[Change]) -> None:
        """Counts by how many the mappings are more, or fewer, that clients have asked for.

        Counts also what a host's mappings get or lose of permits for less than everybody.
        """
        self.leased += leased
        for change in changes:
            if isinstance(change, Permitted):
                self._filters[host] += change.permit != ANYONE
            elif isinstance(change, Forbidden):
                self._filters[host] -= change.permit != ANYONE
        if host in self._filters and not self._filters[host]:
            del self._filters[host]

    def check_leases(self, host: str) -> None:
        """Raises QuotaExceeded for too many filters, NoFreePort for too many leases in all."""
        if self._filters[host] > MAX_FILTERS_PER_HOST or self._filters.total() > MAX_FILTERS:
            raise QuotaExceeded(f"{host} has {self._filters[host]} filters")
        if self.leased > self.behavior.max_leases:
            raise NoFreePort(f"clients have {self.leased - 1} mappings, the rest is for calls")

    def check_quotas(self, host: str, wanted: int, total: int, now: float) -> None:
        """Raises QuotaExceeded or RateExceeded where the host may not open so many bindings more.

        `total` is how many there are of all hosts.
        """
        if self.count(host) + wanted > self.behavior.max_mappings_per_host:
            raise QuotaExceeded(f"{host} has {self.count(host)} mappings")
        if total + wanted > self.behavior.max_mappings:
            raise QuotaExceeded(f"the table has {total} mappings")
        recent = self.recent(host, now)
        if recent + wanted > self.behavior.max_new_per_second:
            raise RateExceeded(f"{host} has opened {recent} mappings within a second")

    def recent(self, host: str, now: float) -> int:
        """Returns how many bindings a host has opened within the last second."""
        self.forget(now)
        return self._recent.get(host, 0)

    def note_opened(self, host: str, now: float) -> None:
        """Notes that a host has opened a binding."""
        self._opened.append((now, host))
        self._recent[host] = self._recent.get(host, 0) + 1

    def undo_opened(self, host: str) -> None:
        """Takes the host's latest note back, if it is still kept."""
        for i in reversed(range(len(self._opened) if host in self._recent else 0)):
            if self._opened[i][1] == host:  # nearly always the very last
                del self._opened[i]
                self._uncount(host)
                break

    def forget(self, now: float) -> None:
        """Forgets what was opened a second ago or earlier."""
        while self._opened and self._opened[0][0] + _WINDOW <= now:
            self._uncount(self._opened.popleft()[1])

    def move(self, old_address: str, new_address: str) -> None:
        """Puts one external address in the place of another, with every host on it.

        Raises ValueError where the old one is unknown, or the new one is known or of another
        family.
        """
        addresses = self._addresses[is_ipv6(old_address)]
        if old_address not in addresses:
            raise ValueError(f"{old_address} is no external address")
        if new_address in addresses:
            raise ValueError(f"{new_address} is an external address already")
        if is_ipv6(new_address) is not is_ipv6(old_address):
            raise ValueError(f"external address {new_address} is of another family")
        self._addresses[is_ipv6(old_address)] = tuple(
            new_address if each == old_address else each for each in addresses
        )
        for host, address in self._elsewhere.items():
            if address == old_address:
                self._elsewhere[host] = new_address

    def _usual_address(self, host: str) -> str | None:
        of_ipv6 = is_ipv6(host)
        if of_ipv6 and self._translation is not None:
            return self._translation.to_external(host)
        addresses = self._addresses[of_ipv6]
        return addresses[zlib.crc32(host.encode()) % len(addresses)] if addresses else None

    def _uncount(self, host: str) -> None:
        if self._recent[host] > 1:
            self._recent[host] -= 1
        else:
            del self._recent[host]
