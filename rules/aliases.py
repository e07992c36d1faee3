"""Behind another NAT: the table has the public address, the kernel the interface's own one.

Signalling names the public address, so the table does, and everything that reads it. Packets carry
the other one, the wire address, and the NAT above puts the public address there, with the same
port. The two are exchanged at the kernel's door and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from nat_table.binding import Binding, Permit
from nat_table.changes import Change, Turned
from nat_table.endpoint import Endpoint
from rules.backend import Backend, Refusal


class Aliases:
    """Which address on the wire stands for which public one; others are the same on both sides."""

    def __init__(self) -> None:
        self._wires: dict[str, str] = {}
        self._publics: dict[str, str] = {}

    def __bool__(self) -> bool:
        return bool(self._wires)

    def point(self, public: str, wire: str) -> None:
        """Has a public address mean this one on the wire.

        Former public addresses keep their meaning, for what is closed on them.
        """
        self._publics.pop(self._wires.pop(public, public), None)
        self._publics.pop(wire, None)
        if public != wire:
            self._wires[public] = wire
            self._publics[wire] = public

    def wire(self, endpoint: Endpoint) -> Endpoint:
        """Returns what a public endpoint is on the wire."""
        address = self._wires.get(endpoint.address)
        return endpoint if address is None else Endpoint(address, endpoint.port)

    def public(self, endpoint: Endpoint) -> Endpoint:
        """Returns what an endpoint on the wire is in public."""
        address = self._publics.get(endpoint.address)
        return endpoint if address is None else Endpoint(address, endpoint.port)

    def wired(self, binding: Binding) -> Binding:
        """Returns a binding as the kernel has it."""
        return replace(binding, external=self.wire(binding.external)) if self else binding

    def published(self, binding: Binding) -> Binding:
        """Returns a binding of the kernel as the table has it."""
        return replace(binding, external=self.public(binding.external)) if self else binding


class AliasedBackend:
    """A kernel behind another NAT; a `rules.backend.Backend` like the one that it wraps."""

    def __init__(self, backend: Backend, aliases: Aliases) -> None:
        self._backend = backend
        self._aliases = aliases
        self.install = backend.install
        self.is_installed = backend.is_installed
        self.reconfigure = backend.reconfigure
        self.flowing = backend.flowing
        self.traffic = backend.traffic
        self.is_sending = backend.is_sending
        self.counters = backend.counters
        self.inspect = backend.inspect
        self.cut_flows = backend.cut_flows
        self.stop_diverting = backend.stop_diverting
        self.release_capture = backend.release_capture
        self.uninstall = backend.uninstall

    def commit(self, changes: Sequence[Change]) -> None:
        """Makes the kernel follow the table, all changes or none; raises CommitFailed."""
        if self._aliases:
            changes = [self._wired(each) for each in changes]
        self._backend.commit(changes)

    def reconcile(self, wanted: Iterable[tuple[Binding, Iterable[str | Permit]]]) -> Iterator[None]:
        """Makes exactly these bindings stand, in steps; raises CommitFailed."""
        return self._backend.reconcile(
            (self._aliases.wired(binding), named) for binding, named in wanted
        )

    def masqueraded(self, internal: Endpoint) -> Endpoint | None:
        """Returns the public endpoint that an unmapped UDP socket has now, if it has just one."""
        seen = self._backend.masqueraded(internal)
        return None if seen is None else self._aliases.public(seen)

    def refused(self) -> list[Refusal]:
        """Returns whom filtering has refused for the first time in ten minutes."""
        return [
            each._replace(endpoint=self._aliases.public(each.endpoint))
            for each in self._backend.refused()
        ]

    def listing(self) -> list[Binding]:
        """Returns the bindings that stand in the kernel."""
        return [self._aliases.published(each) for each in self._backend.listing()]

    def _wired(self, change: Change) -> Change:
        binding = self._aliases.wired(change.binding)
        if isinstance(change, Turned):
            return Turned(binding, self._aliases.wired(change.before))
        return replace(change, binding=binding)
