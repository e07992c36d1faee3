"""The seam to the kernel: install the rules, commit changes, list what stands, take it all away.

A commit is in the kernel before the message that announces its ports leaves. It costs one netlink
round trip however many mappings and flows there are: a batch for the elements, which also tells
whether a stranger's flow uses an endpoint of a new mapping. Only if one does is conntrack searched
(`rules.conntrack`), and only for that endpoint (`rules.strays`). The captured packet's own entry,
where it is the first of its flow, is not in the table yet and so never cut. A refresh does nothing.

What only goes, goes in the background a moment later, and so do flows of closed mappings
(`rules.closing`). Where a permit has gone flows are cut too that remotes have begun (RFC 6887
§13.3): who has another right goes on with the next packet.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

from nat_table.behavior import Mode6
from nat_table.binding import Binding, Permit
from nat_table.changes import Change
from nat_table.endpoint import Endpoint, Socket, Transport
from rules import elements
from rules.closing import Closer
from rules.commits import Commits
from rules.conntrack import Conntrack, End, Side
from rules.elements import Element
from rules.inspection import Inspection, inspect
from rules.installation import Installation
from rules.netlink import KernelRefused, Netlink
from rules.programs import ProgramFailed
from rules.reconcile import differences
from rules.settings import Settings
from rules.strays import own_ends, stray, used
from rules.traffic import Traffic, TrafficMeter

_NEEDS_ROOT = "the kernel refused: sipnat needs CAP_NET_ADMIN (run it as root)"


class InstallFailed(Exception):
    """The kernel side could not be set up; the message is one sentence."""


class CommitFailed(Exception):
    """The kernel refused the changes, and none of them stands."""


class Refusal(NamedTuple):
    """A remote that filtering has kept from a mapping.

    `endpoint` is the internal one; of a mapping for SIP over TCP it is the external one.
    """

    source: str
    transport: Transport
    endpoint: Endpoint


class Backend(Protocol):
    """What the daemon and the tests need of a kernel."""

    def install(self) -> None:
        """Sets up rules and capture, keeping mappings that stand; raises InstallFailed."""

    def is_installed(self, *, is_thorough: bool) -> bool:
        """Tells whether the table stands and, if asked to be thorough, the capture rule too."""

    def commit(self, changes: Sequence[Change]) -> None:
        """Makes the kernel follow the table, all changes or none; raises CommitFailed.

        When this returns it stands, but for mappings that only close: they are gone in a moment.
        """

    def reconfigure(self, settings: Settings) -> None:
        """Goes on with other settings; raises InstallFailed, with the old ones in force.

        Mappings stay until changes are committed: those of an address that has gone are closed
        right after this, or before.
        """

    def reconcile(self, wanted: Iterable[tuple[Binding, Iterable[str | Permit]]]) -> Iterator[None]:
        """Makes exactly these bindings stand, with the addresses and permits each names, in steps.

        Changes may be committed between two steps; raises CommitFailed.
        """

    def masqueraded(self, internal: Endpoint) -> Endpoint | None:
        """Returns the external endpoint that an unmapped UDP socket has now, if it has just one."""

    def flowing(self) -> set[Endpoint]:
        """Returns the internal endpoints of live flows; raises KernelRefused.

        Of TCP these are the ones that were connected to: who connects has a port for that alone.
        May be called from another thread than the rest, by one at a time.
        """

    def traffic(self) -> dict[Socket, Traffic]:
        """Returns what the live flows of internal sockets have carried; raises KernelRefused.

        Those that the kernel does not count (`rules.accounting`) are left out, and so are some of
        sockets that a client has asked for (`rules.traffic`). May be called from any thread.
        """

    def is_sending(self, internal: Endpoint, remote: Endpoint) -> bool:
        """Tells whether a host sends UDP to a remote from another port than this one.

        Raises KernelRefused; may be called from another thread, as `traffic`.
        """

    def refused(self) -> list[Refusal]:
        """Returns whom filtering has refused for the first time in ten minutes; at most 1024."""

    def counters(self) -> dict[str, int]:
        """Returns how many packets each counter of the ruleset has counted."""

    def inspect(self) -> Inspection:
        """Returns how the kernel's side stands and fares; raises KernelRefused.

        May be called from another thread than the rest, by one at a time.
        """

    def listing(self) -> list[Binding]:
        """Returns the bindings that stand in the kernel."""

    def cut_flows(self) -> None:
        """Cuts the flows of all mappings; raises KernelRefused."""

    def stop_diverting(self) -> None:
        """Has SIP over TCP pass the relay by, until the next `install`."""

    def release_capture(self) -> None:
        """Stops capturing signalling; mappings and media go on."""

    def uninstall(self) -> None:
        """Takes away all that `install` and `commit` brought."""


class KernelBackend:
    """The Linux kernel, in the network namespace of the thread that makes this object."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._netlink = Netlink(settings.table)
        family = socket.AF_INET if settings.mode6 is Mode6.OFF else socket.AF_UNSPEC
        self._conntrack = Conntrack(family)
        self._watched = Conntrack(family)
        self._dumped = Netlink(settings.table)
        self._inspected = Netlink(settings.table)
        self._closer = Closer(Netlink(settings.table), Conntrack(family), settings.open_mark)
        self._meter = TrafficMeter(family, settings.open_mark)
        self._installation = Installation(self._netlink, self._conntrack)
        self._commits = Commits(self._netlink, self._conntrack, self._closer)
        self._touched: set[tuple[str, bytes]] | None = None
        self._refused: set[Refusal] = set()

    @property
    def is_native_queue(self) -> bool:
        """Whether capture uses nft's own `queue` statement; known after `install`."""
        return self._installation.is_native_queue

    def install(self) -> None:
        """Sets up rules and capture, keeping mappings that stand; raises InstallFailed.

        Leaves nothing behind where it fails, unless an earlier installation stood.
        """
        was_installed = False
        try:
            was_installed = self._netlink.has_table()
            self._installation.install(self._settings, was_installed=was_installed)
        except (ProgramFailed, KernelRefused, OSError) as error:
            if not was_installed:
                self._installation.remove_table(self._settings)
            is_denied = getattr(error, "number", None) == errno.EPERM
            raise InstallFailed(_NEEDS_ROOT if is_denied else str(error)) from error

    def reconfigure(self, settings: Settings) -> None:
        """Goes on with other settings; raises InstallFailed, with the old ones in force."""
        before, self._settings = self._settings, settings
        try:
            self.install()
        except InstallFailed:
            self._settings = before
            raise
        self._follow_fence()

    def _follow_fence(self) -> None:
        """Has the fence keep off the ports of mappings on its address, which may be another now."""
        bound = elements.of_both(elements.BOUND)
        wanted = [
            each
            for mapping in self.listing()
            for each in elements.elements(mapping, self._settings)
            if each.set_name in bound
        ]
        for steps in differences(wanted, list(self._netlink.all_elements(bound))):
            self._netlink.apply(steps)

    def is_installed(self, *, is_thorough: bool) -> bool:
        """Tells whether the table stands and, if asked to be thorough, the capture rule too.

        The table costs one netlink question, iptables a process. A kernel that does not answer is
        taken for one that has everything.
        """
        try:
            if not self._netlink.has_table():
                return False
            return not is_thorough or self._installation.has_capture(self._settings)
        except (KernelRefused, ProgramFailed):
            return True

    def commit(self, changes: Sequence[Change]) -> None:
        """Makes the kernel follow the table, all changes or none; raises CommitFailed."""
        try:
            steps = self._commits.make(changes, self._settings)
        except KernelRefused as refusal:
            raise CommitFailed(str(refusal)) from refusal
        if self._touched is not None:
            self._touched.update((name, key) for _, name, key, _ in steps)

    def reconcile(self, wanted: Iterable[tuple[Binding, Iterable[str | Permit]]]) -> Iterator[None]:
        """Makes exactly these bindings stand, in steps; raises CommitFailed.

        Nothing is asked for each mapping: one look at all strays in the end finds what to cut.
        """
        touched: set[tuple[str, bytes]] = set()
        self._touched = touched
        added: list[Element] = []
        try:
            self._closer.flush()
            standing = self._dumped.all_elements(elements.OF_BINDINGS + elements.OF_REMOTES)
            goal = self._commits.audiences.adopt(wanted, self._settings)
            for steps in differences(goal, standing, touched):
                self._netlink.apply(steps)
                added += [step.element for step in steps if step.is_added]
                gone = self._bindings(step.element for step in steps if not step.is_added)
                if gone:
                    self._closer.cut(own_ends(gone))
                yield
            if added:
                strays = self._netlink.all_elements(elements.of_both(elements.STRAYS))
                noted = {each.key for each in strays}
                self._conntrack.cut(used(self._bindings(added), noted, self._settings))
        except KernelRefused as refusal:
            raise CommitFailed(str(refusal)) from refusal
        finally:
            self._touched = None

    def masqueraded(self, internal: Endpoint) -> Endpoint | None:
        """Returns the external endpoint that an unmapped UDP socket has now, if it has just one.

        That is what a STUN server has told the phone about itself (RFC 8489, RFC 8839). None also
        where the kernel does not answer.
        """
        end = End(Side.ORIGINAL_SOURCE, Transport.UDP, internal)
        try:
            if not self._netlink.have([stray(elements.pack_endpoint(internal))])[0]:
                return None
            seen = {flow.reply_destination for flow in self._conntrack.find(end)}
        except KernelRefused:
            return None
        return elements.unpack_endpoint(seen.pop()) if len(seen) == 1 else None

    def flowing(self) -> set[Endpoint]:
        """Returns the internal endpoints of live flows; raises KernelRefused.

        Of IPv6 all endpoints are returned that may be internal: not every mode translates.
        """
        packed = {
            endpoint
            for flow in self._watched.flows()
            for endpoint in flow.internal()
            if flow.protocol == Transport.UDP.value or endpoint == flow.reply_source
        }
        return set(map(elements.unpack_endpoint, packed))

    def traffic(self) -> dict[Socket, Traffic]:
        """Returns what the live flows of internal sockets have carried; raises KernelRefused."""
        return self._meter.read()

    def is_sending(self, internal: Endpoint, remote: Endpoint) -> bool:
        """Tells whether a host sends UDP to a remote from another port than this one."""
        return self._meter.is_sending(internal, remote)

    def refused(self) -> list[Refusal]:
        """Returns whom filtering has refused since the last call, and not before."""
        try:
            names = elements.of_both(elements.REFUSED)
            listed = set(map(_refusal, self._netlink.all_elements(names)))
        except KernelRefused:
            return []
        news = sorted(listed - self._refused)
        self._refused = listed
        return news

    def counters(self) -> dict[str, int]:
        """Returns how many packets each counter of the ruleset has counted."""
        try:
            return self._netlink.counters()
        except KernelRefused:
            return {}

    def inspect(self) -> Inspection:
        """Returns how the kernel's side stands and fares; raises KernelRefused."""
        return inspect(self._settings, self._inspected, self._installation)

    def listing(self) -> list[Binding]:
        """Returns the bindings that stand in the kernel; see `rules.elements.bindings`.

        Of each it is enough to read one element, and two of signalling: with many mappings the
        kernel takes its time for every set, and what a binding lacks is for `reconcile` to find.
        """
        self._closer.flush()
        return self._bindings(self._netlink.all_elements(elements.listed(self._settings)))

    def cut_flows(self) -> None:
        """Cuts the flows of all mappings; raises KernelRefused.

        With their next packet they meet the maps anew, of this uplink or of another.
        """
        self._conntrack.cut(own_ends(self.listing()))

    def _bindings(self, standing: Iterable[Element]) -> list[Binding]:
        return elements.bindings(standing, self._settings)

    def stop_diverting(self) -> None:
        """Has SIP over TCP pass the relay by, until the next `install`."""
        self._installation.stop_diverting(self._settings)

    def release_capture(self) -> None:
        """Stops capturing signalling; mappings and media go on."""
        with contextlib.suppress(KernelRefused):  # the next run finds what is left
            self._closer.flush()
        self._installation.release_capture(self._settings)

    def uninstall(self) -> None:
        """Takes away all that `install` and `commit` brought; flows of mappings are cut."""
        self._closer.cut(own_ends(self.listing()))
        self.release_capture()
        self._installation.remove_table(self._settings)
        self._closer.close()
        self._watched.close()
        self._meter.close()
        self._dumped.close()
        self._inspected.close()
        self._conntrack.close()
        self._netlink.close()


def _refusal(element: Element) -> Refusal:
    key = element.key
    size = 4 if element.set_name == elements.REFUSED else 16
    return Refusal(
        elements.unpack_address(key[:size]),
        Transport(key[size]),
        elements.unpack_endpoint(key[size + 4 :]),
    )
