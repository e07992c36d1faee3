"""What has to be done beside packets: on time, and when the kernel tells of something.

    expire      what has ended by itself goes, from the kernel too
    save        what has changed goes to the store
    review      calls that say nothing are kept while their media flows
    restore     rules and mappings go back where somebody has flushed them
    follow      mappings move along when the external address changes

The packet path waits for none of it longer than for one commit.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from alg.config import Config
from alg.daemon.addresses import Addresses
from alg.daemon.diversion import Diversion
from alg.daemon.ledger import Key, Ledger
from alg.daemon.packet_path import Sides
from alg.daemon.requests import MappingRequests
from alg.daemon.restart import ORPHAN, ORPHAN_TIMEOUT
from alg.daemon.settings import changed_settings
from alg.gateway import Gateway
from alg.io.clock import now
from alg.io.relay import Relay
from alg.io.store import Store
from nat_table.behavior import Mode6
from nat_table.binding import Binding, Kind
from nat_table.table import NatTable
from rules.accept import Acceptance
from rules.backend import Backend, InstallFailed, Refusal
from rules.mode6 import detect_mode6
from rules.netlink import KernelRefused
from rules.settings import Settings
from rules.watch import (
    AddressesChanged,
    DefaultRouteChanged,
    ForwardingChanged,
    LinkChanged,
    Overrun,
    Watch,
)

log = logging.getLogger("sipnat")

TICK = 0.5
SAVE_DELAY = 0.05
MAX_SAVE_DELAY = 1.0
SAVE_REST = 20.0
"""How many times as long as a save the pause after it is: what ends meanwhile costs nothing."""

SAVE_SLICE = 100
SLICE_DELAY = 0.001
CHECK_INTERVAL = 5.0
REVIEW_INTERVAL = 20.0
MAX_REFUSALS_LOGGED = 10
REFUSED_SIGNALLING = (
    "%s was kept from %s %s: no phone has dealt with it; if it may call, add it to `servers`"
)
REFUSED_MEDIA = "%s was kept from the media at %s %s, as `media_filter` says"
REFUSED_REQUESTED = "%s was kept from %s %s: who asked for that mapping has not let it in"
KEPT_AWAY = (
    "new TCP connections do not reach the relay, because another firewall drops what is for this "
    "router itself: have it let in what has the mark %#x/%#x, or set `install_accept` or `tcp`"
)


class Upkeep:
    """Keeps the kernel, the store and the engine in step."""

    def __init__(
        self,
        config: Config,
        settings: Settings,
        gateway: Gateway,
        backend: Backend,
        ledger: Ledger,
        sides: Sides,
        store: Store | None,
        watch: Watch,
        orphans: Sequence[Binding],
        relay: Relay | None,
        addresses: Addresses,
        requests: MappingRequests,
    ) -> None:
        self._config = config
        self._settings = settings
        self._gateway = gateway
        self._backend = backend
        self._ledger = ledger
        self._sides = sides
        self._store = store
        self._watch = watch
        self._orphans = [each for each in orphans if each.kind is not Kind.SIP]
        self._relay = relay
        self._addresses = addresses
        self._requests = requests
        self._acceptance = Acceptance(settings)
        self._accepting = asyncio.Lock()  # held while a thread uses it
        self._diversion = Diversion()
        self._is_mode6_watched = config.mode6 == "auto" and settings.mode6 is not Mode6.PINHOLE
        self._saving: asyncio.TimerHandle | None = None
        self._next_save = 0.0
        self._save_took = 0.0
        self._rows: Iterator[tuple[Key, bytes | None]] | None = None  # those that are being taken
        self._whole: dict[Key, bytes] | None = None
        self._next_check = now()
        self._next_review = now()

    @property
    def _table(self) -> NatTable:
        return self._gateway.table

    def start(self, *, is_kernel_empty: bool) -> None:
        """Makes kernel and table equal after a restart, before the first packet.

        Where the kernel has kept the mappings, what one may lack is put back in the background.
        """
        self._addresses.follow()
        self._ledger.is_behind = True
        if self._config.install_accept == "auto":
            _tell_accepting(self._acceptance.install())
        else:
            self._acceptance.remove()  # those of an earlier run
        if is_kernel_empty:
            for _ in self._ledger.reconcile():
                pass

    async def configure(self, config: Config) -> None:
        """Goes by another configuration, and puts right what the kernel has of the former one."""
        self._config = config
        async with self._accepting:
            self._acceptance = Acceptance(changed_settings(self._settings, config))
            if config.install_accept != "auto":
                self._acceptance.remove()
        await self.accept()
        if self._ledger.is_behind:
            await self.reconcile()

    def stop(self) -> None:
        """Saves what is left to be saved, and takes our rules out of other programs' chains.

        Not while there are calls: a firewall without them may cut audio that flows.
        """
        if self._store is not None:
            for _ in range(2):  # what is being taken, and what has changed since that began
                while not self._save_slice(self._store):
                    pass
        if self._config.install_accept == "auto":
            if any(binding.kind is not Kind.SIP for binding in self._table.bindings()):
                log.info("calls are up, so the rules in other firewalls stay for them")
            else:
                self._acceptance.remove()

    async def run(self, stopped: asyncio.Event) -> None:
        """Does what is due, twice a second, until it is told to stop."""
        while not stopped.is_set():
            try:
                await self.expire()
                self.save_soon()
                is_thorough = now() >= self._next_check
                if not self._backend.is_installed(is_thorough=is_thorough):
                    log.warning("somebody has removed sipnat's rules; they are installed again")
                    await self.restore()
                elif self._ledger.is_behind and is_thorough:
                    await self.reconcile()
                if is_thorough:
                    self._next_check = now() + CHECK_INTERVAL
                    await self.check()
                if now() >= self._next_review:
                    self._next_review = now() + REVIEW_INTERVAL
                    await self.review()
            except Exception:
                log.exception("the kernel may not follow the table because of an error")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopped.wait(), TICK)

    def heed(self) -> None:
        """Takes what the kernel tells of: a link, an address or the default route has changed.

        Conntrack would hold flows to this uplink's address that leave by another one now.
        """
        events = self._watch.events()
        self._sides.forget()
        lost = LinkChanged(self._config.external, is_up=False)
        ours = (self._config.external, *self._config.internal)
        for event in events:
            if isinstance(event, LinkChanged) and event.interface in ours:
                log.warning("%s is %s", event.interface, "up" if event.is_up else "down or gone")
        here = (lost, replace(lost, is_up=True), AddressesChanged(lost.interface), Overrun())
        try:
            if any(event in (lost, DefaultRouteChanged()) for event in events):
                self._backend.cut_flows()
            if any(event in here for event in events):
                self._addresses.follow()
            if any(isinstance(event, LinkChanged | Overrun) for event in events):
                self._requests.rebind()
            if any(
                isinstance(event, AddressesChanged | ForwardingChanged | Overrun)
                for event in events
            ):
                self._look_at_mode6()
        except Exception:
            log.exception("mappings may not follow the external address because of an error")

    def _look_at_mode6(self) -> None:
        """Says once that IPv6, or a global address inside, has come: the mode does not follow."""
        if not self._is_mode6_watched:
            return
        config, settings = self._config, self._settings
        mode = detect_mode6(config.internal, config.external, settings.prefixes6)
        if mode in (Mode6.OFF, settings.mode6):
            return
        self._is_mode6_watched = False
        if settings.mode6 is Mode6.OFF:
            log.warning("IPv6 has come up; its calls are looked after once sipnat is restarted")
        else:
            log.warning(
                "hosts inside have global IPv6 addresses by now; sipnat goes on with mode6 %s, "
                "and takes them as they are once it is restarted",
                settings.mode6.value,
            )

    async def expire(self) -> None:
        """Lets go of what has expired, some at a time."""
        moment = now()
        while (due := self._gateway.next_timer()) is not None and due <= moment:
            self._ledger.push(self._gateway.handle_timer(moment), "expired")
            await asyncio.sleep(0)

    def save_soon(self) -> None:
        """Has the store written in a moment, with whatever changes until then.

        Saving takes a twentieth of the time, so under load the moment is longer.
        """
        if self._saving is None and self._store is not None:
            delay = max(SAVE_DELAY, self._next_save - now())
            self._saving = asyncio.get_running_loop().call_later(delay, self.save)

    def save(self) -> None:
        """Gives the store what has changed: at once, or a slice, and the others soon."""
        self._saving = None
        if self._store is None:
            return
        began = now()
        is_last = self._save_slice(self._store)
        ended = now()
        self._save_took += ended - began
        if is_last:
            self._next_save = ended + min(MAX_SAVE_DELAY, SAVE_REST * self._save_took)
            self._save_took = 0.0
        else:
            self._saving = asyncio.get_running_loop().call_later(SLICE_DELAY, self.save)

    def _save_slice(self, store: Store) -> bool:
        """Takes some rows and gives them to the store; returns whether these were the last.

        Where it needs all rows it is given them together, so that it always has those of one time.
        """
        if self._rows is None:
            self._whole = {} if store.is_incomplete else None
            self._rows = self._changed_rows(has_all=store.is_incomplete)
        taken = list(itertools.islice(self._rows, SAVE_SLICE))
        rows, is_last = dict(taken), len(taken) < SAVE_SLICE
        if is_last:
            self._rows = None
        if self._whole is not None:
            self._whole.update((key, row) for key, row in rows.items() if row is not None)
            if is_last:
                store.save_all(self._whole)
        elif rows:
            store.save(rows)
        return is_last

    def _changed_rows(self, *, has_all: bool) -> Iterator[tuple[Key, bytes | None]]:
        yield from self._ledger.take_rows(has_all=has_all)
        yield from self._gateway.take_touched(has_all=has_all)
        yield from self._requests.take_rows(has_all=has_all).items()

    async def check(self) -> None:
        """Looks after our rules in other programs' chains, and says what packets have met."""
        await self.accept()
        if self._relay is not None and self._diversion.is_kept_away(self._backend.counters()):
            mark = self._settings.relay_mark
            log.warning(KEPT_AWAY, mark, mark)
            if self._config.on_failure == "pass":
                self._backend.stop_diverting()
                log.warning("SIP over TCP passes as it is until the next start")
        refused = [advice for each in self._backend.refused() if (advice := self._advice(each))]
        for line, *names in refused[:MAX_REFUSALS_LOGGED]:
            log.info(line, *names)
        if len(refused) > MAX_REFUSALS_LOGGED:
            log.info("%d others were kept out too", len(refused) - MAX_REFUSALS_LOGGED)

    async def accept(self) -> None:
        """Has other firewalls on this router let calls through, if they do not already.

        That is a program for each, which packets do not wait for.
        """
        async with self._accepting:
            if self._config.install_accept == "auto":
                _tell_accepting(await asyncio.to_thread(self._acceptance.install))

    def _advice(self, refusal: Refusal) -> tuple[str, ...]:
        """Returns what to say of it: nothing about late packets of a call that is over."""
        source, transport, end = refusal
        table = self._table
        binding = table.look_up_internal(transport, end) or table.look_up_external(transport, end)
        if binding is None:
            return ()
        lines = {Kind.SIP: REFUSED_SIGNALLING, Kind.ANY: REFUSED_REQUESTED}
        line = lines.get(binding.kind, REFUSED_MEDIA)
        return line, source, transport.label, str(binding.internal)

    async def review(self) -> None:
        """Keeps calls that say nothing, and media without a call, while packets flow."""
        due = self._gateway.calls_to_review(now())
        if not due and not self._orphans:
            return
        try:
            flowing = await asyncio.to_thread(self._backend.flowing)
        except KernelRefused as refusal:
            log.warning("whether media flows is not known, so all calls are kept: %s", refusal)
            flowing = None
        moment = now()
        self._ledger.push(self._gateway.keep_calls(flowing, moment), "prolonged")
        self._orphans = [each for each in self._orphans if self._table.pinholes(each)]
        for binding in self._orphans:
            if flowing is None or binding.internal in flowing:
                self._table.refresh(binding, ORPHAN, moment + ORPHAN_TIMEOUT)
        self._ledger.note(self._table.take_changes())

    async def restore(self) -> None:
        """Puts rules and mappings back where somebody has flushed the ruleset.

        Flows that stand in conntrack have gone on meanwhile; new ones and signalling have not.
        """
        try:
            self._backend.install()
        except InstallFailed as error:
            self._ledger.fall_behind("the rules", error)
        else:
            await self.reconcile()

    async def reconcile(self) -> None:
        """Makes the kernel equal to the table, with time for packets in between."""
        for _ in self._ledger.reconcile():
            await asyncio.sleep(0)


def _tell_accepting(firewalls: Iterable[str]) -> None:
    for firewall in firewalls:
        log.info("%s lets calls through, by a rule marked sipnat", firewall)
