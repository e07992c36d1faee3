"""What an administrator ends by hand: a call or a registration, a mapping, or everything.

    drop_named      what has a Call-ID ends as if its messages had ended it: media at once, while
                    the mapping of its signalling has the time of a transaction
    drop_mapping    a mapping ends at once, whoever keeps it, and they know of it no more
    drop_all        all that was signalled ends at once

A call that is dropped is remembered as any that has ended: what its phone still sends in it is
written as before, and opens nothing. The changes are the table's to tell.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from alg.dialogs.grants import RegistrationKey
from alg.state import State
from nat_table.binding import Binding, Owner
from nat_table.lease import is_lease

AT_ONCE = 100


class Dropped(NamedTuple):
    """What has ended: "call", "registration" or "subscription", of which internal host."""

    what: str
    host: str


def drop_named(state: State, call_id: str, now: float) -> list[Dropped]:
    """Ends everything that has this Call-ID; returns what that was."""
    dropped = []
    for call in state.calls.standing():
        if call.owner.call_id == call_id:
            state.calls.drop(state.table, call, now)
            dropped.append(Dropped("call", call.key.host))
    for grants in state.grants:
        for key in grants.standing():
            if _name(key) == call_id:
                grants.drop(state.table, key, now)
                dropped.append(Dropped(grants.scope, key.host))
    return dropped


def drop_mapping(state: State, binding: Binding, now: float) -> None:
    """Ends a mapping, and has everything that keeps it forget it."""
    owners = {pinhole.owner for pinhole in state.table.pinholes(binding)}
    for owner in owners:
        state.table.close(binding, owner, now)
    state.calls.forget(binding, owners)
    for grants in state.grants:
        grants.forget(binding, owners)


def drop_all(state: State, now: float, *, has_leases: bool) -> Iterator[None]:
    """Ends all that was signalled, and with `has_leases` what was asked for; yields now and then.

    What comes meanwhile stays, with the mappings that it keeps.
    """
    calls, bindings = state.calls.standing(), list(state.table.bindings())
    for number, call in enumerate(calls, start=1):
        state.calls.drop(state.table, call, now)
        if number % AT_ONCE == 0:
            yield
    for grants in state.grants:
        for number, key in enumerate(grants.standing(), start=1):
            grants.drop(state.table, key, now)
            if number % AT_ONCE == 0:
                yield
    for start in range(0, len(bindings), AT_ONCE):
        kept = _owners(state)
        for binding in bindings[start : start + AT_ONCE]:
            for pinhole in state.table.pinholes(binding):
                if has_leases if is_lease(pinhole) else pinhole.owner not in kept:
                    state.table.close(binding, pinhole.owner, now)
        yield
    yield


def _owners(state: State) -> set[Owner]:
    """Returns who stands and may keep mappings: calls, registrations and subscriptions."""
    grants = (owner for each in state.grants for owner in each.owners())
    return {call.owner for call in state.calls.standing()}.union(grants)


def _name(key: RegistrationKey) -> str:
    return key.call_id.decode("utf-8", "replace")
