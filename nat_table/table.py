"""The table: the sole owner of every binding, and of both ways to find one.

A binding is found by its internal and by its external endpoint, in one dictionary get each; nothing
outside this file touches either index. Every call that changes something notes a `Change`; whoever
drives the table takes them (`take_changes`), gives them to the kernel, and puts the table back
(`revert`) where the kernel refuses.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterator, Sequence
from types import EllipsisType

from nat_table.behavior import Behavior
from nat_table.binding import Binding, Kind, MediaPair, Owner, Pinhole
from nat_table.changes import Change, Closed, Opened, Refreshed
from nat_table.endpoint import Endpoint, Transport
from nat_table.ports import PortPool, Rng
from nat_table.timers import Entry, Timers

_UDP = Transport.UDP  # a name of the module is found in a fifth of the time of an Enum's member


class BindRefused(Exception):
    """No binding was made and nothing has changed; `reason` is one word for counters and logs."""

    reason = "bind_refused"


class NoFreePort(BindRefused):
    """Every port that would do is taken, denied, or in quarantine."""

    reason = "no_free_port"


class QuotaExceeded(BindRefused):
    """The host, or the table, has as many bindings as it may (RFC 6888 REQ-4)."""

    reason = "quota_exceeded"


class NatTable:
    """Bindings between internal and external endpoints, with their pinholes and deadlines.

    Mapping is endpoint-independent (RFC 4787 REQ-1): an internal endpoint has one binding a
    transport, whoever the remote is. Ports of one transport never stand for those of another.
    `rng` decides which ports are drawn and should be unpredictable outside tests (RFC 6056).
    """

    def __init__(self, external_addresses: Sequence[str], behavior: Behavior, rng: Rng) -> None:
        if not external_addresses:
            raise ValueError("a table needs an external address")
        self._addresses = tuple(external_addresses)
        self._behavior = behavior
        self._udp = _Space(self._addresses, behavior, rng)
        self._tcp = _Space(self._addresses, behavior, rng)
        self._counts: dict[str, int] = {}
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
        return self._counts.get(internal_address, 0)

    def external_address(self, internal_address: str) -> str:
        """Returns the external address of a host: always the same one (RFC 4787 REQ-2)."""
        return self._addresses[zlib.crc32(internal_address.encode()) % len(self._addresses)]

    def look_up_internal(self, transport: Transport, endpoint: Endpoint) -> Binding | None:
        """Returns the binding of an internal endpoint."""
        entry = (self._udp if transport is _UDP else self._tcp).by_internal.get(endpoint)
        return None if entry is None else entry.binding

    def look_up_external(self, transport: Transport, endpoint: Endpoint) -> Binding | None:
        """Returns the binding that an external endpoint stands for."""
        entry = (self._udp if transport is _UDP else self._tcp).by_external.get(endpoint)
        return None if entry is None else entry.binding

    def pinholes(self, binding: Binding) -> tuple[Pinhole, ...]:
        """Returns the pinholes of a binding; none where it is gone."""
        entry = self._entry(binding)
        return () if entry is None else tuple(entry.pinholes.values())

    def bind(
        self,
        transport: Transport,
        internal: Endpoint,
        kind: Kind,
        owner: Owner,
        *,
        now: float,
        expires_at: float,
        remote: Endpoint | None = None,
        wanted: int | None = None,
    ) -> Binding:
        """Returns the endpoint's binding, kept for the owner until `expires_at` at least.

        A standing binding is reused as it is (RFC 4787 REQ-1), its deadline never shortened, its
        remote kept where none is given. A new one gets the port that is `wanted`, if it is free.
        Raises NoFreePort or QuotaExceeded.
        """
        entry = (self._udp if transport is _UDP else self._tcp).by_internal.get(internal)
        if entry is None:
            external = self._take(transport, (internal,), now, wanted)
            pinhole = Pinhole(owner, expires_at, remote)
            return self._open(Binding(transport, internal, external, kind, now), pinhole)
        before = entry.pinholes.get(owner)
        if before is None:
            self._move(entry, None, Pinhole(owner, expires_at, remote))
        elif before.expires_at < expires_at or (remote is not None and remote != before.remote):
            deadline = max(before.expires_at, expires_at)
            self._move(entry, before, Pinhole(owner, deadline, remote or before.remote))
        return entry.binding

    def bind_pair(
        self,
        rtp: Endpoint,
        rtcp: Endpoint,
        owner: Owner,
        *,
        now: float,
        expires_at: float,
        remote: Endpoint | None = None,
        rtcp_remote: Endpoint | None = None,
    ) -> MediaPair:
        """Binds the RTP and RTCP endpoints of one media stream: both, or neither.

        Where RTCP is on the port after RTP and neither is bound yet, their external ports are
        neighbours too (RFC 3550 §11, RFC 4787 §4.2.2). Raises NoFreePort or QuotaExceeded.
        """
        (pair,) = self.bind_pairs(
            (rtp, rtcp),
            owner,
            now=now,
            expires_at=expires_at,
            remote=remote,
            rtcp_remote=rtcp_remote,
        )
        return pair

    def bind_pairs(
        self,
        row: Sequence[Endpoint],
        owner: Owner,
        *,
        now: float,
        expires_at: float,
        remote: Endpoint | None = None,
        rtcp_remote: Endpoint | None = None,
    ) -> list[MediaPair]:
        """Binds RTP, RTCP, RTP, RTCP and so on (RFC 8866 §5.14, "port/count"): all, or none.

        Where the row's ports follow each other and none is bound yet, so do the external ones.
        Raises NoFreePort or QuotaExceeded.
        """
        standing, (first, *others) = self._udp.by_internal, row
        is_run = all(
            internal == (first.address, first.port + offset) and internal not in standing
            for offset, internal in enumerate(others, 1)
        )
        terms = ((Kind.RTP, remote), (Kind.RTCP, rtcp_remote))
        if is_run and first not in standing:
            address, port = self._take(_UDP, row, now)
            made = [
                self._open(
                    Binding(_UDP, internal, Endpoint(address, port + offset), kind, now),
                    Pinhole(owner, expires_at, peer),
                )
                for (offset, internal), (kind, peer) in zip(enumerate(row), itertools.cycle(terms))
            ]
            return [MediaPair(*pair) for pair in zip(made[::2], made[1::2], strict=True)]
        mark = len(self._changes)
        try:
            made = [
                self.bind(_UDP, each, kind, owner, now=now, expires_at=expires_at, remote=peer)
                for each, (kind, peer) in zip(row, itertools.cycle(terms))
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
        remote: Endpoint | EllipsisType | None = ...,
    ) -> None:
        """Moves the owner's deadline to exactly `expires_at`, earlier or later.

        Adds the pinhole where the owner has none; does nothing where the binding is gone. The
        remote stays as it is unless one, or None for any, is given.
        """
        entry = self._entry(binding)
        if entry is None:
            return
        before = entry.pinholes.get(owner)
        if isinstance(remote, EllipsisType):
            remote = None if before is None else before.remote
        if before is None or (before.expires_at, before.remote) != (expires_at, remote):
            self._move(entry, before, Pinhole(owner, expires_at, remote))

    def close(self, binding: Binding, owner: Owner, now: float) -> None:
        """Drops the owner's pinhole; the binding closes with its last one."""
        entry = self._entry(binding)
        if entry is not None and owner in entry.pinholes:
            self._drop(entry, owner, now)

    def expire(self, now: float) -> None:
        """Drops every pinhole whose deadline has come, and ends what quarantine is over."""
        while (timer := self._timers.first()) is not None and timer[0] <= now:
            _, _, entry, owner = timer
            self._drop(entry, owner, now)
        for space in (self._udp, self._tcp):
            for pool in space.pools.values():
                pool.end_quarantine(now)

    def next_deadline(self) -> float | None:
        """Returns the earliest deadline of any pinhole."""
        timer = self._timers.first()
        return None if timer is None else timer[0]

    def take_changes(self) -> list[Change]:
        """Returns what was changed since the last call, in order."""
        changes, self._changes = self._changes, []
        return changes

    def revert(self, changes: Sequence[Change]) -> None:
        """Undoes the latest changes, as if they had not been made; notes no change itself."""
        for change in reversed(changes):
            binding = change.binding
            if isinstance(change, Opened):
                self._remove(self._standing(binding))
                self._pool(binding).undo_take(binding.external.port)
            elif isinstance(change, Closed):
                self._pool(binding).undo_release(binding.external.port)
                self._insert(binding, change.pinholes)
            elif change.before is not None:
                self._timers.put(self._standing(binding), change.before)
            elif change.after is not None:
                self._timers.drop(self._standing(binding), change.after.owner)

    def adopt(self, binding: Binding, pinhole: Pinhole, now: float) -> None:
        """Takes in a binding that stands in the kernel already; notes no change.

        A binding adopted before gets one more pinhole. Quotas do not count here, but what is
        adopted counts for them. Raises ValueError where the external endpoint is not the table's
        to give, or where either endpoint belongs to another binding.
        """
        entry = self._entry(binding)
        if entry is not None:
            self._timers.put(entry, pinhole)
            return
        transport, internal, external = binding.transport, binding.internal, binding.external
        if self.look_up_internal(transport, internal) is not None:
            raise ValueError(f"{internal} has another binding than {external}")
        pool = self._space(transport).pools.get(external.address)
        if pool is None or not pool.claim(external.port, internal, now):
            raise ValueError(f"{external} is not free to stand for {internal}")
        self._insert(binding, (pinhole,))

    def _space(self, transport: Transport) -> _Space:
        return self._udp if transport is _UDP else self._tcp

    def _pool(self, binding: Binding) -> PortPool:
        return self._space(binding.transport).pools[binding.external.address]

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
        address = self.external_address(host)
        pool = self._space(transport).pools[address]
        if wanted is not None and pool.claim(wanted, owners[0], now):
            return Endpoint(address, wanted)
        port = pool.take(owners, now)
        if port is None:
            raise NoFreePort(f"{address} has no free {transport.label} port for {owners[0]}")
        return Endpoint(address, port)

    def _open(self, binding: Binding, pinhole: Pinhole) -> Binding:
        self._insert(binding, (pinhole,))
        self._changes.append(Opened(binding, pinhole))
        return binding

    def _move(self, entry: Entry, before: Pinhole | None, after: Pinhole) -> None:
        self._timers.put(entry, after)
        self._changes.append(Refreshed(entry.binding, before, after))

    def _drop(self, entry: Entry, owner: Owner, now: float) -> None:
        binding, pinhole = entry.binding, entry.pinholes[owner]
        if len(entry.pinholes) > 1:
            self._timers.drop(entry, owner)
            self._changes.append(Refreshed(binding, pinhole, None))
        else:
            self._remove(entry)
            self._pool(binding).release(binding.external.port, binding.internal, now)
            self._changes.append(Closed(binding, (pinhole,)))

    def _insert(self, binding: Binding, pinholes: Sequence[Pinhole]) -> None:
        entry, space = Entry(binding), self._space(binding.transport)
        space.by_internal[binding.internal] = space.by_external[binding.external] = entry
        host = binding.internal.address
        self._counts[host] = self._counts.get(host, 0) + 1
        for pinhole in pinholes:
            self._timers.put(entry, pinhole)

    def _remove(self, entry: Entry) -> None:
        binding = entry.binding
        space, host = self._space(binding.transport), binding.internal.address
        del space.by_internal[binding.internal], space.by_external[binding.external]
        self._counts[host] -= 1
        if not self._counts[host]:
            del self._counts[host]
        self._timers.drop_all(entry)


class _Space:
    """The endpoints of one transport. (Two attributes, not a dict: an Enum hashes slowly.)"""

    __slots__ = ("by_external", "by_internal", "pools")

    def __init__(self, addresses: Sequence[str], behavior: Behavior, rng: Rng) -> None:
        self.by_internal: dict[Endpoint, Entry] = {}
        self.by_external: dict[Endpoint, Entry] = {}
        self.pools = {address: PortPool(behavior, rng) for address in addresses}
