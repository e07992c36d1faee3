"""The table: the sole owner of every binding, and of both ways to find one.

A binding is found by its internal and by its external endpoint, in one dictionary get each; nothing
outside this file touches either index. Every call that changes something notes a `Change`; whoever
drives the table takes them (`take_changes`), gives them to the kernel, and puts the table back
(`revert`) where the kernel refuses.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from nat_table.behavior import Behavior
from nat_table.binding import Binding, Kind, MediaPair, Owner, Pinhole
from nat_table.changes import Admitted, Change, Closed, Excluded, Opened, Refreshed
from nat_table.endpoint import UDP, Endpoint, Transport
from nat_table.entry import Entry
from nat_table.hosts import Hosts
from nat_table.ports import Ports, Rng
from nat_table.prefix import PrefixTranslation
from nat_table.refusal import (
    BindRefused,
    NoExternalAddress,
    NoFreePort,
    QuotaExceeded,
    RateExceeded,
)
from nat_table.space import Space
from nat_table.timers import Timers


class NatTable:
    """Bindings between internal and external endpoints, with their pinholes and deadlines.

    Mapping is endpoint-independent (RFC 4787 REQ-1): an internal endpoint has one binding a
    transport, whoever the remote is. Ports of one transport never stand for those of another.
    `rng` decides which ports are drawn and should be unpredictable outside tests (RFC 6056).
    A host is behind an external address of its own family, or, if it is one of IPv6 and there is a
    `translation`, behind the one that this computes, with its own ports.
    """

    def __init__(
        self,
        external_addresses: Sequence[str],
        behavior: Behavior,
        rng: Rng,
        translation: PrefixTranslation | None = None,
    ) -> None:
        if not external_addresses and translation is None:
            raise ValueError("a table needs an external address, or a translation of prefixes")
        self._behavior = behavior
        self._udp, self._tcp = (
            Space(external_addresses, behavior, rng, is_translated=translation is not None)
            for _ in range(2)
        )
        self._hosts = Hosts(external_addresses, translation)
        self._changes: list[Change] = []
        self._timers = Timers()

    def __len__(self) -> int:
        return len(self._udp.by_internal) + len(self._tcp.by_internal)

    def bindings(self) -> Iterator[Binding]:
        """Iterates over the bindings that stand at the time of the call, UDP first."""
        entries = (*self._udp.by_internal.values(), *self._tcp.by_internal.values())
        return (entry.binding for entry in entries)

    def count(self, internal_address: str) -> int:
        """Returns how many bindings a host has."""
        return self._hosts.count(internal_address)

    def external_address(self, internal_address: str) -> str | None:
        """Returns the external address of a host: always the same one (RFC 4787 REQ-2), or None.

        Where that one has no port left, binding is refused: another address would let a call's
        signalling and its media come from two.
        """
        return self._hosts.external_address(internal_address)

    def look_up_internal(self, transport: Transport, endpoint: Endpoint) -> Binding | None:
        """Returns the binding of an internal endpoint."""
        entry = (self._udp if transport is UDP else self._tcp).by_internal.get(endpoint)
        return None if entry is None else entry.binding

    def look_up_external(self, transport: Transport, endpoint: Endpoint) -> Binding | None:
        """Returns the binding that an external endpoint stands for."""
        entry = (self._udp if transport is UDP else self._tcp).by_external.get(endpoint)
        return None if entry is None else entry.binding

    def pinholes(self, binding: Binding) -> tuple[Pinhole, ...]:
        """Returns the pinholes of a binding; none where it is gone."""
        entry = self._entry(binding)
        return () if entry is None else entry.pinholes()

    def bind(
        self,
        transport: Transport,
        internal: Endpoint,
        kind: Kind,
        owner: Owner,
        *,
        now: float,
        expires_at: float,
        remotes: tuple[Endpoint, ...] = (),
        wanted: int | None = None,
    ) -> Binding:
        """Returns the endpoint's binding, kept for the owner until `expires_at` at least.

        A standing binding is reused as it is (RFC 4787 REQ-1), its deadline never shortened, its
        remotes kept where none are given. A new one gets the port that is `wanted`, if it is free.
        Raises NoFreePort, NoExternalAddress, QuotaExceeded or RateExceeded.
        """
        entry = (self._udp if transport is UDP else self._tcp).by_internal.get(internal)
        if entry is None:
            external = self._take(transport, (internal,), now, wanted)
            pinhole = Pinhole(owner, expires_at, remotes)
            return self._open(Binding(transport, internal, external, kind, now), pinhole)
        before = entry.pinhole(owner)
        if before is None:
            self._move(entry, None, Pinhole(owner, expires_at, remotes))
        elif before.expires_at < expires_at or (remotes and remotes != before.remotes):
            deadline = max(before.expires_at, expires_at)
            self._move(entry, before, Pinhole(owner, deadline, remotes or before.remotes))
        return entry.binding

    def bind_pair(
        self,
        rtp: Endpoint,
        rtcp: Endpoint,
        owner: Owner,
        *,
        now: float,
        expires_at: float,
    ) -> MediaPair:
        """Binds the RTP and RTCP endpoints of one media stream: both, or neither.

        Where RTCP is on the port after RTP and neither is bound yet, their external ports are
        neighbours too (RFC 3550 §11, RFC 4787 §4.2.2). Raises what `bind` does.
        """
        (pair,) = self.bind_pairs((rtp, rtcp), owner, now=now, expires_at=expires_at)
        return pair

    def bind_pairs(
        self,
        row: Sequence[Endpoint],
        owner: Owner,
        *,
        now: float,
        expires_at: float,
    ) -> list[MediaPair]:
        """Binds RTP, RTCP, RTP, RTCP and so on (RFC 8866 §5.14, "port/count"): all, or none.

        Where the row's ports follow each other and none is bound yet, so do the external ones.
        Raises what `bind` does.
        """
        standing, (first, *others) = self._udp.by_internal, row
        is_run = all(
            internal == (first.address, first.port + offset) and internal not in standing
            for offset, internal in enumerate(others, 1)
        )
        kinds = (Kind.RTP, Kind.RTCP)
        if is_run and first not in standing:
            address, port = self._take(UDP, row, now)
            made = [
                self._open(
                    Binding(UDP, internal, Endpoint(address, port + offset), kind, now),
                    Pinhole(owner, expires_at),
                )
                for (offset, internal), kind in zip(enumerate(row), itertools.cycle(kinds))
            ]
            return [MediaPair(*pair) for pair in zip(made[::2], made[1::2], strict=True)]
        mark = len(self._changes)
        try:
            made = [
                self.bind(UDP, each, kind, owner, now=now, expires_at=expires_at)
                for each, kind in zip(row, itertools.cycle(kinds))
            ]
        except BindRefused:
            self.revert(self._changes[mark:])
            del self._changes[mark:]
            raise
        return [MediaPair(*pair) for pair in zip(made[::2], made[1::2], strict=True)]

    def refresh(
        self,
        binding: Binding,
        owner: Owner,
        expires_at: float,
        remotes: tuple[Endpoint, ...] | None = None,
    ) -> None:
        """Moves the owner's deadline to exactly `expires_at`, earlier or later.

        Adds the pinhole where the owner has none; does nothing where the binding is gone. The
        remotes stay as they are unless others, or none, are given.
        """
        entry = self._entry(binding)
        if entry is None:
            return
        before = entry.pinhole(owner)
        if remotes is None:
            remotes = () if before is None else before.remotes
        if before is None or (before.expires_at, before.remotes) != (expires_at, remotes):
            self._move(entry, before, Pinhole(owner, expires_at, remotes))

    def close(self, binding: Binding, owner: Owner, now: float) -> None:
        """Drops the owner's pinhole; the binding closes with its last one."""
        entry = self._entry(binding)
        if entry is not None and owner in entry.claims:
            self._drop(entry, owner, now)

    def expire(self, now: float, limit: int | None = None) -> None:
        """Drops every pinhole whose deadline has come, and ends what quarantine is over.

        With a `limit` it drops so many at the most, and frees so many ports of an address:
        `next_deadline` tells whether more are due. A thousand take a few milliseconds.
        """
        for _ in itertools.count() if limit is None else range(limit):
            claim = self._timers.first()
            if claim is None or claim.due > now:
                break
            self._drop(claim.entry, claim.pinhole.owner, now)
        for space in (self._udp, self._tcp):
            space.end_quarantine(now, limit)
        self._hosts.forget(now)

    def next_deadline(self) -> float | None:
        """Returns the earliest deadline of any pinhole."""
        claim = self._timers.first()
        return None if claim is None else claim.due

    def take_changes(self) -> list[Change]:
        """Returns what was changed since the last call, in order."""
        changes, self._changes = self._changes, []
        return changes

    def revert(self, changes: Sequence[Change]) -> None:
        """Undoes the latest changes, as if they had not been made; notes no change itself.

        Raises ValueError, nothing undone, where an address was moved meanwhile.
        """
        for change in changes:
            if self._udp.ports(change.binding.external.address) is None:
                raise ValueError(f"{change.binding.external} has moved, there is no way back")
        for change in reversed(changes):
            binding = change.binding
            if isinstance(change, Opened):
                self._remove(self._standing(binding))
                self._ports(binding).undo_take(binding.external.port)
                self._hosts.undo_opened(binding.internal.address)
            elif isinstance(change, Closed):
                self._ports(binding).undo_release(binding.external.port)
                self._insert(binding, change.pinholes)
            elif isinstance(change, Refreshed):
                self._put(self._standing(binding), change.after, change.before)

    def move(self, old_address: str, new_address: str, now: float) -> dict[Binding, Binding]:
        """Puts a new external address in the place of an old one; returns what became of bindings.

        Each keeps its port, owners and remotes; every host of the old address is on the new one. As
        nobody knows the new address yet, no port of it is in quarantine. A move is not reverted:
        where the kernel refuses it, the kernel must be made to follow. Raises ValueError where the
        old address is not the table's, or the new one is already or of another family.
        """
        self._hosts.move(old_address, new_address)
        moved = {}
        for space in (self._udp, self._tcp):
            for before, entry in space.move(old_address, new_address, now):
                moved[before] = entry.binding
                self._note_moved(before, entry)
        return moved

    def adopt(self, binding: Binding, pinhole: Pinhole, now: float) -> None:
        """Takes in a binding that stands in the kernel already; notes no change.

        A binding adopted before gets one more pinhole. Quotas do not count here, but what is
        adopted counts for them. Raises ValueError where the external endpoint is not the table's
        to give, or where either endpoint belongs to another binding.
        """
        entry = self._entry(binding)
        if entry is not None:
            self._put(entry, entry.pinhole(pinhole.owner), pinhole)
            return
        transport, internal, external = binding.transport, binding.internal, binding.external
        if self.look_up_internal(transport, internal) is not None:
            raise ValueError(f"{internal} has another binding than {external}")
        ports = self._space(transport).ports(external.address)
        if (
            ports is None
            or not self._hosts.may_be_behind(external.address, internal.address)
            or not ports.claim(external.port, internal, now)
        ):
            raise ValueError(f"{external} is not free to stand for {internal}")
        self._insert(binding, (pinhole,))

    def _space(self, transport: Transport) -> Space:
        return self._udp if transport is UDP else self._tcp

    def _ports(self, binding: Binding) -> Ports:
        ports = self._space(binding.transport).ports(binding.external.address)
        assert ports is not None, binding
        return ports

    def _entry(self, binding: Binding) -> Entry | None:
        entry = self._space(binding.transport).by_internal.get(binding.internal)
        if entry is None or entry.binding.external != binding.external:
            return None
        return entry

    def _standing(self, binding: Binding) -> Entry:
        return self._space(binding.transport).by_internal[binding.internal]

    def _take(
        self,
        transport: Transport,
        owners: Sequence[Endpoint],
        now: float,
        wanted: int | None = None,
    ) -> Endpoint:
        """Returns the external endpoint of the first owner; the others' follow port by port."""
        host = owners[0].address
        if self.count(host) + len(owners) > self._behavior.max_mappings_per_host:
            raise QuotaExceeded(f"{host} has {self.count(host)} mappings")
        if len(self) + len(owners) > self._behavior.max_mappings:
            raise QuotaExceeded(f"the table has {len(self)} mappings")
        recent = self._hosts.recent(host, now)
        if recent + len(owners) > self._behavior.max_new_per_second:
            raise RateExceeded(f"{host} has opened {recent} mappings within a second")
        address = self.external_address(host)
        ports = None if address is None else self._space(transport).ports(address)
        if address is None or ports is None:
            raise NoExternalAddress(f"{host} has no external address")
        if wanted is not None and ports.claim(wanted, owners[0], now):
            return Endpoint(address, wanted)
        port = ports.take(owners, now)
        if port is None:
            raise NoFreePort(f"{address} has no free {transport.label} port for {owners[0]}")
        return Endpoint(address, port)

    def _open(self, binding: Binding, pinhole: Pinhole) -> Binding:
        self._changes.append(Opened(binding, pinhole))
        self._changes += self._insert(binding, (pinhole,))
        self._hosts.note_opened(binding.internal.address, binding.created_at)
        return binding

    def _move(self, entry: Entry, before: Pinhole | None, after: Pinhole) -> None:
        self._changes.append(Refreshed(entry.binding, before, after))
        self._changes += self._put(entry, before, after)

    def _drop(self, entry: Entry, owner: Owner, now: float) -> None:
        binding, pinhole = entry.binding, entry.claims[owner].pinhole
        followed = self._put(entry, pinhole, None)
        if entry.claims:
            self._changes += (Refreshed(binding, pinhole, None), *followed)
        else:
            self._remove(entry)
            self._ports(binding).release(binding.external.port, binding.internal, now)
            self._changes += (*followed, Closed(binding, (pinhole,)))

    def _note_moved(self, before: Binding, entry: Entry) -> None:
        binding, (first, *others), named = entry.binding, entry.pinholes(), entry.naming or ()
        self._changes += (Excluded(before, address) for address in named)
        self._changes += (Closed(before, (first, *others)), Opened(binding, first))
        self._changes += (Refreshed(binding, None, other) for other in others)
        self._changes += (Admitted(binding, address) for address in named)

    def _insert(self, binding: Binding, pinholes: Sequence[Pinhole]) -> list[Change]:
        """Takes a binding in; returns what its pinholes admit."""
        entry = self._space(binding.transport).insert(binding)
        self._hosts.add(binding.internal.address, binding.external.address)
        return [change for pinhole in pinholes for change in self._put(entry, None, pinhole)]

    def _remove(self, entry: Entry) -> None:
        binding = entry.binding
        self._space(binding.transport).remove(binding)
        self._hosts.remove(binding.internal.address)
        for owner in list(entry.claims):
            self._timers.drop(entry, owner)

    def _put(self, entry: Entry, before: Pinhole | None, after: Pinhole | None) -> list[Change]:
        """Puts one pinhole in the place of another; returns what that admits and excludes."""
        if after is not None:
            self._timers.put(entry, after)
        elif before is not None:
            self._timers.drop(entry, before.owner)
        return entry.count(before, after)
