"""One call: what a phone sees under one Call-ID and its own tag.

That is one dialog, or several where the request was forked (RFC 3261 §12.1: one early dialog for
each remote tag). The bindings of its media belong to the call as a whole, because every fork is
offered the same ports. Nothing is keyed by addresses or ports: two calls on one flow never meet.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from alg.dialogs.call_media import CallMedia
from alg.dialogs.offer_answer import Swap, swap_keys
from alg.dialogs.origin import NO_ORIGIN, Origin
from alg.dialogs.peers import Peers, is_peer
from alg.dialogs.registration import RequestSent
from alg.dialogs.states import DialogState
from nat_table.binding import Binding, Owner

MAX_ATTEMPTS = 16
MAX_SIGNALLING = 8


class CallKey(NamedTuple):
    """The phone's address, the Call-ID, and the tag of the phone."""

    host: str
    call_id: bytes
    local_tag: bytes


def owner_of(key: CallKey) -> Owner:
    """Returns the name under which a call owns pinholes."""
    call_id, tag = key.call_id.decode("utf-8", "replace"), key.local_tag.decode("utf-8", "replace")
    return Owner("call", call_id, tag)


@dataclass(slots=True)
class Call:
    """The dialogs of one phone under one Call-ID, and the bindings they keep.

    `attempts` are the phone's INVITEs that have no final answer yet.
    `held` are the media bindings with the remotes that the table admits to them; at `narrow_at`
    those that no description names any more are given up. `interval` is the session timer's, None
    where there is none. `is_ended` says that there were dialogs and none is left, `is_answered`
    that there was a confirmed one, `answered_at` since when, where that is known. All times in
    seconds.
    """

    key: CallKey
    owner: Owner
    dialogs: dict[bytes, DialogState] = field(default_factory=dict)
    media: CallMedia = field(default_factory=CallMedia)
    held: dict[Binding, Peers] = field(default_factory=dict)
    signalling: dict[Binding, None] = field(default_factory=dict)
    peers: Peers = ()
    attempts: list[RequestSent] = field(default_factory=list)
    expires_at: float = 0.0
    narrow_at: float = math.inf
    interval: float | None = None
    is_answered: bool = False
    is_ended: bool = False
    origin: Origin = NO_ORIGIN
    answered_at: float | None = None

    @property
    def is_in_use(self) -> bool:
        """Whether a dialog of the call is answered, and nobody has hung up yet."""
        return DialogState.CONFIRMED in self.dialogs.values()

    @property
    def is_confirmed(self) -> bool:
        """Whether a dialog of the call has been answered and not yet ended."""
        return self.is_in_use or DialogState.ENDING in self.dialogs.values()

    def knows(self, address: str) -> bool:
        """Whether signalling of the call comes from this address."""
        return is_peer(self.peers, address)

    def hear_at(self, bindings: Iterable[Binding]) -> None:
        """Notes where the phone takes signalling, the latest last."""
        for binding in bindings:
            self.signalling.pop(binding, None)
            self.signalling[binding] = None

    def attempt(self, sent: RequestSent) -> None:
        """Notes an INVITE on its way out; a retransmission changes nothing."""
        if sent not in self.attempts:
            self.attempts.append(sent)
            del self.attempts[:-MAX_ATTEMPTS]

    def fail(self, answer: RequestSent) -> bool:
        """Takes in a failure; returns whether no INVITE is left that may be accepted.

        One that is sent again because its ACK was lost has failed before and says nothing.
        """
        left = [sent for sent in self.attempts if not sent.is_answered_by(answer)]
        is_last = not left and bool(self.attempts)
        self.attempts = left
        return is_last

    def swap(self, swap: Swap) -> None:
        """Puts other bindings in the place of those it has; what has none is let go."""
        self.media.swap(swap)
        self.held = swap_keys(self.held, swap)
        self.signalling = swap_keys(self.signalling, swap)
