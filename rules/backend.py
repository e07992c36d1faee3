"""The seam to the kernel: install the rules, commit changes, list what stands, take it all away.

A commit is in the kernel before the message that announces its ports leaves. It costs two netlink
round trips however many mappings and flows there are: one batch for the elements, and one question
whether a stranger's flow uses an endpoint of a new mapping. Only if one does is conntrack searched
(`rules.conntrack`), and only for that endpoint:

 - the internal endpoint as original or reply source: the phone's own flow, masqueraded, or brought
   in by a port forward;
 - the external endpoint as original or reply destination: an early packet that ended at the router
   itself, or somebody else's flow masqueraded onto that port.

The ruleset notes such endpoints in the set `strays` packet by packet, and `install` those of flows
older than the ruleset, so none is missed. TCP is not noted: its endpoints are always searched. The
captured packet's own entry, where it is the first of its flow, is not in the table yet and so never
cut. A refresh cuts nothing.

Flows of a closed mapping are cut in the background (`LazyCutter`).
"""

from __future__ import annotations

import contextlib
import errno
import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from nat_table.binding import Binding
from nat_table.changes import Change, Closed, Opened
from nat_table.endpoint import Endpoint, Transport
from rules import capture, elements, reserved_ports
from rules.conntrack import Conntrack, End, Flow, LazyCutter, Side
from rules.elements import Element, Operation
from rules.netlink import KernelRefused, Netlink
from rules.programs import ProgramFailed, run_program
from rules.ruleset import render_ruleset
from rules.settings import Settings

_log = logging.getLogger(__name__)
_NEEDS_ROOT = "the kernel refused: sipnat needs CAP_NET_ADMIN (run it as root)"
_BATCH_SIZE = 4096


class InstallFailed(Exception):
    """The kernel side could not be set up; the message is one sentence."""


class CommitFailed(Exception):
    """The kernel refused the changes, and none of them stands."""


class Backend(Protocol):
    """What the daemon and the tests need of a kernel."""

    def install(self) -> None:
        """Sets up rules and capture, keeping mappings that stand; raises InstallFailed."""

    def is_installed(self, *, is_thorough: bool) -> bool:
        """Tells whether the table stands and, if asked to be thorough, the capture rule too."""

    def commit(self, changes: Sequence[Change]) -> None:
        """Makes the kernel follow the table, all changes or none; raises CommitFailed."""

    def masqueraded(self, internal: Endpoint) -> Endpoint | None:
        """Returns the external endpoint that an unmapped UDP socket has now, if it has just one."""

    def listing(self) -> list[Binding]:
        """Returns the bindings that stand in the kernel."""

    def release_capture(self) -> None:
        """Stops capturing signalling; mappings and media go on."""

    def uninstall(self) -> None:
        """Takes away all that `install` and `commit` brought."""


