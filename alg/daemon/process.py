"""What is started in which order, and stopped in the other.

Start: the store and the control socket (they show whether another sipnat runs), the queue and the
relay, then the rules; the capture rules come last, so that no packet is queued before somebody
listens.
Stop: the capture rules go first, packets already queued are answered and TCP connections ended, so
that phones connect anew at once, then everything else is let go. Mappings and the rules that serve
them stay in the kernel: calls go on while the daemon is down, and the next one takes them over.
Whatever was made before a failed start is undone.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import gc
import logging
import os
import random
import signal
import sys
from collections.abc import Callable, Iterable

from alg.config import Config
from alg.daemon import restart
from alg.daemon.addresses import Addresses
from alg.daemon.claim import claimed
from alg.daemon.connections import Connections
from alg.daemon.garbage import keep_out_of_sight
from alg.daemon.ledger import MAPPING, Key, Ledger
from alg.daemon.observation import Observation
from alg.daemon.overload import Overload
from alg.daemon.packet_path import PacketPath, Sides
from alg.daemon.reloading import Reloading
from alg.daemon.requests import EPOCH, MappingRequests, lease_limits
from alg.daemon.settings import (
    LOOPBACK,
    LOOPBACK6,
    StartError,
    gateway_settings,
    kernel_settings,
    table_behavior,
    table_translation,
)
from alg.daemon.steering import Steering
from alg.daemon.supervision import beat, report
from alg.daemon.upkeep import Upkeep
from alg.daemon.views import View, Views
from alg.gateway import Gateway
from alg.io import systemd
from alg.io.clock import now
from alg.io.control import ControlError, ControlServer
from alg.io.logs import set_up_logging
from alg.io.queue import PacketQueue, QueueBusy
from alg.io.relay import Relay, RelayBusy
from alg.io.store import Store, StoreInUse, boot_id
from alg.port_manager.leases import Leases
from alg.port_manager.refusal import GatewayFailed
from alg.upstream.grants import Grants
from alg.upstream.upstream import Upstream
from nat_table.behavior import Mode6
from nat_table.binding import Binding, Kind
from nat_table.endpoint import Endpoint, of_one_family
from nat_table.table import NatTable
from rules.aliases import AliasedBackend, Aliases
from rules.backend import Backend, CommitFailed, InstallFailed, KernelBackend
from rules.interfaces import default_gateway, is_forwarding, is_forwarding6
from rules.netlink import KernelRefused
from rules.privilege import has_net_admin
from rules.settings import Settings
from rules.watch import Watch

log = logging.getLogger("sipnat")

ROW_VERSION = 2
"""Raised when the meaning of a stored row changes; rows of another version are not read."""

SWITCH_INTERVAL = 0.0005
"""Seconds that another thread may compute while packets wait: ten times as long is Python's own."""


def run_daemon(config: Config, reread: Callable[[], Config]) -> int:
    """Runs the gateway until SIGTERM or SIGINT; returns 0. Raises StartError.

    `reread` reads the configuration again, or raises ConfigError.
    """
    faulthandler.enable()  # where it hung, when a watchdog ends it
    set_up_logging(config.log_level, config.log_format)
    if os.geteuid() != 0 and not has_net_admin():
        raise StartError("root is needed to take packets from the kernel: run it with sudo")
    settings = kernel_settings(config)
    sys.setswitchinterval(SWITCH_INTERVAL)
    return asyncio.run(_serve(config, reread, settings, KernelBackend(settings)))


