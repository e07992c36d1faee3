"""Registrations: a signalling binding lives as long as the registrar says (RFC 3261 §10).

A REGISTER only asks. The binding's lifetime is what the 2xx grants: the expires parameter of the
Contact, else the Expires field, else an hour (§10.2.4). Challenges, 423 and failures change
nothing. Only the answer counts that comes from where the REGISTER was sent, with its branch. A
registration is known by the phone's address and the Call-ID, never by the user's name: two phones
may share one account.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from alg.dialogs.grants import Grants, RegistrationKey
from alg.dialogs.linger import let_linger
from alg.dialogs.offer_answer import Swap, swap_keys
from alg.dialogs.peers import Peers, join_peers
from alg.dialogs.request_sent import RequestSent
from alg.stored import REGISTRATIONS, restore_keys
from alg.verdict import Step
from nat_table.binding import Binding
from nat_table.table import NatTable

DEFAULT_EXPIRES = 3600
MAX_ASKED = 8


@dataclass(slots=True)
class Asked:
    """What one request asked for: seconds by binding, 0 for those it wants gone.

    `is_wildcard` is "Contact: *" (§10.2.2), `user` the address-of-record (§10.2, To).
    """

    sent: RequestSent
    lifetimes: Mapping[Binding, int]
    is_wildcard: bool
    user: str = ""


@dataclass(slots=True)
class Registration:
    """What was asked by CSeq, what is granted until when, by which registrars, to which user."""

    asked: dict[int, Asked] = field(default_factory=dict)
    granted: dict[Binding, float] = field(default_factory=dict)
    registrars: Peers = ()
    expires_at: float = 0.0
    user: str = ""

    @property
    def kept(self) -> list[Binding]:
        """The bindings that are granted."""
        return list(self.granted)

    def swap(self, swap: Swap) -> None:
        """Puts other bindings in the place of those it has; what has none is let go."""
        self.granted = swap_keys(self.granted, swap)
        for asked in self.asked.values():
            asked.lifetimes = swap_keys(asked.lifetimes, swap)


class Registrations(Grants[Registration]):
    """Who is registered, and until when."""

    def __init__(self, transaction_timeout: float, limit: int) -> None:
        super().__init__("registration", Registration, transaction_timeout, limit)

    def ask(self, key: RegistrationKey, asked: Asked, now: float) -> None:
        """Notes a request on its way out; a retransmission changes nothing.

        Raises QuotaExceeded where the host has as many as it may.
        """
        registration = self._open(key)
        registration.asked[asked.sent.cseq] = asked
        if len(registration.asked) > MAX_ASKED:
            del registration.asked[next(iter(registration.asked))]
        if not registration.granted:
            self._keep_until(key, registration, now + self._transaction_timeout)
        self._touched.add(key)

    def answer(
        self,
        table: NatTable,
        key: RegistrationKey,
        answer: RequestSent,
        status: int,
        listed: Mapping[Binding, int],
        expires: int,
        now: float,
    ) -> Step | None:
        """Grants or ends what a final response says; returns which of them, if it does.

        `listed` are the host's bindings in its Contacts, `expires` what it grants where it lists
        none, both in seconds.
        """
        registration = self._grants.get(key)
        if registration is None:
            return None
        asked = registration.asked.get(answer.cseq)
        if asked is None or not asked.sent.is_answered_by(answer):
            return None
        self._touched.add(key)
        del registration.asked[answer.cseq]
        if not 200 <= status < 300:
            return None
        for earlier in [number for number in registration.asked if number < answer.cseq]:
            del registration.asked[earlier]
        registration.user = asked.user
        registration.registrars = join_peers(registration.registrars, (asked.sent.server,))
        owner, granted = self._owner(key), registration.granted
        step = None
        for binding in dict.fromkeys((*granted, *asked.lifetimes)):
            seconds = _granted(binding, asked, listed, expires)
            if seconds is None:
                continue
            if seconds > 0:
                step = Step.REGISTERED
                granted[binding] = now + seconds
                table.refresh(binding, owner, now + seconds, registration.registrars)
            else:
                step = step or Step.UNREGISTERED
                let_linger(table, binding, owner, self._transaction_timeout, now)
                granted.pop(binding, None)
        granted = {binding: until for binding, until in granted.items() if until > now}
        registration.granted = granted
        last = max(granted.values(), default=now)
        self._keep_until(key, registration, max(last, now + self._transaction_timeout))
        return step

    def registered(self) -> list[Binding]:
        """Returns the bindings that some registration has been granted, each once."""
        standing = self._grants.values()
        return list(dict.fromkeys(each for one in standing for each in one.granted))

    def _decode(self, row: bytes) -> tuple[RegistrationKey, Registration]:
        key, stored = REGISTRATIONS.decode(row)
        registration = Registration(
            {
                cseq: Asked(
                    each.sent.restore(), restore_keys(each.lifetimes), each.is_wildcard, each.user
                )
                for cseq, each in stored.asked.items()
            },
            restore_keys(stored.granted),
            stored.registrars,
            stored.expires_at,
            stored.user,
        )
        return RegistrationKey(*key), registration

    def all(self) -> Iterator[tuple[RegistrationKey, Registration]]:
        """Iterates over the registrations that stand at the time of the call."""
        return iter(list(self._grants.items()))


def _granted(
    binding: Binding, asked: Asked, listed: Mapping[Binding, int], expires: int
) -> int | None:
    """Returns the seconds a 2xx grants a binding, 0 where it is gone, None where it says nothing.

    A registrar that answers without listing Contacts has still granted what was asked for.
    """
    if binding in listed:
        return listed[binding]
    if asked.is_wildcard or asked.lifetimes.get(binding) == 0:
        return 0
    if binding in asked.lifetimes:
        return expires
    return 0 if listed else None
