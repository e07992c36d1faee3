"""External addresses in motion: mappings follow the interface, and the NAT above it (A33).

The table has the public address. Where another NAT is above, that is not the interface's own one,
and either may change without the other.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from alg.config import Config
from alg.daemon.connections import CONNECTION
from alg.daemon.ledger import Ledger
from alg.daemon.packet_path import Sides
from alg.daemon.requests import MappingRequests
from alg.daemon.settings import changed_settings
from alg.gateway import Gateway
from alg.io.clock import now
from alg.io.relay import Relay
from alg.outside import Outside
from alg.upstream.upstream import Finding, How, Upstream
from nat_table.behavior import Mode6
from nat_table.binding import Binding, Kind
from nat_table.endpoint import Endpoint, is_ipv6, of_one_family
from nat_table.lease import LEASE
from rules.aliases import Aliases
from rules.backend import Backend, CommitFailed, InstallFailed
from rules.interfaces import (
    InterfaceMissing,
    NoAddress,
    external_addresses,
    external_addresses6,
    networks_of,
)
from rules.netlink import KernelRefused
from rules.settings import Settings

log = logging.getLogger("sipnat")

KEPT = (CONNECTION, LEASE)
"""Who has been told of a mapping already, whatever the NAT above says."""


class Addresses:
    """Has table, kernel and connections follow the external addresses."""

    def __init__(
        self,
        config: Config,
        settings: Settings,
        gateway: Gateway,
        backend: Backend,
        ledger: Ledger,
        sides: Sides,
        relay: Relay | None,
        requests: MappingRequests,
        upstream: Upstream,
        aliases: Aliases,
    ) -> None:
        self._config = config
        self._settings = settings
        self._gateway = gateway
        self._backend = backend
        self._ledger = ledger
        self._sides = sides
        self._relay = relay
        self._requests = requests
        self._upstream = upstream
        self._aliases = aliases

    def configure(self, config: Config) -> None:
        """Has the kernel go by another configuration; raises InstallFailed, with nothing changed.

        What stands is to be put right by `reconcile` then.
        """
        settings = changed_settings(self._settings, config)
        if settings != self._settings:
            try:
                self._backend.reconfigure(settings)
            except KernelRefused as refusal:
                self._ledger.fall_behind("the rules", refusal)
            self._settings = settings
            self._ledger.is_behind = True
        self._config = config

    def follow(self) -> None:
        """Moves the mappings where the only external address is another one by now."""
        config = self._config
        try:
            current = config.addresses or external_addresses(config.external)
        except (InterfaceMissing, NoAddress) as error:
            log.warning("%s; calls wait until there is one", error)
        else:
            self._follow_upstream(current)
        self._gateway.outside = _outside_of(config, self._upstream.found)
        if self._settings.mode6 is Mode6.NAT66:
            self._follow6(config.addresses6 or external_addresses6(config.external))

    def heed_upstream(self) -> None:
        """Takes what a look at the NAT above has found."""
        self.follow()
        self._ledger.grants.use(self._upstream.mapper, self._gateway.table.bindings())

    def give_up(self, binding: Binding) -> None:
        """Lets go of a mapping whose port the NAT above has given to somebody else.

        Nobody has been told of it, and what names it is decided anew; RTP and RTCP go together.
        """
        table, moment = self._gateway.table, now()
        refused = [binding]
        if binding.kind in (Kind.RTP, Kind.RTCP):
            internal = binding.internal
            other = internal._replace(port=internal.port ^ 1)
            refused += filter(None, [table.look_up_internal(binding.transport, other)])
        if any(hole.owner.scope in KEPT for each in refused for hole in table.pinholes(each)):
            return
        for each in refused:
            for pinhole in table.pinholes(each):
                table.close(each, pinhole.owner, moment)
            table.ports(each).withhold(each.internal)
        try:
            self._gateway.forget_closed(self._ledger.settle())
        except CommitFailed as error:
            log.error("the kernel did not close %s: %s", binding.external, error)

    def _follow_upstream(self, current: Sequence[str]) -> None:
        """Does it for IPv4, where a NAT above may put another address in its place."""
        wire, *other_wires = self._settings.external_addresses
        if not other_wires and wire not in current:
            self._upstream.move(current[0])
        found = self._upstream.found
        former, *others = of_one_family(self._gateway.external_addresses, of_ipv6=False)
        if others or (found.public == found.wire and former in current):
            return
        if former != found.public:
            self._change_address(former, found.public, found.wire)
        elif found.wire != wire:
            self._change_wire(former, found.wire)

    def _follow6(self, current: Sequence[str]) -> None:
        """Does it for IPv6; where there is no address its calls wait, and nothing is said."""
        former, *others = of_one_family(self._gateway.external_addresses, of_ipv6=True)
        if current and not others and former not in current:
            self._change_address(former, current[0], current[0])

    def _change_wire(self, public: str, wire: str) -> None:
        """Follows the interface to another address, which leaves the public one as it is."""
        former, *_ = self._settings.external_addresses
        self._aliases.point(public, wire)
        self._reconfigure(replace(self._settings, external_addresses=(wire,)))
        for _ in self._ledger.reconcile():
            pass
        self._hang_up(former)
        log.warning("the address of %s is %s, it was %s", self._config.external, wire, former)

    def _change_address(self, former: str, address: str, wire: str) -> None:
        gateway, table, moment = self._gateway, self._gateway.table, now()
        registered = gateway.registered()
        if self._config.on_address_change == "drop":
            for binding in table.bindings():
                for pinhole in table.pinholes(binding):
                    if binding.external.address == former:
                        table.close(binding, pinhole.owner, moment)
        moved = table.move(former, address, moment)
        gateway.move_address(former, address, moved)
        former_wire = self._aliases.wire(Endpoint(former, 0)).address
        self._aliases.point(address, wire)
        changes = table.take_changes()
        if is_ipv6(address):
            self._reconfigure(replace(self._settings, external_addresses6=(wire,)))
        else:
            self._reconfigure(replace(self._settings, external_addresses=(wire,)))
        self._ledger.push(changes, "moved")
        self._hang_up(former_wire)
        self._requests.announce()
        log.warning(
            "the external address is %s, it was %s; %d mappings moved",
            address,
            former,
            len(moved),
        )
        for internal, external in registered:
            log.warning("%s was registered as %s and must register again", internal, external)

    def _reconfigure(self, settings: Settings) -> None:
        self._settings = settings
        self._sides.forget()
        try:
            self._backend.reconfigure(settings)
        except (InstallFailed, KernelRefused) as error:
            self._ledger.fall_behind("rules for the new address", error)

    def _hang_up(self, wire: str) -> None:
        if self._relay is not None:
            self._relay.hang_up(wire)


def _outside_of(config: Config, found: Finding) -> Outside:
    """Returns what the engine must know of the NAT above; nothing where its address is given."""
    if found.how in (How.INTERFACE, How.CONFIGURED):
        return Outside()
    near = networks_of((config.external, *config.internal))
    return Outside(found.public, found.wire, near, found.is_hands_off)
