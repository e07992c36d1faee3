"""Where mappings are asked for, without a kernel: table, leases, and a clock that tests move."""

from __future__ import annotations

import random

from alg.port_manager.leases import LeaseLimits, Leases
from alg.port_manager.map_command import MapCommand
from alg.port_manager.port_manager import PortManager
from alg.port_manager.refusal import GatewayFailed
from nat_table.behavior import Behavior
from nat_table.binding import Pinhole
from nat_table.changes import Change
from nat_table.endpoint import UDP, Endpoint, Transport
from nat_table.table import NatTable

EXTERNAL = "203.0.113.1"
HOST = "10.0.0.20"
PHONE = Endpoint(HOST, 5060)
MEDIA = Endpoint(HOST, 4000)
SERVER = Endpoint("203.0.113.10", 5060)
OTHER = Endpoint("203.0.113.11", 30000)


class Office:
    """`committed` are the changes that the kernel has taken; it refuses where `is_kernel_full`."""

    def __init__(self, behavior: Behavior | None = None, limits: LeaseLimits | None = None) -> None:
        self.now = 1000.0
        self.is_kernel_full = False
        self.committed: list[Change] = []
        self.table = NatTable((EXTERNAL,), behavior or Behavior(), random.Random(5351))
        limits = limits or LeaseLimits(frozenset({9999}), frozenset({"10.0.0.1"}))
        self.leases = Leases(self.table, limits, self._settle)
        self.command = MapCommand(self.leases, lambda: self.now)

    def port_manager(self, *, name: str = "", lifetime: float = 3600.0) -> PortManager:
        """Returns a port manager of the phone's host."""
        return PortManager(self.command.answer, HOST, name=name, lifetime=lifetime)

    def wait(self, seconds: float) -> None:
        """Lets time pass, and ends what has expired."""
        self.now += seconds
        self.table.expire(self.now)
        self._settle()

    def pinholes(self, internal: Endpoint, transport: Transport = UDP) -> tuple[Pinhole, ...]:
        """Returns the pinholes of an internal endpoint's mapping."""
        binding = self.table.look_up_internal(transport, internal)
        return () if binding is None else self.table.pinholes(binding)

    def mappings(self) -> dict[str, str]:
        """Returns internal -> external endpoint, as text, of every mapping."""
        return {str(each.internal): str(each.external) for each in self.table.bindings()}

    def _settle(self) -> None:
        changes = self.table.take_changes()
        if self.is_kernel_full and changes:
            self.table.revert(changes)
            raise GatewayFailed("the kernel refused the mapping")
        self.committed += changes
