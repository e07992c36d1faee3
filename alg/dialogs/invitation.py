"""Inbound INVITEs that the phone has not answered yet.

A call begins with the phone's answer, because its key has the phone's tag. What the INVITE said of
the other side (its description, and whom its requests may come from) waits here for it. Nothing is
refused: of too many the oldest is forgotten, and then the call just knows less.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from alg.dialogs.deadlines import Deadlines
from alg.dialogs.offer_answer import Line, Swap
from alg.dialogs.peers import Peers
from alg.dialogs.rows import Touched, name_of
from alg.stored import INVITATIONS, encode_row


class InvitationKey(NamedTuple):
    """The invited phone's address, the Call-ID, and the tag of the other side."""

    host: str
    call_id: bytes
    remote_tag: bytes


class Invitation(NamedTuple):
    """What the latest INVITE said: its CSeq, the lines it offers, who it came from.

    `begun_at` is when the first one came, None where an earlier release has stored it.
    """

    cseq: int
    lines: tuple[Line, ...]
    peers: Peers
    expires_at: float
    begun_at: float | None = None


class Invitations:
    """The invitations of every host, `limit` for each."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._hosts: dict[str, dict[InvitationKey, Invitation]] = {}
        self._deadlines: Deadlines[InvitationKey] = Deadlines()
        self._touched: Touched[InvitationKey] = Touched()

    def __len__(self) -> int:
        return sum(map(len, self._hosts.values()))

    def limit(self, limit: int) -> None:
        """Keeps so many for each host from now on."""
        self._limit = limit

    def find(self, key: InvitationKey) -> Invitation | None:
        """Returns the invitation, None where there is none."""
        return self._hosts.get(key.host, {}).get(key)

    def note(self, key: InvitationKey, invitation: Invitation) -> None:
        """Takes an INVITE in; one that came before with the same or a higher CSeq stays."""
        known = self.find(key)
        if known is not None and known.cseq > invitation.cseq:
            return
        if known is not None and known.cseq == invitation.cseq:
            invitation = known._replace(expires_at=invitation.expires_at)
        elif known is not None:
            invitation = invitation._replace(begun_at=known.begun_at)
        invitations = self._hosts.setdefault(key.host, {})
        invitations[key] = invitation
        self._deadlines.put(key, invitation.expires_at)
        self._touched.add(key)
        if len(invitations) > self._limit:
            self.drop(next(iter(invitations)))

    def drop(self, key: InvitationKey) -> None:
        """Forgets an invitation; nothing happens if there is none."""
        invitations = self._hosts.get(key.host, {})
        if invitations.pop(key, None) is None:
            return
        self._deadlines.discard(key)
        self._touched.add(key)
        if not invitations:
            del self._hosts[key.host]

    def expire(self, now: float) -> None:
        """Forgets what nobody has answered."""
        for key in self._deadlines.pop_due(now):
            self.drop(key)

    def next_deadline(self) -> float | None:
        """Returns when `expire` has something to do, at the earliest."""
        return self._deadlines.next()

    def take_rows(self, *, has_all: bool) -> Iterator[tuple[str, bytes | None]]:
        """Yields the rows of what was touched."""
        standing = (key for invitations in self._hosts.values() for key in invitations)
        for key in self._touched.take(standing, has_all=has_all):
            found = self.find(key)
            yield name_of(key), encode_row((key, found)) if found else None

    def put_row(self, row: bytes, standing: Swap, now: float) -> None:
        """Takes a row back."""
        key, stored = INVITATIONS.decode(row)
        lines = tuple(Line(*line) for line in stored.lines)
        invitation = Invitation(
            stored.cseq, lines, stored.peers, stored.expires_at, stored.begun_at
        )
        self.note(InvitationKey(*key), invitation)
