"""Subscriptions: NOTIFY must find its way for as long as one lasts (RFC 6665, RFC 3515).

The phone may be the subscriber or the notifier: either way the mapping behind its Contact is kept
for the Expires of the 2xx to SUBSCRIBE, and then for what the notifier says in Subscription-State.
A REFER subscribes to its own outcome without saying for how long. Only the answer counts that comes
from where the request was sent, and only a NOTIFY that comes from a peer of the subscription.

A subscription is known by the phone's address and the Call-ID: several in one dialog, which RFC
6665 §4.5.2 has done away with, would share one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from alg.dialogs.grants import Grants, RegistrationKey
from alg.dialogs.linger import let_linger
from alg.dialogs.offer_answer import Swap, swap_keys
from alg.dialogs.peers import Peers, is_peer, join_peers
from alg.dialogs.request_sent import RequestSent
from alg.sip.message import SipMessage
from alg.stored import SUBSCRIPTIONS, restore_keys
from nat_table.binding import Binding
from nat_table.endpoint import Endpoint
from nat_table.table import NatTable

REFER_EXPIRES = 180
MAX_ASKED = 8
MAX_CONTACTS = 8
LONGEST = 604800

# Subscription-State = substate-value *( SEMI subexp-params ), RFC 6665 §8.4
_STATE = re.compile(
    rb"\nsubscription-state[ \t]*+:[ \t]*+([A-Za-z]++)([^\r\n]*+(?:\r?\n[ \t]++[^\r\n]*+)*)",
    re.IGNORECASE,
)
_EXPIRES = re.compile(rb";[ \t\r\n]*expires[ \t]*=[ \t]*([0-9]{1,10})", re.IGNORECASE)


class Notified(NamedTuple):
    """What a NOTIFY says: whether the subscription has ended, and the seconds left, if it does."""

    is_ended: bool
    seconds: int | None


def parse_state(message: SipMessage) -> Notified | None:
    """Reads Subscription-State, None where there is none."""
    match = _STATE.search(message.data, 0, message.headers_end)
    if match is None:
        return None
    seconds = _EXPIRES.search(match[2])
    return Notified(match[1].lower() == b"terminated", int(seconds[1]) if seconds else None)


@dataclass(slots=True)
class Subscription:
    """What was asked by CSeq, the bindings that are kept, and who may send to them."""

    asked: dict[int, RequestSent] = field(default_factory=dict)
    bindings: dict[Binding, None] = field(default_factory=dict)
    peers: Peers = ()
    expires_at: float = 0.0
    is_granted: bool = False

    def keep(self, bindings: Iterable[Binding]) -> None:
        """Takes the bindings behind Contacts in; of too many the oldest run out as granted."""
        for binding in bindings:
            self.bindings.pop(binding, None)
            self.bindings[binding] = None
        for binding in list(self.bindings)[:-MAX_CONTACTS]:
            del self.bindings[binding]

    @property
    def kept(self) -> list[Binding]:
        """The bindings that are granted."""
        return list(self.bindings)

    def swap(self, swap: Swap) -> None:
        """Puts other bindings in the place of those it has; what has none is let go."""
        self.bindings = swap_keys(self.bindings, swap)


class Subscriptions(Grants[Subscription]):
    """Who has subscribed to what is no matter here: only which bindings are kept, until when."""

    def __init__(self, transaction_timeout: float, limit: int) -> None:
        super().__init__("subscription", Subscription, transaction_timeout, limit)

    def ask(
        self, key: RegistrationKey, sent: RequestSent, bindings: Iterable[Binding], now: float
    ) -> None:
        """Notes a request of the phone. Raises QuotaExceeded where the host has too many."""
        subscription = self._open(key)
        subscription.asked[sent.cseq] = sent
        if len(subscription.asked) > MAX_ASKED:
            del subscription.asked[next(iter(subscription.asked))]
        subscription.keep(bindings)
        subscription.peers = join_peers(subscription.peers, (sent.server,))
        if not subscription.is_granted:
            self._keep_until(key, subscription, now + self._transaction_timeout)
        self._touched.add(key)

    def answer(
        self,
        table: NatTable,
        key: RegistrationKey,
        answer: RequestSent,
        seconds: int | None,
        named: Iterable[Endpoint],
        now: float,
    ) -> None:
        """Grants so many seconds, or, where it is None, refuses; `named` are more peers."""
        subscription = self._grants.get(key)
        if subscription is None:
            return
        sent = subscription.asked.get(answer.cseq)
        if sent is None or not sent.is_answered_by(answer):
            return
        del subscription.asked[answer.cseq]
        self._touched.add(key)
        if seconds is None:
            if not subscription.is_granted and not subscription.asked:
                self._keep_until(key, subscription, now)
            return
        subscription.peers = join_peers(subscription.peers, named)
        self._keep(table, key, subscription, seconds, now)

    def accept(
        self,
        table: NatTable,
        key: RegistrationKey,
        peer: Endpoint,
        bindings: Iterable[Binding],
        seconds: int,
        now: float,
    ) -> None:
        """Keeps what the phone grants to a subscriber. Raises QuotaExceeded."""
        subscription = self._open(key)
        subscription.keep(bindings)
        subscription.peers = join_peers(subscription.peers, (peer,))
        self._keep(table, key, subscription, seconds, now)

    def notify(
        self,
        table: NatTable,
        key: RegistrationKey,
        sender: Endpoint | None,
        notified: Notified,
        named: Iterable[Endpoint],
        now: float,
    ) -> None:
        """Follows a NOTIFY; `sender` is None where it is the phone itself."""
        subscription = self._grants.get(key)
        if subscription is None:
            return
        if sender is not None and not is_peer(subscription.peers, sender.address):
            return
        subscription.peers = join_peers(subscription.peers, named)
        if notified.is_ended:
            self._keep(table, key, subscription, 0, now)
        elif notified.seconds is not None:
            self._keep(table, key, subscription, notified.seconds, now)

    def _decode(self, row: bytes) -> tuple[RegistrationKey, Subscription]:
        key, stored = SUBSCRIPTIONS.decode(row)
        subscription = Subscription(
            {cseq: sent.restore() for cseq, sent in stored.asked.items()},
            restore_keys(stored.bindings),
            stored.peers,
            stored.expires_at,
            stored.is_granted,
        )
        return RegistrationKey(*key), subscription

    def _keep(
        self,
        table: NatTable,
        key: RegistrationKey,
        subscription: Subscription,
        seconds: int,
        now: float,
    ) -> None:
        """Keeps the bindings so long, a week at most; 0 ends the subscription, which lingers."""
        seconds = min(seconds, LONGEST)
        owner = self._owner(key)
        subscription.is_granted = seconds > 0
        for binding in subscription.bindings:
            if seconds > 0:
                table.refresh(binding, owner, now + seconds, subscription.peers)
            else:
                let_linger(table, binding, owner, self._transaction_timeout, now)
        self._keep_until(key, subscription, now + max(seconds, self._transaction_timeout))
        self._touched.add(key)
