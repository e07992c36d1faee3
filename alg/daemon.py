"""The composition root: what is started in which order, and stopped in the other.

Start: control socket (it shows whether another sipnat runs), the queue, then the rules; the capture
rules come last, so that no packet is queued before somebody listens. Stop: the capture rules go
first, packets already queued are answered, then everything else is let go. Mappings and the rules
that serve them stay in the kernel: calls go on while the daemon is down, and the next one takes
them over. Whatever was made before a failed start is undone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import signal
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv4Network

from alg.config import Config
from alg.dialogs.dialog import CallTimeouts
from alg.gateway import DEFAULT_TIMEOUTS, Datagram, Gateway, GatewaySettings, Side
from alg.io.clock import now
from alg.io.control import ControlError, ControlServer, RequestRefused
from alg.io.queue import PacketQueue, QueueBusy
from alg.mappings import FLOW
from alg.packet import NotUdp, Truncated, decode_packet, encode_packet
from alg.verdict import Reason, Verdict
from nat_table.behavior import Behavior
from nat_table.binding import Kind, Pinhole
from nat_table.changes import Change, Closed, Opened
from nat_table.snapshot import mapping_row
from nat_table.table import NatTable
from rules.backend import Backend, CommitFailed, InstallFailed, KernelBackend
from rules.capture import has_native_queue
from rules.interfaces import (
    InterfaceMissing,
    NoAddress,
    external_address,
    interface_exists,
    is_forwarding,
    local_udp_ports,
)
from rules.ruleset import render_ruleset
from rules.settings import Settings

log = logging.getLogger("sipnat")

TICK = 0.5
THOROUGH = 10


class StartError(Exception):
    """The daemon cannot run; the text is one sentence for the user."""


def run_daemon(config: Config) -> int:
    """Runs the gateway until SIGTERM or SIGINT; returns 0. Raises StartError."""
    logging.basicConfig(
        level=config.log_level.upper(), stream=sys.stderr, format="sipnat: %(message)s"
    )
    if os.geteuid() != 0 and not _has_net_admin():
        raise StartError("root is needed to take packets from the kernel: run it with sudo")
    settings = kernel_settings(config)
    return asyncio.run(_serve(config, settings, KernelBackend(settings)))


def kernel_settings(config: Config) -> Settings:
    """Returns what the kernel side must know; raises StartError where an interface is missing."""
    for name in config.internal:
        if not interface_exists(name):
            raise StartError(f"there is no interface {name}")
    try:
        address = external_address(config.external)
    except (InterfaceMissing, NoAddress) as error:
        raise StartError(str(error)) from error
    return Settings(
        internal_interfaces=config.internal,
        external_interface=config.external,
        external_address=address,
        sip_ports=config.sip_ports,
        pool=config.pool,
        queue_number=config.queue,
        is_fail_open=config.on_failure == "pass",
    )


def ruleset_text(config: Config) -> str:
    """Returns the nft text that `run` would install; raises StartError."""
    return render_ruleset(kernel_settings(config), has_native_queue())


class Daemon:
    """One running gateway: the engine, and the kernel on both sides of it."""

    def __init__(self, config: Config, settings: Settings, backend: Backend) -> None:
        self._config = config
        self._settings = settings
        self._backend = backend
        self._random = random.SystemRandom()
        behavior = Behavior(
            pool=config.pool,
            fence=settings.fence,
            denied_ports=frozenset(config.deny_ports) | local_udp_ports(),
            max_mappings=config.max_mappings,
            max_mappings_per_host=config.max_mappings_per_host,
            flow_timeout=config.flow_timeout,
        )
        self.table = NatTable([settings.external_address], behavior, self._random)
        self.gateway = Gateway(
            GatewaySettings(
                external_addresses=(settings.external_address,),
                media_hosts=frozenset(config.media_hosts),
                hands_off=tuple(IPv4Network(each, strict=False) for each in config.hands_off),
                flow_timeout=config.flow_timeout,
                call_timeouts=CallTimeouts(ringing=config.ringing_timeout),
                max_message=config.max_message_size,
                max_per_host=config.max_mappings_per_host,
            ),
            self.table,
            backend.masqueraded,
        )
        self._sides: dict[int, Side] = {}
        self._ticks = 0

    def handle(self, raw: bytes, incoming: int, outgoing: int) -> bytes | None:
        """Decides about one packet: the bytes to send on, or None to drop it."""
        try:
            packet = decode_packet(raw)
        except NotUdp:
            self.gateway.count(Reason.NOT_UDP)
            return raw
        except Truncated:
            self.gateway.count(Reason.TRUNCATED)
            return raw
        outcome = self.gateway.receive(
            Datagram(
                packet.source,
                packet.destination,
                packet.payload,
                self._side(incoming),
                self._side(outgoing),
            ),
            now(),
        )
        if outcome.changes:
            try:
                self._backend.commit(outcome.changes)
            except CommitFailed as error:
                log.warning("the kernel refused a mapping, the packet is dropped: %s", error)
                outcome = self.gateway.roll_back(outcome)
            else:
                self.gateway.confirm(outcome)
                _log_changes(outcome.changes)
        log.debug("%s -> %s %s", packet.source, packet.destination, outcome.reason.value)
        if outcome.verdict is Verdict.DROPPED:
            return None
        if outcome.verdict is Verdict.UNCHANGED:
            return raw
        try:
            return encode_packet(packet, outcome.payload, self._random.getrandbits(16))
        except ValueError:
            self.gateway.count(Reason.TOO_LARGE)
            return raw

    def tick(self) -> None:
        """Lets go of what has expired, and looks anew which interface is which."""
        self._sides.clear()
        due = self.gateway.next_timer()
        if due is None or due > now():
            return
        changes = self.gateway.handle_timer(now())
        if not changes:
            return
        try:
            self._backend.commit(changes)
        except CommitFailed as error:
            log.warning("the kernel kept mappings that have expired: %s", error)
        _log_changes(changes)

    def restore(self) -> None:
        """Puts rules and mappings back where somebody has flushed the ruleset.

        Flows that stand in conntrack have gone on meanwhile; new ones and signalling have not.
        """
        self._ticks += 1
        if self._backend.is_installed(is_thorough=self._ticks % THOROUGH == 0):
            return
        log.warning("somebody has removed sipnat's rules; they are installed again")
        try:
            self._backend.install()
            opened = [
                Opened(binding, self.table.pinholes(binding)[0])
                for binding in self.table.bindings()
            ]
            self._backend.commit(opened)
        except (InstallFailed, CommitFailed) as error:
            log.error("they cannot be installed: %s", error)

    def take_over(self) -> None:
        """Takes in the mappings that an earlier daemon left in the kernel.

        Who owned them is not known any more, so signalling lives as long as a registration, and
        media as long as a call may: audio must not end because the daemon began anew. The phones'
        next messages give them owners.
        """
        moment = now()
        for binding in self._backend.listing():
            is_sip = binding.kind is Kind.SIP
            timeout = self._config.registration_timeout if is_sip else DEFAULT_TIMEOUTS.call
            try:
                self.table.adopt(binding, Pinhole(FLOW, moment + timeout), moment)
            except ValueError as error:
                log.warning("a mapping of an earlier run is dropped: %s", error)
                self._backend.commit([Closed(binding, ())])
        if len(self.table):
            log.info("%d mappings of an earlier run are taken over", len(self.table))

    def mapping_rows(self, request: Mapping[str, object]) -> Iterator[Mapping[str, object]]:
        """Yields the rows of `show mappings`."""
        if request.get("what") != "mappings":
            raise RequestRefused("there is only 'mappings' to show")
        return (
            mapping_row(binding, pinholes, now())
            for binding in self.table.bindings()
            if (pinholes := self.table.pinholes(binding))
        )

    def _side(self, index: int) -> Side:
        side = self._sides.get(index)
        if side is None:
            side = self._sides[index] = self._look_up_side(index)
        return side

    def _look_up_side(self, index: int) -> Side:
        try:
            name = socket.if_indextoname(index)
        except OSError:
            return Side.OTHER
        if name == self._config.external:
            return Side.EXTERNAL
        return Side.INTERNAL if name in self._config.internal else Side.OTHER


async def _serve(config: Config, settings: Settings, backend: KernelBackend) -> int:
    daemon = Daemon(config, settings, backend)
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    async with contextlib.AsyncExitStack() as stack:
        control = ControlServer(config.control, {"show": daemon.mapping_rows})
        try:
            await control.start()
        except ControlError as error:
            raise StartError(str(error)) from error
        stack.push_async_callback(control.stop)
        try:
            queue = PacketQueue(config.queue, daemon.handle, settings.is_fail_open)
        except QueueBusy as error:
            raise StartError(
                f"queue {config.queue} cannot be bound: another program, perhaps another sipnat, "
                f"has it; set `queue` to another number ({error})"
            ) from error
        stack.callback(queue.close)
        try:
            backend.install()
        except InstallFailed as error:
            raise StartError(str(error)) from error
        stack.callback(_release, backend, queue)
        daemon.take_over()
        loop.add_reader(queue.fileno(), queue.serve)
        stack.callback(loop.remove_reader, queue.fileno())
        log.info(
            "%s <-> %s (%s), SIP ports %s, other ports from %d-%d, packets from %s",
            " ".join(config.internal),
            config.external,
            settings.external_address,
            " ".join(map(str, config.sip_ports)),
            *config.pool,
            "nft queue" if backend.is_native_queue else "iptables NFQUEUE (nft has no queue here)",
        )
        if not is_forwarding():
            log.warning("this machine does not forward packets: sysctl net.ipv4.ip_forward=1")
        print("ready", flush=True)
        _notify("READY=1")
        while not stopped.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopped.wait(), TICK)
            try:
                daemon.tick()
                daemon.restore()
            except Exception:
                log.exception("the kernel may not follow the table because of an error")
        _notify("STOPPING=1")
        log.info("stopping; %d mappings stay in the kernel", len(daemon.table))
    return 0


def _release(backend: Backend, queue: PacketQueue) -> None:
    """Takes the capture rules out and answers what was queued before."""
    backend.release_capture()
    queue.serve()


def _log_changes(changes: Sequence[Change]) -> None:
    for change in changes:
        if isinstance(change, Opened | Closed):
            what = "opened" if isinstance(change, Opened) else "closed"
            binding = change.binding
            log.info(
                "%s %s %s <-> %s",
                what,
                binding.kind.value,
                binding.internal,
                binding.external,
            )


def _notify(state: str) -> None:
    """Tells systemd, where it asked to be told (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.connect(address)
        sender.send(state.encode())


def _has_net_admin() -> bool:
    """Whether CAP_NET_ADMIN (bit 12) is effective."""
    with open("/proc/self/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("CapEff:"):
                return bool(int(line.split()[1], 16) & 1 << 12)
    return False