class KernelBackend:
    """The Linux kernel, in the network namespace of the thread that makes this object."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._netlink = Netlink()
        self._conntrack = Conntrack()
        self._lazy = LazyCutter(Conntrack())
        self._reserved: frozenset[int] = frozenset()
        self.is_native_queue = False
        """Whether capture uses nft's own `queue` statement; known after `install`."""

    def install(self) -> None:
        """Sets up rules and capture, keeping mappings that stand; raises InstallFailed.

        Leaves nothing behind where it fails, unless an earlier installation stood.
        """
        was_installed = False
        try:
            was_installed = self._netlink.has_table()
            self._install(was_installed)
        except (ProgramFailed, KernelRefused, OSError) as error:
            if not was_installed:
                self._remove_table()
            is_denied = getattr(error, "number", None) == errno.EPERM
            raise InstallFailed(_NEEDS_ROOT if is_denied else str(error)) from error

    def is_installed(self, *, is_thorough: bool) -> bool:
        """Tells whether the table stands and, if asked to be thorough, the capture rule too.

        The table costs one netlink question, iptables a process. A kernel that does not answer is
        taken for one that has everything.
        """
        try:
            if not self._netlink.has_table():
                return False
            if self.is_native_queue or not is_thorough:
                return True
            return capture.has_iptables_rule(self._settings)
        except (KernelRefused, ProgramFailed):
            return True

    def commit(self, changes: Sequence[Change]) -> None:
        """Makes the kernel follow the table, all changes or none; raises CommitFailed."""
        steps = elements.operations(changes)
        if not steps:
            return
        try:
            self._netlink.apply(steps)
        except KernelRefused as refusal:
            raise CommitFailed(str(refusal)) from refusal
        try:
            self.cut(change.binding for change in changes if isinstance(change, Opened))
        except KernelRefused as refusal:
            self._netlink.apply([step.undone() for step in reversed(steps)])
            raise CommitFailed(str(refusal)) from refusal
        closed = [change.binding for change in changes if isinstance(change, Closed)]
        if closed:
            self._lazy.cut([end for binding in closed for end in _own_ends(binding)])

    def cut(self, bindings: Iterable[Binding]) -> None:
        """Cuts flows of others that use an endpoint of these bindings; raises KernelRefused."""
        suspects = [suspect for binding in bindings for suspect in _suspects(binding)]
        if not suspects:
            return
        keys = [_stray(elements.pack_endpoint(end.endpoint)) for end, _ in suspects]
        is_stray = self._netlink.have(keys)
        ends = [
            end
            for suspect, is_used in zip(suspects, is_stray, strict=True)
            if is_used or suspect[0].transport is not Transport.UDP
            for end in suspect
        ]
        if ends:
            self._conntrack.cut(ends)

    def masqueraded(self, internal: Endpoint) -> Endpoint | None:
        """Returns the external endpoint that an unmapped UDP socket has now, if it has just one.

        That is what a STUN server has told the phone about itself (RFC 8489, RFC 8839). None also
        where the kernel does not answer.
        """
        end = End(Side.ORIGINAL_SOURCE, Transport.UDP, internal)
        try:
            if not self._netlink.have([_stray(elements.pack_endpoint(internal))])[0]:
                return None
            seen = {flow.reply_destination for flow in self._conntrack.find(end)}
        except KernelRefused:
            return None
        return elements.unpack_endpoint(seen.pop()) if len(seen) == 1 else None

    def listing(self) -> list[Binding]:
        """Returns the bindings that stand in the kernel; see `rules.elements.bindings`."""
        return elements.bindings(self._standing())

    def release_capture(self) -> None:
        """Stops capturing signalling; mappings and media go on."""
        try:
            if self.is_native_queue:
                chain = "chain inet sipnat capture"
                run_program("nft", "-f", "-", text=f"flush {chain}; delete {chain}")
            else:
                capture.remove_iptables_rules()
        except ProgramFailed as failure:
            _log.warning("the queue rule was not removed: %s", failure)

    def uninstall(self) -> None:
        """Takes away all that `install` and `commit` brought; flows of mappings are cut."""
        self._lazy.cut([end for binding in self.listing() for end in _own_ends(binding)])
        self.release_capture()
        self._remove_table()
        self._lazy.close()
        self._conntrack.close()
        self._netlink.close()

    def _install(self, was_installed: bool) -> None:
        settings = self._settings
        self.is_native_queue = capture.has_native_queue()
        standing = self.listing()
        text = render_ruleset(settings, self.is_native_queue)
        try:
            run_program("nft", "-f", "-", text=text)
        except ProgramFailed:
            if not was_installed:
                raise
            _log.info("the table of an earlier version is replaced")
            run_program("nft", "-f", "-", text=f"delete table inet sipnat\n{text}")
        self._settle(standing)
        self._reserve_ports()
        if not self.is_native_queue:
            capture.install_iptables_rule(settings)
        self._meet_older_flows()

    def _reserve_ports(self) -> None:
        try:
            reserved = reserved_ports.reserve(self._settings.pool)
        except OSError as error:  # /proc/sys is read-only in most containers
            _log.warning("the router's own sockets may take ports of the pool: %s", error)
        else:
            self._reserved = self._reserved or reserved

    def _settle(self, bindings: Iterable[Binding]) -> None:
        """Leaves exactly these bindings standing, and no halves."""
        wanted = {e for binding in bindings for e in elements.elements(binding)}
        standing = set(self._standing())
        self._apply(
            [Operation(False, element) for element in standing - wanted]
            + [Operation(True, element) for element in wanted - standing]
        )

    def _meet_older_flows(self) -> None:
        """Cuts unmapped SIP flows, so that they are captured, and notes the other UDP flows."""
        internal = {e.key[4:] for e in self._standing() if e.set_name == elements.OUTBOUND}
        older = [
            flow
            for flow in self._conntrack.flows()
            if flow.protocol == Transport.UDP.value
            and internal.isdisjoint((flow.original_source, flow.reply_source))
        ]
        own_address = elements.pack_endpoint(Endpoint(self._settings.external_address, 0))[:4]
        sip_ports = {port.to_bytes(2, "big") for port in self._settings.sip_ports}
        signalling = [
            flow
            for flow in older
            if flow.original_destination[4:6] in sip_ports
            and flow.original_source[:4] != own_address
        ]
        self._conntrack.delete(signalling)
        strays = {end for flow in older for end in _stray_ends(flow, own_address)}
        self._apply([Operation(True, _stray(end)) for end in strays])

    def _apply(self, steps: Sequence[Operation]) -> None:
        for start in range(0, len(steps), _BATCH_SIZE):
            self._netlink.apply(steps[start : start + _BATCH_SIZE])

    def _standing(self) -> Iterator[Element]:
        for set_name in elements.STANDING:
            yield from self._netlink.elements(set_name)

    def _remove_table(self) -> None:
        with contextlib.suppress(ProgramFailed):
            run_program("nft", "-f", "-", text="add table inet sipnat; delete table inet sipnat")
        if self._reserved:
            reserved_ports.release(self._reserved)


