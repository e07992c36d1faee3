"""The entries of a table: taken in, given pinholes, taken out, and each change of them noted.

What must agree is written here together: the indexes and ports of both transports, the claims and
their timers, what each host has. Whether something may be done has been asked before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from nat_table.binding import Binding, Owner, Permit, Pinhole
from nat_table.changes import Change, Closed, Opened, Refreshed, Turned
from nat_table.endpoint import UDP, Endpoint, Transport
from nat_table.entry import Claim, Entry
from nat_table.hosts import Hosts
from nat_table.ports import Ports
from nat_table.space import Space
from nat_table.timers import Timers

_MOST_LOOKED_AT: Final = 64  # some ten microseconds


class Entries:
    """Finds and keeps entries; `changes` are those since somebody took them."""

    __slots__ = ("_timers", "changes", "hosts", "tcp", "udp")

    def __init__(self, udp: Space, tcp: Space, hosts: Hosts) -> None:
        self.udp = udp
        self.tcp = tcp
        self.hosts = hosts
        self.changes: list[Change] = []
        self._timers = Timers()

    def space(self, transport: Transport) -> Space:
        """Returns the endpoints of a transport."""
        return self.udp if transport is UDP else self.tcp

    def ports(self, binding: Binding) -> Ports:
        """Returns the ports of a binding's external address."""
        ports = self.space(binding.transport).ports(binding.external[0])
        assert ports is not None, binding
        return ports

    def find(self, binding: Binding) -> Entry | None:
        """Returns the entry of a binding, of whatever kind it is by now; None where it is gone."""
        entry = self.space(binding.transport).by_internal.get(binding.internal)
        if entry is None or entry.binding is binding:
            return entry
        return entry if entry.binding.external == binding.external else None

    def open(self, binding: Binding, pinhole: Pinhole) -> Binding:
        """Takes in a new binding, which it returns."""
        self.changes.append(Opened(binding, pinhole))
        self.changes.extend(self.insert(binding, pinhole))
        self.hosts.note_opened(binding.internal[0], binding.created_at)
        return binding

    def add(self, entry: Entry, pinhole: Pinhole) -> None:
        """Gives a pinhole to an owner that has none."""
        self.changes.append(Refreshed(entry.binding, None, pinhole))
        self.changes.extend(self.put(entry, pinhole.owner, pinhole))

    def renew(
        self,
        claim: Claim,
        expires_at: float,
        remotes: tuple[Endpoint, ...],
        permits: tuple[Permit, ...],
    ) -> None:
        """Puts another pinhole of the same owner in the place of a claim's, if it is another."""
        entry, before = claim.entry, claim.pinhole
        # Mostly they are the very same, which a tuple does not look at first.
        is_as_open = (remotes is before.remotes or remotes == before.remotes) and (
            permits is before.permits or permits == before.permits
        )
        if is_as_open and expires_at == before.expires_at:
            return
        after = Pinhole(before.owner, expires_at, remotes, permits)
        self.changes.append(Refreshed(entry.binding, before, after))
        if is_as_open:
            self._set(claim, after)
        else:
            self.changes.extend(self.put(entry, before.owner, after))

    def drop(self, claim: Claim, now: float) -> None:
        """Takes a claim out, and with its last one the entry."""
        entry, pinhole = claim.entry, claim.pinhole
        binding = entry.binding
        followed = self.put(entry, pinhole.owner, None)
        if entry.claims:
            self.changes.append(Refreshed(binding, pinhole, None))
            self.changes.extend(followed)
        else:
            self._remove(entry)
            self.ports(binding).release(binding.external[1], binding.internal, now)
            self.changes.extend(followed)
            self.changes.append(Closed(binding, (pinhole,)))

    def drop_due(self, now: float, limit: int | None) -> None:
        """Drops the claims whose deadline has come; looks at `limit` of them at the most."""
        looked_at = 0
        while limit is None or looked_at < limit:
            claim = self._timers.first()
            if claim is None or claim.due > now:
                break
            if claim.pinhole.expires_at > now:
                self._timers.put_off(claim)
            else:
                self.drop(claim, now)
            looked_at += 1

    def next_deadline(self) -> float | None:
        """Returns the earliest deadline, None where there is none.

        Where many deadlines have moved to later since it was asked last, it is a time before that.
        """
        claim = self._timers.first()
        for _ in range(_MOST_LOOKED_AT):
            if claim is None or claim.pinhole.expires_at <= claim.due:
                break
            self._timers.put_off(claim)
            claim = self._timers.first()
        return None if claim is None else claim.due

    def undo(self, changes: Sequence[Change]) -> None:
        """Undoes the latest changes and notes none."""
        for change in reversed(changes):
            binding = change.binding
            if isinstance(change, Opened):
                self.ports(binding).undo_take(binding.external[1])
                entry = self._standing(binding)
                for owner in list(entry.claims):
                    self.put(entry, owner, None)
                self._remove(entry)
                self.hosts.undo_opened(binding.internal[0])
            elif isinstance(change, Closed):
                self.ports(binding).undo_release(binding.external[1])
                self.insert(binding, change.pinholes[0])
                for pinhole in change.pinholes[1:]:
                    self.put(self._standing(binding), pinhole.owner, pinhole)
            elif isinstance(change, Turned):
                self._standing(binding).binding = change.before
            elif isinstance(change, Refreshed):
                known = change.after or change.before
                assert known is not None
                self.put(self._standing(binding), known.owner, change.before)

    def insert(self, binding: Binding, pinhole: Pinhole) -> list[Change]:
        """Takes in a binding whose port is taken; returns what its pinhole admits."""
        entry = self.space(binding.transport).insert(binding)
        self.hosts.add(binding.internal[0], binding.external[0])
        return self.put(entry, pinhole.owner, pinhole)

    def put(self, entry: Entry, owner: Owner, pinhole: Pinhole | None) -> list[Change]:
        """Gives the owner this pinhole, or none; returns what that admits and excludes."""
        claim, before = entry.claims.get(owner), None
        if claim is None:
            if pinhole is not None:
                claim = entry.claims[owner] = Claim(entry, pinhole)
                self._timers.put(claim)
        else:
            before = claim.pinhole
            if pinhole is not None:
                self._set(claim, pinhole)
            else:
                del entry.claims[owner]
                self._timers.drop(claim)
        leases = entry.leases
        changes = entry.count(before, pinhole)
        if changes or entry.leases != leases:
            leased = (entry.leases > 0) - (leases > 0)
            self.hosts.count_leases(entry.binding.internal[0], leased, changes)
        return changes

    def _set(self, claim: Claim, pinhole: Pinhole) -> None:
        claim.pinhole = pinhole
        if pinhole.expires_at < claim.due:
            self._timers.hasten(claim)

    def _remove(self, entry: Entry) -> None:
        """Takes out an entry that has no claim any more."""
        self.space(entry.binding.transport).remove(entry.binding)
        self.hosts.remove(entry.binding.internal[0])

    def _standing(self, binding: Binding) -> Entry:
        return self.space(binding.transport).by_internal[binding.internal]