async def _serve(
    config: Config, reread: Callable[[], Config], settings: Settings, kernel: KernelBackend
) -> int:
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    loop.add_signal_handler(signal.SIGHUP, lambda: None)  # nothing to reload yet
    async with contextlib.AsyncExitStack() as stack:
        # What is taken over stays: having it looked through again and again would take seconds.
        gc.disable()
        listing = loop.run_in_executor(None, _standing, kernel)
        aliases = Aliases()
        backend = AliasedBackend(kernel, aliases)
        upstream = Upstream(config, settings.external_addresses[0], default_gateway)
        stack.callback(upstream.close)
        store = Store(config.store_path, boot_id(), ROW_VERSION) if config.store else None
        rows = {}
        if store is not None:
            rows = _load(store)
            stack.callback(store.close)
        stored = restart.stored_mappings(rows)
        former = restart.addresses(stored, settings.external_addresses)
        if len(former) == 1 and former != settings.external_addresses:
            upstream.remember(*former)
        await upstream.look()
        found = upstream.found
        is_aliased = found.public != found.wire
        current = (found.public,) if is_aliased else settings.external_addresses
        current += settings.external_addresses6
        addresses = restart.addresses(stored, current)
        behavior = table_behavior(config, settings)
        translation = table_translation(settings)
        table = NatTable(addresses, behavior, random.SystemRandom(), translation)
        sides = Sides(config.internal, config.external)
        known = gateway_settings(config, addresses)
        gateway = Gateway(known, table, backend.masqueraded)
        grants = Grants()
        ledger = Ledger(table, backend, grants, has_store=store is not None)
        connections = Connections(gateway, ledger, known, aliases)

        def settle_lease() -> None:
            try:
                gateway.forget_closed(ledger.settle())
            except CommitFailed as error:
                raise GatewayFailed(f"the kernel refused the mapping: {error}") from error

        leases = Leases(table, lease_limits(config, known.own_addresses), settle_lease)
        requests = MappingRequests(
            config,
            leases,
            gateway,
            backend.masqueraded,
            has_ipv6=settings.mode6 is not Mode6.OFF,
        )
        most = config.max_connections
        views = Views(gateway, connections, backend, ledger, upstream, grants, most)
        observation = Observation(config, gateway, ledger, backend, connections)
        steering = Steering(gateway, ledger, connections, config.external, config.internal)
        views.add("calls", View(observation.media.rows, ("internal", "call_id")))
        handlers = {"show": views.show, "map": requests.map, **observation.handlers}
        handlers |= steering.handlers
        control = ControlServer(config.control_path, handlers)
        try:
            await control.start()
        except ControlError as error:
            raise StartError(str(error)) from error
        stack.push_async_callback(control.stop)
        stack.enter_context(claimed(settings.table))
        path = PacketPath(gateway, ledger, sides.__getitem__, settings.queue_mark)
        try:
            queue = PacketQueue(
                config.queue_number, path.handle, settings.is_fail_open, settings.open_mark
            )
        except QueueBusy as error:
            raise StartError(
                f"queue {config.queue_number} cannot be bound: another program, perhaps another "
                f"sipnat, has it; set `queue` to another number ({error})"
            ) from error
        stack.callback(queue.close)
        relay = _relay(config, settings, connections)
        steering.relay = relay
        steering.has_forgotten = requests.announce
        if relay is not None:
            stack.push_async_callback(relay.close)
            stack.callback(connections.stop)
        watch = Watch()
        stack.callback(watch.close)
        try:
            standing = await listing
            _point(aliases, addresses, standing, found.wire)
            backend.install()
        except (InstallFailed, KernelRefused) as error:
            raise StartError(str(error)) from error
        stack.callback(_release, backend, queue)
        moment = now()
        waiting_time = config.registration_timeout
        if standing is not None:
            standing = list(map(aliases.published, standing))
        difference = restart.take_over(table, stored, standing, waiting_time, moment)
        ledger.touch((*difference.closed, *difference.unknown))
        if store is not None:
            others = {key: row for key, row in rows.items() if key[0] not in (MAPPING, EPOCH)}
            gateway.restore(others, moment)
            if all(binding.kind is not Kind.ANY for binding in difference.unknown):
                requests.restore(rows)
        following = Addresses(
            config,
            settings,
            gateway,
            backend,
            ledger,
            sides,
            relay,
            requests,
            upstream,
            aliases,
        )
        upkeep = Upkeep(
            config,
            settings,
            gateway,
            backend,
            ledger,
            sides,
            store,
            watch,
            difference.unknown,
            relay,
            following,
            requests,
        )
        upkeep.start(is_kernel_empty=standing is None)
        stack.callback(upkeep.stop)

        overload = Overload(gateway, settings.is_fail_open)

        def serve_packets() -> None:
            overload.heed(queue.serve(), now())
            upkeep.save_soon()

        for descriptor, serve in ((queue.fileno(), serve_packets), (watch.fileno(), upkeep.heed)):
            loop.add_reader(descriptor, serve)
            stack.callback(loop.remove_reader, descriptor)
        if relay is not None:
            relay.serve()
            stack.callback(loop.create_task(connections.renew()).cancel)
        await requests.start()
        stack.push_async_callback(requests.close)
        await observation.start(handlers)
        stack.push_async_callback(observation.close)

        def follow(changed: Config) -> None:
            """Has what is not started and stopped by itself go by another configuration."""
            set_up_logging(changed.log_level, changed.log_format)
            known = gateway_settings(changed, gateway.external_addresses)
            gateway.configure(known)
            table.configure(table_behavior(changed, settings))
            leases.limits = lease_limits(changed, known.own_addresses)
            connections.configure(known)
            if relay is not None:
                relay.max_message = changed.max_message_size

        reloading = Reloading(
            config,
            reread,
            (
                following.configure,
                follow,
                upkeep.configure,
                requests.configure,
                observation.configure,
            ),
        )
        handlers |= reloading.handlers
        loop.add_signal_handler(signal.SIGHUP, reloading.hear)
        grants.refused = following.give_up
        grants.settled = queue.resume_soon
        upstream.has_lost = grants.ask_again
        grants.use(upstream.mapper, table.bindings())
        stack.callback(loop.create_task(upstream.watch(following.heed_upstream)).cancel)
        stack.callback(loop.create_task(keep_out_of_sight()).cancel)
        log.info(
            "%s <-> %s (%s), IPv6 %s, SIP ports %s, other ports from %d-%d, packets from %s",
            " ".join(config.internal),
            config.external,
            " ".join(current),
            settings.mode6.value,
            " ".join(map(str, config.sip_ports)),
            *config.pool,
            "nft queue" if kernel.is_native_queue else "iptables NFQUEUE (nft has no queue here)",
        )
        if not is_forwarding():
            log.warning("this machine does not forward packets: sysctl net.ipv4.ip_forward=1")
        if settings.mode6 is not Mode6.OFF and not is_forwarding6():
            log.warning("this machine does not forward IPv6: sysctl net.ipv6.conf.all.forwarding=1")
        print("ready", flush=True)
        systemd.notify("READY=1")
        for telling in (beat(config.queue_number), report(lambda: steering.status({}))):
            stack.callback(loop.create_task(telling).cancel)
        await upkeep.run(stopped)
        systemd.notify("STOPPING=1")
        log.info("stopping; %d mappings stay in the kernel", len(table))
    return 0


