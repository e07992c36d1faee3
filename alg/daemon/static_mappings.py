"""Makes the mappings of the configuration, and keeps them.

They are made at start, when those are dropped that the configuration has no more. One that cannot
be had (its port is another host's, or an address is missing) is said once and tried again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from alg.io.clock import now
from alg.port_manager.leases import Ask, Lease, Leases
from alg.port_manager.refusal import CannotProvideExternal, Refused
from alg.static_mapping import StaticMapping
from nat_table.lease import Source

log = logging.getLogger("sipnat")

INTERVAL = 10.0


class StaticMappings:
    """The leases of the administrator, which have no end."""

    def __init__(self, wanted: Sequence[StaticMapping], leases: Leases) -> None:
        self._leases = leases
        self._missing: set[StaticMapping] = set()
        self.configure(wanted)

    def configure(self, wanted: Sequence[StaticMapping]) -> None:
        """Takes what the configuration has; `begin` makes it so."""
        self._wanted = {each.socket: each for each in wanted}

    def begin(self) -> None:
        """Drops what an earlier configuration had, and makes what this one has."""
        moment = now()
        for lease in self._leases.all(Source.STATIC):
            binding = lease.binding
            if not _is_made(self._wanted.get((binding.transport, binding.internal)), lease):
                try:
                    self._leases.end(lease, moment)
                except Refused as refusal:
                    log.warning("static mapping of %s stays: %s", binding.internal, refusal)
        self._make()

    async def keep(self) -> None:
        """Makes what is missing, for as long as it runs."""
        while True:
            await asyncio.sleep(INTERVAL)
            self._make()

    def _make(self) -> None:
        for (transport, internal), each in self._wanted.items():
            if self._leases.find(Source.STATIC, transport, internal) is not None:
                continue
            ask = Ask(
                Source.STATIC,
                transport,
                internal,
                lifetime=0,
                wanted=each.external_port,
                is_exact=True,
            )
            try:
                self._check_address(each)
                self._leases.request(ask, now())
            except Refused as refusal:
                if each not in self._missing:
                    log.warning("static mapping of %s, tried again: %s", internal, refusal)
                self._missing.add(each)
            else:
                self._missing.discard(each)

    def _check_address(self, mapping: StaticMapping) -> None:
        wanted, host = mapping.external_endpoint, mapping.internal_endpoint.address
        address = self._leases.external_address(host)
        if wanted is not None and wanted.address != address:
            raise CannotProvideExternal(f"the external address of {host} is {address}")


def _is_made(mapping: StaticMapping | None, lease: Lease) -> bool:
    external = lease.binding.external
    return mapping is not None and (
        mapping.external_port == external.port and mapping.external_endpoint in (None, external)
    )
