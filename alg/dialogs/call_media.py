"""The media of one call: which bindings its descriptions need, and who may send to them.

The phone is one party, and every dialog of the call has a remote one. All forks are offered the
same ports, so the phone's description is one for all, and what the remotes say counts together.

A line that every answer of its exchange rejects (RFC 3264 §6) needs no binding, nor one over TCP
where the answers have the phone connect (RFC 4145), and one whose RTCP all answers put on the RTP
port (RFC 5761) no second one. Only the answer of the same exchange decides so: what an answer does
not say, or cannot be read, keeps everything.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from alg.dialogs.offer_answer import (
    Bindings,
    Description,
    Line,
    Party,
    RequestId,
    Stream,
    Swap,
    streams_of,
)
from nat_table.binding import Binding
from nat_table.endpoint import Endpoint, Socket, is_ipv6

MAX_MAPPED = 128
MAX_FORKS = 64
MAX_REMOTES = 16


@dataclass(init=False, slots=True)
class CallMedia:
    """The parties of a call, and the mappings that the phone has been given for it.

    `is_changed` says that `needed` returns something else than before.
    """

    local: Party
    remotes: dict[bytes, Party]
    exchanges: int
    mapped: dict[Socket, Binding]
    is_changed: bool

    def __init__(self) -> None:
        self.local = Party(b"")
        self.remotes = {}
        self.exchanges = 0
        self.mapped = {}
        self.is_changed = False

    def describe(
        self,
        remote_tag: bytes,
        is_local: bool,
        request: RequestId,
        lines: Sequence[Line],
        bound: Mapping[Socket, Binding],
        until: float | None,
    ) -> bool:
        """Takes in a description; `until` is None where it is a final answer.

        Returns whether the other party has described something in or for the same request.
        """
        party, other = self.local, self.remotes.get(remote_tag)
        if not is_local:
            party, other = self._remote(remote_tag), self.local
        theirs = other.find(request) if other is not None else None
        offer = party.find(request) or theirs
        if offer is None:
            self.exchanges += 1
        exchange = self.exchanges if offer is None else offer.exchange
        streams, others = streams_of(lines, bound, party.latest())
        description = Description(exchange, request, streams, others, until or 0.0)
        is_final = until is None
        has_changed = party.settle(description) if is_final else party.propose(description)
        self.is_changed = self.is_changed or has_changed
        return theirs is not None

    def remember(self, bound: Mapping[Socket, Binding]) -> None:
        """Takes note of what a description named, of the latest ones only."""
        mapped = self.mapped
        mapped.update(bound)
        if len(mapped) > MAX_MAPPED:
            for socket in list(mapped)[: len(mapped) - MAX_MAPPED]:
                del mapped[socket]

    def prolong(self, remote_tag: bytes, request: RequestId, until: float) -> None:
        """Gives an offer that rings more time."""
        self.local.prolong(request, until)
        remote = self.remotes.get(remote_tag)
        if remote is not None:
            remote.prolong(request, until)

    def accept(self, remote_tag: bytes, request: RequestId) -> None:
        """Agrees on what a 2xx accepts, and on the early answers that it confirms."""
        has_changed = self.local.accept(request)
        remote = self.remotes.get(remote_tag)
        if remote is not None and remote.accept(request):
            has_changed = True
        self.is_changed = self.is_changed or has_changed

    def refuse(self, remote_tag: bytes, request: RequestId) -> bool:
        """Rolls back what a failure refuses; returns whether there was anything."""
        has_changed = self.local.refuse(request)
        remote = self.remotes.get(remote_tag)
        if remote is not None and remote.refuse(request):
            has_changed = True
        self.is_changed = self.is_changed or has_changed
        return has_changed

    def give_up(self, now: float) -> None:
        """Rolls back every proposal that nobody has answered in time."""
        for party in (self.local, *self.remotes.values()):
            if party.give_up(now):
                self.is_changed = True

    def next_deadline(self) -> float:
        """Returns when `give_up` has something to do; infinity where nothing is proposed."""
        due = _first_until(self.local, math.inf)
        for party in self.remotes.values():
            due = _first_until(party, due)
        return due

    def leave(self, remote_tag: bytes) -> None:
        """Forgets the party of a dialog that has ended."""
        if self.remotes.pop(remote_tag, None) is not None:
            self.is_changed = True

    def remembered(self) -> CallMedia:
        """Returns what is left of it when the call has ended: the mappings, for late messages."""
        left = CallMedia()
        left.exchanges = self.exchanges
        left.mapped = self.mapped
        return left

    def swap(self, swap: Swap) -> None:
        """Puts other bindings in the place of those it has; what has none is still remembered."""
        self.local.swap(swap)
        self.mapped = {socket: swap(old) or old for socket, old in self.mapped.items()}

    def needed(self) -> dict[Binding, tuple[Endpoint, ...]]:
        """Returns every binding that is agreed or offered, with the remotes that may send there.

        The remotes are those of all descriptions that stand, of the latest exchange first; within
        one, what is agreed comes before what only rings.
        """
        theirs = self._theirs()
        agreed = self.local.agreed
        found: dict[Binding, list[Endpoint]] = {}
        for i, stream in enumerate(agreed.streams):
            rtp, rtcp = _kept(stream, _lines(theirs, i, agreed.exchange))
            _admit(found, rtp, rtcp, _lines(theirs, i))
        for offer in self.local.proposed:
            for i, stream in enumerate(offer.streams):
                _admit(found, stream.rtp, stream.rtcp, _lines(theirs, i))
        for description in (agreed, *self.local.proposed):
            for binding in description.others:
                found.setdefault(binding, [])
        return {binding: tuple(remotes[:MAX_REMOTES]) for binding, remotes in found.items()}

    def _theirs(self) -> list[Description]:
        """Returns what the other sides say: the latest exchange first, the agreed before others."""
        theirs = []
        for party in self.remotes.values():
            if party.agreed.streams:
                theirs.append(party.agreed)
        for party in self.remotes.values():
            for description in party.proposed:
                if description.streams:
                    theirs.append(description)
        if len(theirs) > 1:
            theirs.sort(key=_exchange_of, reverse=True)
        return theirs

    def _remote(self, tag: bytes) -> Party:
        """Returns the party of a dialog; of too many, one that has agreed on nothing gives way."""
        party = self.remotes.get(tag)
        if party is None:
            party = self.remotes[tag] = Party(tag)
            if len(self.remotes) > MAX_FORKS:
                early = (each for each, other in self.remotes.items() if not other.agreed.exchange)
                del self.remotes[next(early)]
        return party


def _exchange_of(description: Description) -> int:
    return description.exchange


def _first_until(party: Party, due: float) -> float:
    for description in party.proposed:
        if description.until < due:
            due = description.until
    return due


def _lines(descriptions: list[Description], index: int, exchange: int | None = None) -> list[Line]:
    """Returns one line of each description, the ones on either side of it being the same media.

    With an `exchange` only of those that have this number.
    """
    lines = []
    for each in descriptions:
        if index < len(each.streams) and (exchange is None or each.exchange == exchange):
            lines.append(each.streams[index].line)
    return lines


def _kept(stream: Stream, answers: list[Line]) -> tuple[Bindings, Bindings]:
    """Returns which bindings of an agreed stream the answers leave, if there are any."""
    if not answers:
        return stream.rtp, stream.rtcp
    is_taken, is_mux = False, stream.line.is_mux
    for answer in answers:
        is_taken = is_taken or _takes(answer, stream.line)
        is_mux = is_mux and (answer.is_mux or answer.is_rejected)
    if not is_taken:
        return (), ()
    return stream.rtp, () if is_mux else stream.rtcp


def _takes(answer: Line, line: Line) -> bool:
    """Whether the other side takes a stream up, and connects where that was left to it."""
    return not answer.is_rejected and (line.setup != b"actpass" or answer.setup == b"active")


def _admit(
    found: dict[Binding, list[Endpoint]], rtp: Bindings, rtcp: Bindings, lines: list[Line]
) -> None:
    """Adds the bindings of a stream, and the endpoints of the other side's lines to them."""
    for binding in rtp:
        remotes = found.setdefault(binding, [])
        for line in lines:
            _add(remotes, line.rtp, binding)
    for binding in rtcp:
        remotes = found.setdefault(binding, [])
        for line in lines:
            _add(remotes, line.rtp if line.is_mux else line.rtcp or line.rtp, binding)


def _add(remotes: list[Endpoint], endpoint: Endpoint | None, binding: Binding) -> None:
    """Adds an endpoint, once, if it is of the binding's family."""
    if endpoint is None or endpoint in remotes:
        return
    if is_ipv6(endpoint[0]) is is_ipv6(binding.internal[0]):
        remotes.append(endpoint)
