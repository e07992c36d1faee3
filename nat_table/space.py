"""The endpoints of one transport: both ways to find a binding, and the ports of every address.

The two indexes are written here only, and always together.
"""

from __future__ import annotations

from collections.abc import Iterable

from nat_table.behavior import Behavior
from nat_table.binding import Binding
from nat_table.endpoint import Endpoint, is_ipv6
from nat_table.entry import Entry
from nat_table.ports import OwnPorts, PortPool, Ports, Rng


class Space:
    """Finds entries by their internal and by their external endpoint.

    Where prefixes are translated, IPv6 addresses have no pools.
    """

    __slots__ = ("_behavior", "_own", "_rng", "by_external", "by_internal", "pools")

    def __init__(
        self,
        external_addresses: Iterable[str],
        behavior: Behavior,
        rng: Rng,
        *,
        is_translated: bool,
    ) -> None:
        self.by_internal: dict[Endpoint, Entry] = {}
        self.by_external: dict[Endpoint, Entry] = {}
        self._behavior = behavior
        self._rng = rng
        self.pools = {address: PortPool(behavior, rng) for address in external_addresses}
        self._own = OwnPorts() if is_translated else None

    def configure(self, behavior: Behavior) -> None:
        """Gives out ports by other rules from now on."""
        self._behavior = behavior
        for pool in self.pools.values():
            pool.configure(behavior)

    def ports(self, external_address: str) -> Ports | None:
        """Returns the ports of an external address; None where it is not ours."""
        if self._own is not None and is_ipv6(external_address):
            return self._own
        return self.pools.get(external_address)

    def end_quarantine(self, now: float, limit: int | None) -> None:
        """Frees the ports whose quarantine is over, `limit` of each address at the most."""
        for pool in self.pools.values():
            pool.end_quarantine(now, limit)
            pool.forget_outdated()

    def insert(self, binding: Binding) -> Entry:
        """Returns the new entry of a binding whose endpoints are free."""
        entry = Entry(binding)
        self.by_internal[binding.internal] = entry
        self.by_external[binding.external] = entry
        return entry

    def remove(self, binding: Binding) -> None:
        """Takes a binding's entry out."""
        del self.by_internal[binding.internal], self.by_external[binding.external]

    def move(self, old_address: str, new_address: str, now: float) -> list[tuple[Binding, Entry]]:
        """Puts a new pool in the place of an old one; returns what each entry was, and the entry.

        An entry keeps its port, which is free in a new pool.
        """
        del self.pools[old_address]
        pool = self.pools[new_address] = PortPool(self._behavior, self._rng)
        moved = []
        for entry in self.by_internal.values():
            before = entry.binding
            address, port = before.external
            if address == old_address:
                external, internal = Endpoint(new_address, port), before.internal
                del self.by_external[before.external]
                self.by_external[external] = entry
                entry.binding = Binding(before.transport, internal, external, before.kind, now)
                pool.claim(port, internal, now)
                moved.append((before, entry))
        return moved
