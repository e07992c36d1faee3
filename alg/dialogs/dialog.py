"""Calls: which media bindings belong to which dialogs, and when they are let go.

A `Call` is what one internal phone sees under one Call-ID and its own tag: one dialog, or several
where the request was forked (RFC 3261 §12.1: one early dialog for each remote tag). The bindings of
its media belong to the call as a whole, because every fork is offered the same ports; they end with
the last dialog. Nothing is keyed by addresses or ports: two calls on one flow never meet.

A call that ended by BYE is remembered for the time of a transaction, so that a late retransmission
is rewritten as before and opens nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from alg.dialogs.deadlines import Deadlines
from alg.dialogs.offer_answer import OfferAnswer
from alg.dialogs.quota import HostQuota
from alg.dialogs.states import DialogEvent, DialogState, next_state
from nat_table.binding import Binding, Owner
from nat_table.table import NatTable

MAX_FORKS = 64


class CallKey(NamedTuple):
    """The phone's address, the Call-ID, and the tag of the phone."""

    host: str
    call_id: bytes
    local_tag: bytes


class CallTimeouts(NamedTuple):
    """Seconds: an unanswered transaction, a ringing call, a call without a BYE, replaced media."""

    transaction: float = 32.0
    ringing: float = 300.0
    call: float = 86400.0
    replaced_media: float = 5.0


class Call:
    """The dialogs of one phone under one Call-ID, and the bindings they keep."""

    __slots__ = ("dialogs", "expires_at", "key", "media", "owner", "signalling")

    def __init__(self, key: CallKey) -> None:
        self.key = key
        self.owner = owner_of(key)
        self.dialogs: dict[bytes, DialogState] = {}
        self.media = OfferAnswer()
        self.signalling: dict[Binding, None] = {}
        self.expires_at = 0.0

    @property
    def is_confirmed(self) -> bool:
        """Whether a dialog of the call has been answered and not yet ended."""
        states = self.dialogs.values()
        return DialogState.CONFIRMED in states or DialogState.ENDING in states

    @property
    def is_ended(self) -> bool:
        """Whether the call had dialogs and none is left."""
        return bool(self.dialogs) and all(
            state is DialogState.ENDED for state in self.dialogs.values()
        )


def owner_of(key: CallKey) -> Owner:
    """Returns the name under which a call owns pinholes."""
    call_id, tag = key.call_id.decode("utf-8", "replace"), key.local_tag.decode("utf-8", "replace")
    return Owner("call", call_id, tag)


class Calls:
    """Every call that has state, by its key."""

    def __init__(self, timeouts: CallTimeouts, limit: int) -> None:
        self.timeouts = timeouts
        self._quota = HostQuota("calls", limit)
        self._calls: dict[CallKey, Call] = {}
        self._deadlines: Deadlines[CallKey] = Deadlines()

    def __len__(self) -> int:
        return len(self._calls)

    def find(self, key: CallKey) -> Call | None:
        """Returns the call, None where there is no such call."""
        return self._calls.get(key)

    def open(self, key: CallKey) -> Call:
        """Returns the call, made new where there is none or where the old one has ended.

        Raises QuotaExceeded where the host has as many as it may; ended ones do not count.
        """
        call = self._calls.get(key)
        if call is None or call.is_ended:
            self._quota.take(key.host)
            call = self._calls[key] = Call(key)
        return call

    def deadline(self, call: Call | None, now: float) -> float:
        """Returns until when a binding made for the call now should live at least."""
        if call is None:
            return now + self.timeouts.transaction
        return max(call.expires_at, now + self.timeouts.transaction)

    def keep(self, table: NatTable, call: Call, until: float) -> None:
        """Moves the deadline of the call and of everything it owns."""
        call.expires_at = until
        self._deadlines.put(call.key, until)
        for binding in call.media.bindings():
            table.refresh(binding, call.owner, until)
        for binding in call.signalling:
            table.refresh(binding, call.owner, until)

    def happen(
        self, table: NatTable, call: Call, remote_tag: bytes, event: DialogEvent, now: float
    ) -> None:
        """Moves one dialog of the call on, and what the call owns with it."""
        if call.is_ended or (remote_tag not in call.dialogs and len(call.dialogs) >= MAX_FORKS):
            return
        before = call.dialogs.get(remote_tag, DialogState.EARLY)
        call.dialogs[remote_tag] = state = next_state(before, event)
        timeouts = self.timeouts
        if call.is_ended:
            self.end(table, call, now)
        elif state is DialogState.ENDING and not self._is_in_use(call):
            self.keep(table, call, now + timeouts.transaction)
        elif call.is_confirmed:
            if before is not state:
                self.keep(table, call, now + timeouts.call)
        elif event is DialogEvent.PROVISIONAL:
            self.keep(table, call, now + timeouts.ringing)

    def refuse(self, table: NatTable, call: Call, now: float) -> None:
        """Ends every early dialog: a final failure answers the whole request (§16.7)."""
        for tag, state in call.dialogs.items():
            call.dialogs[tag] = next_state(state, DialogEvent.REFUSED)
        if not call.is_confirmed:
            self.end(table, call, now)
            del self._calls[call.key]
            self._deadlines.discard(call.key)

    def end(self, table: NatTable, call: Call, now: float) -> None:
        """Closes what the call owns; the call itself is remembered for a transaction's time."""
        for binding in (*call.media.bindings(), *call.signalling):
            table.close(binding, call.owner, now)
        call.signalling.clear()
        call.media.release()
        self._quota.give_back(call.key.host)
        call.expires_at = now + self.timeouts.transaction
        self._deadlines.put(call.key, call.expires_at)

    def let_go(self, table: NatTable, call: Call, unused: Iterable[Binding], now: float) -> None:
        """Ends media that an answer replaced, once late packets have come (RFC 3264 §8)."""
        for binding in unused:
            table.refresh(binding, call.owner, now + self.timeouts.replaced_media)

    def expire(self, now: float) -> None:
        """Forgets the calls whose time is over; the table expires their bindings by itself."""
        for key in self._deadlines.pop_due(now):
            if not self._calls.pop(key).is_ended:
                self._quota.give_back(key.host)

    def next_deadline(self) -> float | None:
        """Returns when `expire` has something to do, at the earliest."""
        return self._deadlines.next()

    def _is_in_use(self, call: Call) -> bool:
        return DialogState.CONFIRMED in call.dialogs.values()
