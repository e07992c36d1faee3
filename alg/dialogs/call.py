"""One call: what a phone sees under one Call-ID and its own tag.

That is one dialog, or several where the request was forked (RFC 3261 §12.1: one early dialog for
each remote tag). The bindings of its media belong to the call as a whole, because every fork is
offered the same ports. Nothing is keyed by addresses or ports: two calls on one flow never meet.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from alg.dialogs.call_media import CallMedia
from alg.dialogs.offer_answer import Swap, swap_keys
from alg.dialogs.origin import Origin
from alg.dialogs.peers import Peers, is_peer, join_peers
from alg.dialogs.request_sent import RequestSent
from alg.dialogs.states import CONFIRMED, ENDING, DialogState
from nat_table.binding import Binding, Owner
from nat_table.endpoint import Endpoint

MAX_ATTEMPTS = 16
MAX_SIGNALLING = 8


class CallKey(NamedTuple):
    """The phone's address, the Call-ID, and the tag of the phone."""

    host: str
    call_id: bytes
    local_tag: bytes


def owner_of(key: CallKey) -> Owner:
    """Returns the name under which a call owns pinholes."""
    _, call_id, tag = key
    return Owner("call", call_id.decode("utf-8", "replace"), tag.decode("utf-8", "replace"))


@dataclass(init=False, slots=True)
class Call:
    """The dialogs of one phone under one Call-ID, and the bindings they keep.

    `attempts` are the phone's INVITEs that have no final answer yet.
    `held` are the media bindings with the remotes that the table admits to them; at `narrow_at`
    those that no description names any more are given up. `interval` is the session timer's, None
    where there is none. `is_in_use` says that a dialog is answered, and nobody has hung up yet;
    `is_confirmed` that one has been answered and not yet ended. `is_ended` says that there were
    dialogs and none is left, `is_answered` that there was a confirmed one, `answered_at` since
    when, where that is known. All times in seconds.

    `is_stale` says that the table does not know of a peer or a signalling binding, or that it is to
    be told of everything; `written_until` is the deadline that the table has, `written_era` since
    when (`Calls.rewrite`).
    """

    key: CallKey
    owner: Owner
    origin: Origin
    dialogs: dict[bytes, DialogState]
    media: CallMedia
    held: dict[Binding, Peers]
    signalling: dict[Binding, None]
    peers: Peers
    attempts: list[RequestSent]
    expires_at: float
    narrow_at: float
    interval: float | None
    answered_at: float | None
    is_answered: bool
    is_ended: bool
    is_in_use: bool
    is_confirmed: bool
    is_stale: bool
    written_until: float
    written_era: int

    def __init__(self, key: CallKey, owner: Owner, origin: Origin) -> None:
        self.key = key
        self.owner = owner
        self.origin = origin
        self.dialogs = {}
        self.media = CallMedia()
        self.held = {}
        self.signalling = {}
        self.peers = ()
        self.attempts = []
        self.expires_at = 0.0
        self.narrow_at = math.inf
        self.interval = None
        self.answered_at = None
        self.is_answered = False
        self.is_ended = False
        self.is_in_use = False
        self.is_confirmed = False
        self.is_stale = True
        self.written_until = 0.0
        self.written_era = -1

    def move(self, tag: bytes, state: DialogState) -> None:
        """Has the dialog with this tag of the other side stand there."""
        self.dialogs[tag] = state
        self.follow_dialogs()

    def follow_dialogs(self) -> None:
        """Takes in where the dialogs stand."""
        is_in_use = is_ending = False
        for state in self.dialogs.values():
            if state is CONFIRMED:
                is_in_use = True
            elif state is ENDING:
                is_ending = True
        if is_in_use is not self.is_in_use:
            self.is_stale = True
        self.is_in_use = is_in_use
        self.is_confirmed = is_in_use or is_ending

    def meet(self, peers: Iterable[Endpoint]) -> None:
        """Takes in who takes part in the signalling of the call."""
        joined = join_peers(self.peers, peers)
        if joined is not self.peers:
            self.peers = joined
            self.is_stale = True

    def knows(self, address: str) -> bool:
        """Whether signalling of the call comes from this address."""
        return is_peer(self.peers, address)

    def hear_at(self, binding: Binding) -> None:
        """Notes where the phone takes signalling, the latest last."""
        signalling = self.signalling
        if binding not in signalling:
            self.is_stale = True
        elif len(signalling) == 1:
            return
        else:
            del signalling[binding]
        signalling[binding] = None

    def attempt(self, sent: RequestSent) -> None:
        """Notes an INVITE on its way out; a retransmission changes nothing."""
        if sent not in self.attempts:
            self.attempts.append(sent)
            if len(self.attempts) > MAX_ATTEMPTS:
                del self.attempts[0]

    def fail(self, answer: RequestSent) -> bool:
        """Takes in a failure; returns whether no INVITE is left that may be accepted.

        One that is sent again because its ACK was lost has failed before and says nothing.
        """
        left = [sent for sent in self.attempts if not sent.is_answered_by(answer)]
        is_last = not left and bool(self.attempts)
        self.attempts = left
        return is_last

    def end(self) -> Call:
        """Lets go of everything but what late messages need; returns a call that has it instead."""
        last = Call(self.key, self.owner, self.origin)
        last.peers, last.answered_at = self.peers, self.answered_at
        last.media, last.held = self.media, self.held
        self.is_ended = True
        self.media = self.media.remembered()
        self.held = {}
        self.signalling = {}
        return last

    def swap(self, swap: Swap) -> None:
        """Puts other bindings in the place of those it has; what has none is let go."""
        self.media.swap(swap)
        self.held = swap_keys(self.held, swap)
        self.signalling = swap_keys(self.signalling, swap)
        self.is_stale = True
