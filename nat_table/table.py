"""The table: the sole owner of every binding, and of both ways to find one.

A binding is found by its internal and by its external endpoint, in one dictionary get each; nothing
outside this file touches either index. Every call that changes something notes a `Change`; whoever
drives the table takes them (`take_changes`), and puts it back where the kernel refuses (`revert`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from nat_table.behavior import Behavior
from nat_table.binding import Binding, Kind, MediaPair, Owner, Permit, Pinhole
from nat_table.changes import Change
from nat_table.endpoint import TCP, UDP, Endpoint, Transport, endpoint_of
from nat_table.entries import Entries
from nat_table.hosts import Hosts
from nat_table.ports import Ports, Rng
from nat_table.prefix import PrefixTranslation
from nat_table.refusal import BindRefused, NoExternalAddress, NoFreePort
from nat_table.space import Space

_SIP: Final = Kind.SIP
_ANY: Final = Kind.ANY
_MEDIA: Final = (Kind.RTP, Kind.RTCP)


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
        is_translated = translation is not None
        self._udp = Space(external_addresses, behavior, rng, is_translated=is_translated)
        self._tcp = Space(external_addresses, behavior, rng, is_translated=is_translated)
        self.spaces = {UDP: self._udp, TCP: self._tcp}
        self.hosts = Hosts(external_addresses, behavior, translation)
        self._entries = Entries(self._udp, self._tcp, self.hosts)

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
        entry = self._entries.find(binding)
        return () if entry is None else entry.pinholes()

    def is_leased(self, binding: Binding) -> bool:
        """Tells whether a client asked for the binding, whoever else needs it."""
        entry = self._entries.find(binding)
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
        made = self.bind_row(UDP, (rtp, rtcp), _MEDIA, owner, now=now, expires_at=expires_at)
        return MediaPair(made[0], made[1])

    def bind_pairs(
        self, row: Sequence[Endpoint], owner: Owner, *, now: float, expires_at: float
    ) -> list[MediaPair]:
        """Binds RTP, RTCP, RTP, RTCP and so on (RFC 8866 §5.14, "port/count"): all, or none.

        Where the row's ports follow each other and none is bound yet, so do the external ones.
        Raises what `bind` does.
        """
        made = self.bind_row(UDP, row, _MEDIA, owner, now=now, expires_at=expires_at)
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
        if wanted is not None and kinds[0] in _MEDIA and (wanted ^ row[0][1]) & 1:
            wanted = None
        pinhole = Pinhole(owner, expires_at, remotes, permits)
        made: list[Binding] = []
        if self._is_new_run(transport, row):
            address, port = self._take(transport, row, now, wanted)
            for internal in row:
                external, kind = endpoint_of(address, port), kinds[len(made) % len(kinds)]
                binding = Binding(transport, internal, external, kind, now)
                made.append(self._entries.open(binding, pinhole))
                port += 1
            return made
        mark = len(self._entries.changes)
        try:
            for internal in row:
                kind, number = kinds[len(made) % len(kinds)], wanted and wanted + len(made)
                made.append(self._bind(transport, internal, kind, pinhole, now, number))
        except BindRefused:
            self._entries.undo(self._entries.changes[mark:])
            del self._entries.changes[mark:]
            raise
        return made

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
        entry = self._entries.find(binding)
        if entry is None:
            return
        claim = entry.claims.get(owner)
        if claim is None:
            self._entries.add(entry, Pinhole(owner, expires_at, remotes or (), permits or ()))
            return
        before = claim.pinhole
        self._entries.renew(
            claim,
            expires_at,
            before.remotes if remotes is None else remotes,
            before.permits if permits is None else permits,
        )

    def close(self, binding: Binding, owner: Owner, now: float) -> None:
        """Drops the owner's pinhole; the binding closes with its last one."""
        entry = self._entries.find(binding)
        claim = None if entry is None else entry.claims.get(owner)
        if claim is not None:
            self._entries.drop(claim, now)

    def expire(self, now: float, limit: int | None = None) -> None:
        """Drops every pinhole whose deadline has come, and ends what quarantine is over.

        With a `limit` it looks at so many at the most, and frees so many ports of an address:
        `next_deadline` tells whether more are due. A thousand take a few milliseconds.
        """
        self._entries.drop_due(now, limit)
        for space in (self._udp, self._tcp):
            space.end_quarantine(now, limit)
        self.hosts.forget(now)

    def next_deadline(self) -> float | None:
        """Returns the earliest deadline of any pinhole, or None.

        Where a great many have been moved to later since it was asked last, it is a time before
        that; as often as it is asked again, it is nearer.
        """
        return self._entries.next_deadline()

    def take_changes(self) -> list[Change]:
        """Returns what was changed since the last call, in order."""
        changes = self._entries.changes
        self._entries.changes = []
        return changes

    def revert(self, changes: Sequence[Change]) -> None:
        """Undoes the latest changes, as if they had not been made; notes no change itself.

        Raises ValueError, nothing undone, where an address was moved meanwhile.
        """
        for change in changes:
            if self._udp.ports(change.binding.external.address) is None:
                raise ValueError(f"{change.binding.external} has moved, there is no way back")
        self._entries.undo(changes)

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
                self._entries.changes += entry.moved(before)
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
        entry = self._entries.find(binding)
        if entry is not None:
            self._entries.put(entry, pinhole.owner, pinhole)
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
        self._entries.insert(binding, pinhole)

    def ports(self, binding: Binding) -> Ports:
        """Returns the ports of a binding's external address."""
        return self._entries.ports(binding)

    def _is_new_run(self, transport: Transport, row: Sequence[Endpoint]) -> bool:
        """Whether endpoints follow each other, port by port, and none is bound."""
        standing = self._entries.space(transport).by_internal
        host, port = row[0]
        for internal in row:
            if internal[1] != port or internal[0] != host or internal in standing:
                return False
            port += 1
        return True

    def _bind(
        self,
        transport: Transport,
        internal: Endpoint,
        kind: Kind,
        pinhole: Pinhole,
        now: float,
        wanted: int | None,
    ) -> Binding:
        entry = self._entries.space(transport).by_internal.get(internal)
        if entry is None:
            address, port = self._take(transport, (internal,), now, wanted)
            binding = Binding(transport, internal, endpoint_of(address, port), kind, now)
            return self._entries.open(binding, pinhole)
        if kind is _SIP and entry.binding.kind is _ANY:
            self._entries.changes += entry.turn(kind)
        claim = entry.claims.get(pinhole.owner)
        if claim is None:
            self._entries.add(entry, pinhole)
        else:
            before = claim.pinhole
            self._entries.renew(
                claim,
                max(before.expires_at, pinhole.expires_at),
                pinhole.remotes or before.remotes,
                pinhole.permits or before.permits,
            )
        return entry.binding

    def _take(
        self, transport: Transport, owners: Sequence[Endpoint], now: float, wanted: int | None
    ) -> tuple[str, int]:
        """Returns the external endpoint of the first owner; the others' follow port by port."""
        host = owners[0][0]
        self.hosts.check_quotas(host, len(owners), len(self), now)
        address = self.hosts.external_address(host)
        ports = None if address is None else self._entries.space(transport).ports(address)
        if address is None or ports is None:
            raise NoExternalAddress(f"{host} has no external address")
        port = ports.take(owners, now, wanted)
        if port is None:
            raise NoFreePort(f"{address} has no free {transport.label} port for {owners[0]}")
        return address, port
