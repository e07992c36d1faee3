"""What is set up once: rules, routing, reserved ports; mappings that stand are kept.

Where the table of an earlier version, or another mode of IPv6, cannot be changed in place it is
replaced, and what stood in it is put back. Flows that are older than the rules have met no map:
unmapped SIP is cut, so that it is captured, and the others are noted as strays.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence

from nat_table.endpoint import Transport
from rules import capture, elements, reserved_ports, routing
from rules.conntrack import Conntrack
from rules.elements import Operation
from rules.netlink import KernelRefused, Netlink
from rules.programs import ProgramFailed, run_program
from rules.ruleset import DIVERTING, render_ruleset
from rules.settings import Settings
from rules.strays import stray, stray_ends

_log = logging.getLogger(__name__)
_BATCH_SIZE = 4096


class Installation:
    """Our table in the kernel, and what goes with it."""

    def __init__(self, netlink: Netlink, conntrack: Conntrack) -> None:
        self._netlink = netlink
        self._conntrack = conntrack
        self._reserved: frozenset[int] = frozenset()
        self.is_native_queue = False
        """Whether capture uses nft's own `queue` statement; known after `install`."""

    def install(self, settings: Settings, *, was_installed: bool) -> None:
        """Sets everything up; raises ProgramFailed, KernelRefused or OSError."""
        self.is_native_queue = capture.has_native_queue()
        text = render_ruleset(settings, self.is_native_queue)
        try:
            run_program("nft", "-f", "-", text=text)
        except ProgramFailed:
            if not was_installed:
                raise
            _log.info("the table of an earlier run is replaced")
            names = elements.OF_BINDINGS + elements.OF_REMOTES
            standing = list(self._netlink.all_elements(names))
            run_program("nft", "-f", "-", text=f"delete table inet {settings.table}\n{text}")
            whole = elements.whole(standing, settings)
            self._apply([Operation(True, element) for element in whole])
        self._reserve_ports(settings)
        routing.install(settings)
        if not self.is_native_queue:
            capture.install_iptables_rule(settings)
        self._meet_older_flows(settings)

    def has_capture(self, settings: Settings) -> bool:
        """Tells whether the iptables rule and the relay's routing stand, where they must.

        Raises ProgramFailed or KernelRefused.
        """
        has_rule = self.is_native_queue or capture.has_iptables_rule(settings)
        return has_rule and routing.is_installed(settings)

    def release_capture(self, settings: Settings) -> None:
        """Stops capturing signalling."""
        self.stop_diverting(settings)
        try:
            if self.is_native_queue:
                _empty_chains(settings, ("capture",))
            else:
                capture.remove_iptables_rules(settings)
        except ProgramFailed as failure:
            _log.warning("the queue rule was not removed: %s", failure)

    def stop_diverting(self, settings: Settings) -> None:
        """Has new connections for SIP pass the relay by; those that it has go on."""
        names = elements.of_both(*DIVERTING) if settings.is_relaying6 else DIVERTING
        try:
            if settings.relay_port:
                _empty_chains(settings, names)
        except ProgramFailed as failure:
            _log.warning("new TCP connections still go to the relay: %s", failure)

    def remove_table(self, settings: Settings) -> None:
        """Takes the table away, the relay's routing, and the reservation of ports."""
        table = f"table inet {settings.table}"
        with contextlib.suppress(ProgramFailed):
            run_program("nft", "-f", "-", text=f"add {table}; delete {table}")
        with contextlib.suppress(KernelRefused):
            routing.remove(settings)
        with contextlib.suppress(OSError):  # who may not write it has reserved nothing
            reserved_ports.release(self._reserved)

    def _reserve_ports(self, settings: Settings) -> None:
        try:
            reserved = reserved_ports.reserve(settings.pool)
        except OSError as error:  # /proc/sys is read-only in most containers
            _log.warning("the router's own sockets may take ports of the pool: %s", error)
        else:
            self._reserved = self._reserved or reserved

    def _meet_older_flows(self, settings: Settings) -> None:
        older = [each for each in self._conntrack.flows() if each.protocol == Transport.UDP.value]
        if older:
            names = elements.INTERNAL
            internal = {each.key[4:] for each in self._netlink.all_elements(names)}
            older = [
                flow
                for flow in older
                if internal.isdisjoint((flow.original_source, flow.reply_source))
            ]
        addresses = settings.external_addresses + settings.external_addresses6
        own_addresses = set(map(elements.pack_address, addresses))
        sip_ports = {port.to_bytes(2, "big") for port in settings.sip_ports}
        self._conntrack.delete(
            flow
            for flow in older
            if flow.original_destination[-4:-2] in sip_ports
            and flow.original_source[:-4] not in own_addresses
        )
        noted = {end for flow in older for end in stray_ends(flow, own_addresses)}
        self._apply([Operation(True, stray(end)) for end in noted])

    def _apply(self, steps: Sequence[Operation]) -> None:
        for start in range(0, len(steps), _BATCH_SIZE):
            self._netlink.apply(steps[start : start + _BATCH_SIZE])


def _empty_chains(settings: Settings, names: Sequence[str]) -> None:
    chains = [f"chain inet {settings.table} {name}" for name in names]
    run_program("nft", "-f", "-", text="; ".join(f"flush {chain}" for chain in chains))
