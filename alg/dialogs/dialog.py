"""Every call that has state: what its messages mean for it, and when it lets go of what it owns.

Handlers change a `Call`; `update` writes to the table what the call has come to hold. A confirmed
call is kept by its signalling (`session_timer`) and, when its time is nearly over, by its media:
the calls that `to_review` names are asked about in the kernel, and those whose media flows go on.
There is no limit to the length of a call.

A call that ended by BYE is remembered for the time of a transaction, so that a late retransmission
is rewritten as before and opens nothing.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Container, Iterator, Mapping, Sequence, Set
from typing import Final, NamedTuple

from alg.dialogs.call import MAX_SIGNALLING, Call, CallKey, owner_of
from alg.dialogs.call_media import MAX_FORKS, MAX_REMOTES
from alg.dialogs.deadlines import Deadlines
from alg.dialogs.linger import let_linger
from alg.dialogs.offer_answer import Swap
from alg.dialogs.origin import Origin
from alg.dialogs.quota import HostQuota
from alg.dialogs.rows import Touched, name_of
from alg.dialogs.session_timer import session_deadline
from alg.dialogs.states import (
    ACCEPTED,
    EARLY,
    ENDED,
    ENDING,
    PROVISIONAL,
    REFUSED,
    DialogEvent,
    next_state,
)
from alg.dialogs.summary import CallSummary, summarise
from alg.stored import CALLS, encode_row
from nat_table.binding import Binding, Owner
from nat_table.endpoint import Endpoint, Socket
from nat_table.table import NatTable

REVIEW = 60.0
FLOWING = 300.0
MAX_ENDED = 100

NOTHING_NAMED: Final[Mapping[Socket, Binding]] = {}


class CallTimeouts(NamedTuple):
    """Seconds: an unanswered transaction, a ringing call, a silent call, replaced media."""

    transaction: float = 32.0
    ringing: float = 300.0
    idle: float = 7200.0
    replaced_media: float = 5.0


class Calls:
    """Every call that has state, by its key."""

    def __init__(self, timeouts: CallTimeouts, limit: int, unanswered_limit: int) -> None:
        self.timeouts = timeouts
        self._quota = HostQuota("calls", limit)
        self._unanswered = HostQuota("unanswered calls", unanswered_limit)
        self._calls: dict[tuple[str, bytes, bytes], Call] = {}
        self._deadlines: Deadlines[CallKey] = Deadlines()
        self._reviews: Deadlines[CallKey] = Deadlines()
        self._ending: dict[CallKey, None] = {}
        self._touched: Touched[CallKey] = Touched()
        self._era = 0
        self._ended: deque[CallSummary] = deque(maxlen=MAX_ENDED)
        self._lately_ended: deque[tuple[Call, float]] = deque(maxlen=MAX_ENDED)

    @property
    def quotas(self) -> tuple[HostQuota, HostQuota]:
        """What counts the calls of each host, and those that nobody has answered."""
        return self._quota, self._unanswered

    def __len__(self) -> int:
        return len(self._calls)

    @property
    def open_count(self) -> int:
        """How many calls have not ended."""
        return self._quota.total

    def limit(self, timeouts: CallTimeouts, limit: int, unanswered_limit: int) -> None:
        """Gives calls other times from now on, and hosts other limits; what there is stays."""
        self.timeouts = timeouts
        self._quota.limit = limit
        self._unanswered.limit = unanswered_limit

    @property
    def ended(self) -> Sequence[CallSummary]:
        """The last answered calls that were, the latest last; looked at when somebody asks."""
        self._ended.extend(summarise(call, ended_at) for call, ended_at in self._lately_ended)
        self._lately_ended.clear()
        return self._ended

    def find(self, host: str, call_id: bytes, local_tag: bytes) -> Call | None:
        """Returns the call that has this key, None where there is no such call."""
        return self._calls.get((host, call_id, local_tag))

    def standing(self) -> list[Call]:
        """Returns the calls that have not ended."""
        return [call for call in self._calls.values() if not call.is_ended]

    def open(self, key: CallKey, origin: Origin) -> Call:
        """Returns the call, made new where there is none or where the old one has ended.

        Raises QuotaExceeded where the host has as many as it may; ended ones do not count.
        """
        call = self._calls.get(key)
        if call is None or call.is_ended:
            self._unanswered.check(key.host)
            self._quota.take(key.host)
            self._unanswered.take(key.host)
            call = self._calls[key] = Call(key, owner_of(key), origin)
        return call

    def deadline(self, call: Call | None, now: float) -> float:
        """Returns until when a binding made for the call now should live at least."""
        if call is None:
            return now + self.timeouts.transaction
        return max(call.expires_at, now + self.timeouts.transaction)

    def doubt(self, table: NatTable, call: Call, now: float) -> None:
        """Lets a call end within a minute unless its media flows (`to_review`)."""
        call.expires_at = min(call.expires_at, now + REVIEW)
        self.update(table, call, now)

    def prolong(self, call: Call, now: float) -> None:
        """Gives a call in use the time that its session timer says, or what a silent one has."""
        call.expires_at = session_deadline(call.interval, self.timeouts.idle, now)

    def update(
        self,
        table: NatTable,
        call: Call,
        now: float,
        named: Mapping[Socket, Binding] = NOTHING_NAMED,
    ) -> None:
        """Writes to the table what the call holds, until when, and who may send to it.

        `named` are the media bindings of the message in hand; those that the call does not need
        end soon. The table is told of nothing that it knows already.
        """
        if call.is_ended:
            return
        self._touched.add(call.key)
        until, owner = call.expires_at, call.owner
        if len(call.signalling) > MAX_SIGNALLING:
            for binding in list(call.signalling)[:-MAX_SIGNALLING]:
                let_linger(table, binding, owner, self.timeouts.transaction, now)
                del call.signalling[binding]
        is_moved = call.written_until != until or call.written_era != self._era
        is_rearranged = call.media.is_changed
        if not (is_moved or is_rearranged or call.is_stale or named):
            return
        if is_rearranged:
            self._rearrange(table, call, now)
        held = call.held
        for binding in named.values():
            remotes = held.get(binding)
            if remotes is None:
                table.refresh(binding, owner, now + self.timeouts.replaced_media)
            elif not (is_moved or is_rearranged):
                table.refresh(binding, owner, until, remotes)
        if is_moved or is_rearranged:
            for binding, remotes in held.items():
                table.refresh(binding, owner, until, remotes)
        if is_moved or call.is_stale:
            for binding in call.signalling:
                table.refresh(binding, owner, until, call.peers)
        call.is_stale = False
        call.written_until, call.written_era = until, self._era
        self._schedule(call, now)

    def rewrite(self) -> None:
        """Lets every call write to the table anew, when something of it was undone there."""
        self._era += 1

    def happen(
        self, table: NatTable, call: Call, tag: bytes, event: DialogEvent, now: float
    ) -> None:
        """Moves one dialog of the call on; the other side of it has this tag."""
        if call.is_ended or not _has_room(call, tag, event):
            return
        before = call.dialogs.get(tag, EARLY)
        state = next_state(before, event)
        if state is not before or tag not in call.dialogs:
            call.move(tag, state)
        if state is ENDED:
            is_early = EARLY in call.dialogs.values() and not call.is_answered
            if not call.is_confirmed and not is_early:
                self.end(table, call, now)
                return
            call.media.leave(tag)
        if state is ENDING and not call.is_in_use:
            call.expires_at = now + self.timeouts.transaction
        elif call.is_confirmed:
            if before is not state:
                self.prolong(call, now)
        elif event is PROVISIONAL:
            call.expires_at = now + self.timeouts.ringing
        if call.is_in_use and not call.is_answered:
            call.is_answered, call.answered_at = True, now
            self._unanswered.give_back(call.key.host)

    def refuse(self, table: NatTable, call: Call, now: float) -> None:
        """Ends every early dialog: a final failure answers the whole request (§16.7)."""
        for tag, state in call.dialogs.items():
            call.dialogs[tag] = next_state(state, REFUSED)
        call.follow_dialogs()
        if not call.is_confirmed:
            self.end(table, call, now)
            self._deadlines.discard(call.key)
            del self._calls[call.key]

    def end(self, table: NatTable, call: Call, now: float) -> None:
        """Closes what the call owns; the call itself is remembered for a transaction's time."""
        for binding in call.held:
            table.close(binding, call.owner, now)
        for binding in call.signalling:
            let_linger(table, binding, call.owner, self.timeouts.transaction, now)
        self._note_end(call, now)
        self._give_back(call)
        self._reviews.discard(call.key)
        call.expires_at = now + self.timeouts.transaction
        self._deadlines.put(call.key, call.expires_at)
        self._touched.add(call.key)

    def drop(self, table: NatTable, call: Call, now: float) -> None:
        """Ends a call whatever its dialogs are; late messages are told from a new call's.

        Nothing happens if it is over.
        """
        if self._calls.get(call.key) is call and not call.is_ended:
            self.end(table, call, now)
            call.dialogs.clear()
            call.follow_dialogs()

    def forget(self, binding: Binding, owners: Container[Owner]) -> None:
        """Has the calls of these owners know no more of a binding that is gone."""
        for call in self._calls.values():
            if call.owner in owners:
                call.swap(lambda each: None if each == binding else each)
                self._touched.add(call.key)

    def expire(self, table: NatTable, now: float) -> None:
        """Forgets the calls whose time is over; the table expires their bindings by itself.

        Of the others it gives up offers that nobody answered, and remotes that nobody names.
        """
        for key in self._deadlines.pop_due(now):
            call = self._calls.pop(key)
            self._reviews.discard(key)
            self._touched.add(call.key)
            if not call.is_ended:
                self._note_end(call, now)
                self._give_back(call)
        for key in self._reviews.pop_due(now):
            call = self._calls[key]
            call.media.give_up(now)
            if call.narrow_at <= now:
                call.media.is_changed = True
            self.update(table, call, now)
            self._schedule(call, now)

    def next_deadline(self) -> float | None:
        """Returns when `expire` has something to do, at the earliest."""
        deadlines = (self._deadlines.next(), self._reviews.next())
        return min((each for each in deadlines if each is not None), default=None)

    def to_review(self, now: float) -> list[Binding]:
        """Returns the media bindings of calls that end within a minute unless media flows."""
        found: list[Binding] = []
        for key in list(self._ending):
            call = self._calls.get(key)
            if call is None or not _is_ending(call, now):
                del self._ending[key]
            else:
                found += call.held
        return found

    def keep_flowing(self, table: NatTable, flowing: Set[Endpoint] | None, now: float) -> None:
        """Keeps those of `to_review` with one of these internal endpoints; None keeps all."""
        for key in list(self._ending):
            call = self._calls.get(key)
            if call is None or not _is_ending(call, now):
                continue
            if flowing is None or any(binding.internal in flowing for binding in call.held):
                call.expires_at = session_deadline(None, FLOWING, now)
                self.update(table, call, now)

    def swap(self, swap: Swap) -> None:
        """Puts other bindings in the place of those that calls have."""
        for call in self._calls.values():
            call.swap(swap)
            self._touched.add(call.key)

    def take_rows(self, *, has_all: bool) -> Iterator[tuple[str, bytes | None]]:
        """Yields the rows of what was touched."""
        standing = (call.key for call in self._calls.values())
        for key in self._touched.take(standing, has_all=has_all):
            call = self._calls.get(key)
            yield name_of(key), None if call is None else encode_row(call)

    def put_row(self, row: bytes, standing: Swap, now: float) -> None:
        """Takes a call back, with those of its bindings that still stand.

        What kept it may have passed meanwhile, so it is given the time of a review.
        """
        call = CALLS.decode(row).restore()
        call.swap(standing)
        if call.is_in_use:
            call.expires_at = max(call.expires_at, now + REVIEW)
        self._calls[call.key] = call
        if call.is_ended:
            self._deadlines.put(call.key, call.expires_at)
            return
        self._quota.add(call.key.host)
        if not call.is_answered:
            self._unanswered.add(call.key.host)
        self._schedule(call, now)

    def _rearrange(self, table: NatTable, call: Call, now: float) -> None:
        """Follows changed descriptions; what they replaced stays until late packets have come."""
        is_due = call.narrow_at <= now
        soon = now + self.timeouts.replaced_media
        held = call.media.needed()
        call.media.is_changed, call.narrow_at = False, math.inf
        for binding, earlier in call.held.items():
            remotes = held.get(binding)
            if remotes is None:
                table.refresh(binding, call.owner, soon)
            elif not is_due and remotes != earlier:
                left = tuple([each for each in earlier if each not in remotes])
                if left:
                    call.narrow_at = soon
                    held[binding] = (*remotes, *left)[:MAX_REMOTES]
        call.held = held

    def _schedule(self, call: Call, now: float) -> None:
        """Sets when to look at the call again."""
        key, until = call.key, call.expires_at
        self._deadlines.put(key, until)
        review_at = min(call.narrow_at, call.media.next_deadline())
        if call.is_in_use:
            if _is_ending(call, now):
                self._ending[key] = None
            else:
                review_at = min(review_at, until - REVIEW)
        if review_at < math.inf:
            self._reviews.put(key, review_at)

    def _note_end(self, call: Call, now: float) -> None:
        last = call.end()
        if call.is_answered:
            self._lately_ended.append((last, now))

    def _give_back(self, call: Call) -> None:
        self._quota.give_back(call.key.host)
        if not call.is_answered:
            self._unanswered.give_back(call.key.host)


def _has_room(call: Call, tag: bytes, event: DialogEvent) -> bool:
    """Whether a call may have this dialog; of too many, one that only rings gives way to a 2xx."""
    if tag in call.dialogs or len(call.dialogs) < MAX_FORKS:
        return True
    early = [each for each, state in call.dialogs.items() if state is EARLY]
    if event is not ACCEPTED or not early:
        return False
    del call.dialogs[early[0]]
    call.follow_dialogs()
    call.media.leave(early[0])
    return True


def _is_ending(call: Call, now: float) -> bool:
    """Whether a call in use has no more than a minute left."""
    return call.is_in_use and call.expires_at - REVIEW <= now
