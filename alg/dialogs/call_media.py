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
from dataclasses import dataclass, field

from alg.dialogs.offer_answer import Description, Line, Party, RequestId, Stream, Swap, streams_of
from nat_table.binding import Binding
from nat_table.endpoint import Endpoint, Socket, is_one_family

MAX_MAPPED = 128
MAX_FORKS = 64
MAX_REMOTES = 16


@dataclass(slots=True)
class CallMedia:
    """The parties of a call, and the mappings that the phone has been given for it.

    `is_changed` says that `needed` returns something else than before.
    """

    local: Party = field(default_factory=lambda: Party(b""))
    remotes: dict[bytes, Party] = field(default_factory=dict)
    exchanges: int = 0
    mapped: dict[Socket, Binding] = field(default_factory=dict)
    is_changed: bool = False

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
        if until is None:
            self.is_changed |= party.settle(description)
        else:
            self.is_changed |= party.propose(description)
        return theirs is not None

    def remember(self, bound: Mapping[Socket, Binding]) -> None:
        """Takes note of what a description named, of the latest ones only."""
        self.mapped.update(bound)
        for socket in list(self.mapped)[: max(0, len(self.mapped) - MAX_MAPPED)]:
            del self.mapped[socket]

    def prolong(self, remote_tag: bytes, request: RequestId, until: float) -> None:
        """Gives an offer that rings more time."""
        for party in self._both(remote_tag):
            party.prolong(request, until)

    def accept(self, remote_tag: bytes, request: RequestId) -> None:
        """Agrees on what a 2xx accepts, and on the early answers that it confirms."""
        for party in self._both(remote_tag):
            self.is_changed |= party.accept(request)

    def refuse(self, remote_tag: bytes, request: RequestId) -> bool:
        """Rolls back what a failure refuses; returns whether there was anything."""
        refused = [party.refuse(request) for party in self._both(remote_tag)]
        self.is_changed |= any(refused)
        return any(refused)

    def give_up(self, now: float) -> None:
        """Rolls back every proposal that nobody has answered in time."""
        for party in (self.local, *self.remotes.values()):
            self.is_changed |= party.give_up(now)

    def next_deadline(self) -> float:
        """Returns when `give_up` has something to do; infinity where nothing is proposed."""
        parties = (self.local, *self.remotes.values())
        return min((each.until for party in parties for each in party.proposed), default=math.inf)

    def leave(self, remote_tag: bytes) -> None:
        """Forgets the party of a dialog that has ended."""
        if self.remotes.pop(remote_tag, None) is not None:
            self.is_changed = True

    def clear(self) -> None:
        """Forgets every description; `mapped` stays for late retransmissions."""
        self.local = Party(b"")
        self.remotes.clear()

    def swap(self, swap: Swap) -> None:
        """Puts other bindings in the place of those it has; what has none is still remembered."""
        self.local.swap(swap)
        self.mapped = {socket: swap(old) or old for socket, old in self.mapped.items()}

    def needed(self) -> dict[Binding, tuple[Endpoint, ...]]:
        """Returns every binding that is agreed or offered, with the remotes that may send there.

        The remotes are those of all descriptions that stand, of the latest exchange first; within
        one, what is agreed comes before what only rings.
        """
        parties = list(self.remotes.values())
        proposed = [description for party in parties for description in party.proposed]
        theirs = [each for each in (*(p.agreed for p in parties), *proposed) if each.streams]
        theirs.sort(key=lambda description: description.exchange, reverse=True)
        agreed = self.local.agreed
        answers = [each for each in theirs if each.exchange == agreed.exchange]
        found: dict[Binding, dict[Endpoint, None]] = {}
        for i, stream in enumerate(agreed.streams):
            rtp, rtcp = _kept(stream, _lines(answers, i))
            _admit(found, rtp, rtcp, _lines(theirs, i))
        for offer in self.local.proposed:
            for i, stream in enumerate(offer.streams):
                _admit(found, stream.rtp, stream.rtcp, _lines(theirs, i))
        for description in (agreed, *self.local.proposed):
            for binding in description.others:
                found.setdefault(binding, {})
        return {binding: tuple(remotes)[:MAX_REMOTES] for binding, remotes in found.items()}

    def _remote(self, tag: bytes) -> Party:
        """Returns the party of a dialog; of too many, one that has agreed on nothing gives way."""
        party = self.remotes.get(tag)
        if party is None:
            party = self.remotes[tag] = Party(tag)
            if len(self.remotes) > MAX_FORKS:
                early = (each for each, other in self.remotes.items() if not other.agreed.exchange)
                del self.remotes[next(early)]
        return party

    def _both(self, remote_tag: bytes) -> tuple[Party, ...]:
        remote = self.remotes.get(remote_tag)
        return (self.local,) if remote is None else (self.local, remote)


def _lines(descriptions: Sequence[Description], index: int) -> list[Line]:
    """Returns one line of each description, the ones on either side of it being the same media."""
    return [each.streams[index].line for each in descriptions if index < len(each.streams)]


def _kept(
    stream: Stream, answers: Sequence[Line]
) -> tuple[tuple[Binding, ...], tuple[Binding, ...]]:
    """Returns which bindings of an agreed stream the answers leave, if there are any."""
    if answers and not any(_takes(line, stream.line) for line in answers):
        return (), ()
    is_mux = (
        stream.line.is_mux and answers and all(line.is_mux or line.is_rejected for line in answers)
    )
    return stream.rtp, () if is_mux else stream.rtcp


def _takes(answer: Line, line: Line) -> bool:
    """Whether the other side takes a stream up, and connects where that was left to it."""
    return not answer.is_rejected and (line.setup != b"actpass" or answer.setup == b"active")


def _admit(
    found: dict[Binding, dict[Endpoint, None]],
    rtp: Sequence[Binding],
    rtcp: Sequence[Binding],
    lines: Sequence[Line],
) -> None:
    """Adds the bindings of a stream, and the endpoints of the other side's lines to them."""
    for bindings, endpoints in (
        (rtp, [line.rtp for line in lines]),
        (rtcp, [line.rtp if line.is_mux else line.rtcp or line.rtp for line in lines]),
    ):
        for binding in bindings:
            remotes = found.setdefault(binding, {})
            remotes.update(
                (endpoint, None)
                for endpoint in endpoints
                if endpoint is not None and is_one_family(endpoint, binding.internal)
            )