def _standing(kernel: KernelBackend) -> list[Binding] | None:
    """Returns the mappings in the kernel, None where our rules are gone."""
    return kernel.listing() if kernel.is_installed(is_thorough=False) else None


def _point(
    aliases: Aliases, addresses: tuple[str, ...], standing: Iterable[Binding] | None, wire: str
) -> None:
    """Has the address that the table begins with mean what it stands on in the kernel."""
    first, *others = of_one_family(addresses, of_ipv6=False)
    stood_on = {each.external.address for each in standing or ()}
    wires = of_one_family(stood_on, of_ipv6=False) or (wire,)
    if not others and first not in wires:
        aliases.point(first, wires[0])


def _load(store: Store) -> dict[Key, bytes]:
    try:
        return store.load()
    except StoreInUse as error:
        raise StartError(str(error)) from error


def _relay(config: Config, settings: Settings, connections: Connections) -> Relay | None:
    """Returns the relay for SIP over TCP, if it is wanted."""
    if not settings.relay_port:
        return None
    addresses = (LOOPBACK, LOOPBACK6) if settings.is_relaying6 else (LOOPBACK,)
    where = [Endpoint(address, settings.relay_port) for address in addresses]
    try:
        return Relay(connections, where, config.max_connections, config.max_message_size)
    except RelayBusy as error:
        raise StartError(str(error)) from error


def _release(backend: Backend, queue: PacketQueue) -> None:
    """Takes the capture rules out and answers what was queued before."""
    backend.release_capture()
    queue.serve()
