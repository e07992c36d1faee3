"""The endpoints of one transport: both ways to find a binding, and the ports of every address.

The two indexes are written here only, and always together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from nat_table.binding import Binding
from nat_table.endpoint import Endpoint
from nat_table.entry import Entry
from nat_table.ports import PortPool


class Space:
    """Finds entries by their internal and by their external endpoint."""

    __slots__ = ("by_external", "by_internal", "pools")

    def __init__(self) -> None:
        self.by_internal: dict[Endpoint, Entry] = {}
        self.by_external: dict[Endpoint, Entry] = {}
        self.pools: dict[str, PortPool] = {}

    def insert(self, binding: Binding) -> Entry:
        """Returns the new entry of a binding whose endpoints are free."""
        entry = Entry(binding)
        self.by_internal[binding.internal] = self.by_external[binding.external] = entry
        return entry

    def remove(self, binding: Binding) -> None:
        """Takes a binding's entry out."""
        del self.by_internal[binding.internal], self.by_external[binding.external]

    def move(
        self, old_address: str, new_address: str, pool: PortPool, now: float
    ) -> Iterator[tuple[Binding, Entry]]:
        """Puts a new pool in the place of an old one; yields what each entry was, and the entry.

        An entry keeps its port, which is free in a new pool.
        """
        del self.pools[old_address]
        self.pools[new_address] = pool
        for before in [entry.binding for entry in self.by_internal.values()]:
            if before.external.address == old_address:
                external = Endpoint(new_address, before.external.port)
                entry = self.by_external[external] = self.by_external.pop(before.external)
                entry.binding = replace(before, external=external, created_at=now)
                pool.claim(external.port, before.internal, now)
                yield before, entry
