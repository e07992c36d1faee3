"""The table: the sole owner of every binding, and of both ways to find one.

A binding is found by its internal and by its external endpoint, in one dictionary get each; nothing
outside this file touches either index. Every call that changes something notes a `Change`; whoever
drives the table takes them (`take_changes`), and puts it back where the kernel refuses (`revert`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from nat_table.behavior import Behavior
from nat_table.binding import Binding, Kind, MediaPair, Owner, Permit, Pinhole
from nat_table.changes import Change, Closed, Opened, Refreshed, Turned
from nat_table.endpoint import TCP, UDP, Endpoint, Transport
from nat_table.entry import Entry
from nat_table.hosts import Hosts
from nat_table.ports import Ports, Rng
from nat_table.prefix import PrefixTranslation
from nat_table.refusal import BindRefused, NoExternalAddress, NoFreePort
from nat_table.space import Space
from nat_table.timers import Timers


class NatTable:
    """Bindings between internal and external endpoints, with their pinholes and deadlines.

    Mapping is endpoint-independent (RFC 4787 REQ-1): an internal endpoint has one binding a
    transport, whoever the remote is. Ports of one transport never stand for those of another.
    `rng` decides which ports are drawn and should be unpredictable outside tests (RFC 6056).
    A host is behind an external address of its own family, or, if it is one of IPv6 and there is a
    `translation`, behind the one that this computes, with its own ports. `hosts` and `spaces` are
    to be read only.
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
        self._udp, self._tcp = (
            Space(external_addresses, behavior, rng, is_translated=translation is not None)
            for _ in range(2)
        )
        self.spaces = {UDP: self._udp, TCP: self._tcp}
        self.hosts = Hosts(external_addresses, behavior, translation)
        self._changes: list[Change] = []
        self._timers = Timers()

    def __len__(self) -> int:
        return len(self._udp.by_internal) + len(self._tcp.by_internal)

    def bindings(self, *, only_leased: bool = False) -> Iterator[Binding]:
        """Iterates over bindings, or leased ones, that stand at the time of the call; UDP first."""
        entries = (*self._udp.by_internal.values(), *self._tcp.by_internal.values())
        return (entry.binding for entry in entries if entry.leases or not only_leased)

    def count(self, internal_address: str) -> int:
        """Returns how many bindings a host has."""
        return self.hosts.count(internal_address)

    def external_address(self, internal_address: str) -> str | None:
        """Returns the external address of a host: always the same one (RFC 4787 REQ-2), or None."""
        return self.hosts.external_address(internal_address)

    def check_leases(self, internal_address: str) -> None:
        """Raises QuotaExceeded or NoFreePort where leases, or a host's filters, are too many."""
        self.hosts.check_leases(internal_address)

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

    def is_leased(self, binding: Binding) -> bool:
        """Tells whether a client asked for the binding, whoever else needs it."""
        entry = self._entry(binding)
        return entry is not None and entry.leases > 0

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
        permits: tuple[Permit, ...] = (),
        wanted: int | None = None,
    ) -> Binding:
        """Returns the endpoint's binding, kept for the owner until `expires_at` at least.

        A standing binding is reused as it is (RFC 4787 REQ-1), its deadline never shortened, its
        remotes and permits kept where none are given; only from ANY it turns into SIP. A new one
        gets the port that is `wanted`, if it is free. Raises BindRefused.
        """
        pinhole = Pinhole(owner, expires_at, remotes, permits)
        return self._bind(transport, internal, kind, pinhole, now, wanted)

    def bind_pair(
        self, rtp: Endpoint, rtcp: Endpoint, owner: Owner, *, now: float, expires_at: float
    ) -> MediaPair:
        """Binds the RTP and RTCP endpoints of one media stream: both, or neither.

        Where RTCP is on the port after RTP and neither is bound yet, their external ports are
        neighbours too (RFC 3550 §11, RFC 4787 §4.2.2). Raises what `bind` does.
        """
        (pair,) = self.bind_pairs((rtp, rtcp), owner, now=now, expires_at=expires_at)
        return pair

    def bind_pairs(
        self, row: Sequence[Endpoint], owner: Owner, *, now: float, expires_at: float
    ) -> list[MediaPair]:
        """Binds RTP, RTCP, RTP, RTCP and so on (RFC 8866 §5.14, "port/count"): all, or none.

        Where the row's ports follow each other and none is bound yet, so do the external ones.
        Raises what `bind` does.
        """
        kinds = (Kind.RTP, Kind.RTCP)
        made = self.bind_row(UDP, row, kinds, owner, now=now, expires_at=expires_at)
        return [MediaPair(*pair) for pair in zip(made[::2], made[1::2], strict=True)]

    def bind_row(
        self,
        transport: Transport,
        row: Sequence[Endpoint],
        kinds: Sequence[Kind],
        owner: Owner,
        *,
        now: float,
        expires_at: float,
        remotes: tuple[Endpoint, ...] = (),
        permits: tuple[Permit, ...] = (),
        wanted: int | None = None,
    ) -> list[Binding]:
        """Binds endpoints, whose kinds come again and again in this order: all, or none.

        Where their ports follow each other and none is bound yet, so do the external ones, from the
        one that is `wanted` if all are free, and media stays even or odd. Raises what `bind` does.
        """
        (host, port), standing = row[0], self.spaces[transport].by_internal
        if wanted is not None and kinds[0] in (Kind.RTP, Kind.RTCP) and (wanted ^ port) & 1:
            wanted = None
        pinhole = Pinhole(owner, expires_at, remotes, permits)
        members = list(zip(itertools.count(), row, itertools.cycle(kinds)))
        if all(
            internal == (host, port + offset) and internal not in standing
            for offset, internal, _ in members
        ):
            address, first = self._take(transport, row, now, wanted)
            return [
                self._open(
                    Binding(transport, internal, Endpoint(address, first + offset), kind, now),
                    pinhole,
                )
                for offset, internal, kind in members
            ]
        mark = len(self._changes)
        try:
            return [
                self._bind(transport, internal, kind, pinhole, now, wanted and wanted + offset)
                for offset, internal, kind in members
            ]
        except BindRefused:
            self.revert(self._changes[mark:])
            del self._changes[mark:]
            raise

    def refresh(
        self,
        binding: Binding,
        owner: Owner,
        expires_at: float,
        remotes: tuple[Endpoint, ...] | None = None,
        permits: tuple[Permit, ...] | None = None,
    ) -> None:
        """Moves the owner's deadline to exactly `expires_at`, earlier or later.

        Adds the pinhole where the owner has none; does nothing where the binding is gone. The
        remotes and permits stay as they are unless others, or none, are given.
        """
        entry = self._entry(binding)
        if entry is None:
            return
        before = entry.pinhole(owner)
        if before is not None:
            remotes = before.remotes if remotes is None else remotes
            permits = before.permits if permits is None else permits
        after = Pinhole(owner, expires_at, remotes or (), permits or ())
        if before != after:
            self._move(entry, before, after)

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
        self.hosts.forget(now)

    def next_deadline(self) -> float | None:
        """Returns the earliest deadline of any pinhole."""
        return None if (claim := self._timers.first()) is None else claim.due

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
                self.ports(binding).undo_take(binding.external.port)
                self.hosts.undo_opened(binding.internal.address)
            elif isinstance(change, Closed):
                self.ports(binding).undo_release(binding.external.port)
                self._insert(binding, change.pinholes)
            elif isinstance(change, Turned):
                self._standing(binding).binding = change.before
            elif isinstance(change, Refreshed):
                self._put(self._standing(binding), change.after, change.before)

    def move(self, old_address: str, new_address: str, now: float) -> dict[Binding, Binding]:
        """Puts a new external address in the place of an old one; returns what became of bindings.

        Each keeps its port, owners and remotes; every host of the old address is on the new one. As
        nobody knows the new address yet, no port of it is in quarantine. A move is not reverted:
        where the kernel refuses it, the kernel must be made to follow. Raises ValueError where the
        old address is not the table's, or the new one is already or of another family.
        """
        self.hosts.move(old_address, new_address)
        moved = {}
        for space in (self._udp, self._tcp):
            for before, entry in space.move(old_address, new_address, now):
                moved[before] = entry.binding
                self._changes += entry.moved(before)
        return moved

    def configure(self, behavior: Behavior) -> None:
        """Behaves so from now on, but for the pool and the fence; what is bound stays."""
        for part in (self._udp, self._tcp, self.hosts):
            part.configure(behavior)

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
        ports = self.spaces[transport].ports(external.address)
        if (
            ports is None
            or not self.hosts.may_be_behind(external.address, internal.address)
            or not ports.claim(external.port, internal, now)
        ):
            raise ValueError(f"{external} is not free to stand for {internal}")
        self._insert(binding, (pinhole,))

    def ports(self, binding: Binding) -> Ports:
        """Returns the ports of a binding's external address."""
        ports = self.spaces[binding.transport].ports(binding.external.address)
        assert ports is not None, binding
        return ports

    def _entry(self, binding: Binding) -> Entry | None:
        entry = self.spaces[binding.transport].by_internal.get(binding.internal)
        return entry if entry and entry.binding.external == binding.external else None

    def _standing(self, binding: Binding) -> Entry:
        return self.spaces[binding.transport].by_internal[binding.internal]

    def _bind(
        self,
        transport: Transport,
        internal: Endpoint,
        kind: Kind,
        pinhole: Pinhole,
        now: float,
        wanted: int | None,
    ) -> Binding:
        entry = (self._udp if transport is UDP else self._tcp).by_internal.get(internal)
        if entry is None:
            external = self._take(transport, (internal,), now, wanted)
            return self._open(Binding(transport, internal, external, kind, now), pinhole)
        if kind is Kind.SIP and entry.binding.kind is Kind.ANY:
            self._changes += entry.turn(kind)
        before = entry.pinhole(pinhole.owner)
        if before is not None:
            pinhole = pinhole.joined(before)
        if pinhole != before:
            self._move(entry, before, pinhole)
        return entry.binding

    def _take(
        self, transport: Transport, owners: Sequence[Endpoint], now: float, wanted: int | None
    ) -> Endpoint:
        """Returns the external endpoint of the first owner; the others' follow port by port."""
        host = owners[0].address
        self.hosts.check_quotas(host, len(owners), len(self), now)
        address = self.external_address(host)
        ports = None if address is None else self.spaces[transport].ports(address)
        if address is None or ports is None:
            raise NoExternalAddress(f"{host} has no external address")
        port = ports.take(owners, now, wanted)
        if port is None:
            raise NoFreePort(f"{address} has no free {transport.label} port for {owners[0]}")
        return Endpoint(address, port)

    def _open(self, binding: Binding, pinhole: Pinhole) -> Binding:
        self._changes.append(Opened(binding, pinhole))
        self._changes += self._insert(binding, (pinhole,))
        self.hosts.note_opened(binding.internal.address, binding.created_at)
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
            self.ports(binding).release(binding.external.port, binding.internal, now)
            self._changes += (*followed, Closed(binding, (pinhole,)))

    def _insert(self, binding: Binding, pinholes: Sequence[Pinhole]) -> list[Change]:
        """Takes a binding in; returns what its pinholes admit."""
        entry = self.spaces[binding.transport].insert(binding)
        self.hosts.add(binding.internal.address, binding.external.address)
        return [change for pinhole in pinholes for change in self._put(entry, None, pinhole)]

    def _remove(self, entry: Entry) -> None:
        binding = entry.binding
        self.spaces[binding.transport].remove(binding)
        self.hosts.remove(binding.internal.address)
        for pinhole in entry.pinholes():
            self._put(entry, pinhole, None)

    def _put(self, entry: Entry, before: Pinhole | None, after: Pinhole | None) -> list[Change]:
        """Puts one pinhole in the place of another; returns what that admits and excludes."""
        if after is not None:
            self._timers.put(entry, after)
        elif before is not None:
            self._timers.drop(entry, before.owner)
        had = entry.leases > 0
        changes = entry.count(before, after)
        if (leased := (entry.leases > 0) - had) or changes:
            self.hosts.count_leases(entry.binding.internal.address, leased, changes)
        return changes