class MemoryBackend:
    """A kernel in memory, with the same elements and the same refusals; for tests."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._elements: dict[tuple[str, bytes], bytes] = {}
        self.is_capturing = False
        self.is_refusing = False
        """Set it to have every commit refused."""

    def install(self) -> None:
        """Starts capturing."""
        self.is_capturing = True

    def is_installed(self, *, is_thorough: bool) -> bool:
        """Tells whether `install` was called and nothing has been released since."""
        return self.is_capturing

    def commit(self, changes: Sequence[Change]) -> None:
        """Follows the table, all changes or none; raises CommitFailed."""
        if self.is_refusing:
            raise CommitFailed("refused")
        after = dict(self._elements)
        for is_added, (set_name, key, data) in elements.operations(changes):
            if not is_added:
                after.pop((set_name, key), None)
            elif after.setdefault((set_name, key), data) != data:
                raise CommitFailed(f"{Element(set_name, key)}: EEXIST")
        self._elements = after

    def masqueraded(self, internal: Endpoint) -> Endpoint | None:
        """Returns None: there are no flows in memory."""
        return None

    def listing(self) -> list[Binding]:
        """Returns the bindings that stand."""
        return elements.bindings(Element(*key, data) for key, data in self._elements.items())

    def release_capture(self) -> None:
        """Stops capturing."""
        self.is_capturing = False

    def uninstall(self) -> None:
        """Forgets everything."""
        self.is_capturing = False
        self._elements.clear()


def _suspects(binding: Binding) -> Iterator[tuple[End, End]]:
    """Yields, for each endpoint, the sides on which a stranger's flow would hold it."""
    transport, internal, external = binding.transport, binding.internal, binding.external
    yield (
        End(Side.ORIGINAL_SOURCE, transport, internal),
        End(Side.REPLY_SOURCE, transport, internal),
    )
    yield (
        End(Side.ORIGINAL_DESTINATION, transport, external),
        End(Side.REPLY_DESTINATION, transport, external),
    )


def _own_ends(binding: Binding) -> Iterator[End]:
    """Yields where a flow of the binding itself holds its external endpoint."""
    yield End(Side.ORIGINAL_DESTINATION, binding.transport, binding.external)
    yield End(Side.REPLY_DESTINATION, binding.transport, binding.external)


def _stray(endpoint: bytes) -> Element:
    return Element(elements.STRAYS, endpoint)


def _stray_ends(flow: Flow, own_address: bytes) -> Iterator[bytes]:
    yield flow.original_source
    if flow.reply_destination != flow.original_source:
        yield flow.reply_destination
    if flow.original_destination[:4] == own_address:
        yield flow.original_destination
    if flow.reply_source != flow.original_destination:
        yield flow.reply_source
