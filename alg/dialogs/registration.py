"""Registrations: a signalling binding lives as long as the registrar says (RFC 3261 §10).

A REGISTER only asks. The binding's lifetime is what the 2xx grants: the expires parameter of the
Contact, else the Expires field, else an hour (§10.2.4). Challenges, 423 and failures change
nothing. A registration is known by the phone's address and the Call-ID, never by the user's name:
two phones may share one account.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from alg.dialogs.deadlines import Deadlines
from alg.dialogs.quota import HostQuota
from nat_table.binding import Binding, Owner
from nat_table.table import NatTable

DEFAULT_EXPIRES = 3600
MAX_ASKED = 8

Key = tuple[str, bytes]


@dataclass(slots=True)
class Asked:
    """What one request asked for: seconds by binding, 0 for those it wants gone.

    `is_wildcard` is "Contact: *" (§10.2.2).
    """

    lifetimes: Mapping[Binding, int]
    is_wildcard: bool


class Answer(NamedTuple):
    """Which request a final response answers, and how."""

    host: str
    call_id: bytes
    cseq: int
    status: int


@dataclass(slots=True)
class _Registration:
    asked: dict[int, Asked] = field(default_factory=dict)
    granted: dict[Binding, None] = field(default_factory=dict)


class Registrations:
    """Who is registered, and until when; `scope` is the name under which they own bindings.

    A subscription is granted the same way (RFC 6665 §4.2.1.1): its notifier sends to the Contact
    until Expires is over.
    """

    def __init__(self, scope: str, transaction_timeout: float, limit: int) -> None:
        self._scope = scope
        self._quota = HostQuota(f"{scope}s", limit)
        self._transaction_timeout = transaction_timeout
        self._registrations: dict[Key, _Registration] = {}
        self._deadlines: Deadlines[Key] = Deadlines()

    def __len__(self) -> int:
        return len(self._registrations)

    def ask(self, host: str, call_id: bytes, cseq: int, asked: Asked, now: float) -> None:
        """Notes a request on its way out; a retransmission changes nothing.

        Raises QuotaExceeded where the host has as many as it may.
        """
        key = (host, call_id)
        registration = self._registrations.get(key)
        if registration is None:
            self._quota.take(host)
            registration = self._registrations[key] = _Registration()
        registration.asked[cseq] = asked
        if len(registration.asked) > MAX_ASKED:
            del registration.asked[next(iter(registration.asked))]
        if not registration.granted:
            self._deadlines.put(key, now + self._transaction_timeout)

    def answer(
        self,
        table: NatTable,
        answer: Answer,
        listed: Mapping[Binding, int],
        expires: int,
        now: float,
    ) -> None:
        """Grants or ends what a final response says.

        `listed` are the host's bindings in its Contacts, `expires` what it grants where it lists
        none, both in seconds.
        """
        key = (answer.host, answer.call_id)
        registration = self._registrations.get(key)
        if registration is None or answer.cseq not in registration.asked:
            return
        asked = registration.asked.pop(answer.cseq)
        if not 200 <= answer.status < 300:
            return
        for earlier in [number for number in registration.asked if number < answer.cseq]:
            del registration.asked[earlier]
        owner = Owner(self._scope, answer.call_id.decode("utf-8", "replace"))
        last = now
        for binding in dict.fromkeys((*registration.granted, *asked.lifetimes, *listed)):
            seconds = _granted(binding, asked, listed, expires)
            if seconds is None:
                continue
            if seconds > 0:
                table.refresh(binding, owner, now + seconds)
                registration.granted[binding] = None
                last = max(last, now + seconds)
            else:
                table.close(binding, owner, now)
                registration.granted.pop(binding, None)
        self._deadlines.put(key, max(last, now + self._transaction_timeout))

    def expire(self, now: float) -> None:
        """Forgets the registrations whose time is over."""
        for key in self._deadlines.pop_due(now):
            del self._registrations[key]
            self._quota.give_back(key[0])

    def next_deadline(self) -> float | None:
        """Returns when `expire` has something to do, at the earliest."""
        return self._deadlines.next()


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
