"""Offer and answer: what each party of a call has described, agreed and merely proposed (RFC 3264).

A `Party` is one side's view: the description that is agreed, and those that are proposed beside it,
offers without an answer and early answers. A refused proposal leaves what was agreed before (RFC
3261 §14.1), an accepted one replaces it, one that nobody answers is given up in time.

There is one open offer at a time (RFC 3264 §4), so whatever is agreed on later was agreed after
every earlier exchange was over: the 200 to an INVITE must not bring back what it offered before a
PRACK or UPDATE changed it. Exchanges are therefore numbered as they begin, and an answer has the
number of its offer: descriptions of one number belong together, line by line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from alg.sdp.session import DISCARD_PORT
from nat_table.binding import Binding
from nat_table.endpoint import TCP, UDP, Endpoint, Socket

MAX_PROPOSED = 8

Bindings = tuple[Binding, ...]
Swap = Callable[[Binding], Binding | None]
Value = TypeVar("Value")


class Line(NamedTuple):
    """One m= line, as the side that wrote it means it.

    `rtp` and `rtcp` are where that side wants its media: None where it names nothing that can be
    reached, such as a host name or, on hold, 0.0.0.0. `pair_count` is the number of pairs in a row.
    `is_rejected` is port 0, `is_mux` offers or accepts RTCP on the RTP port (RFC 5761). `setup`
    says of a line over TCP who connects (RFC 4145), b"" where it does not say; None over UDP.
    `media` is its type, such as b"audio". `is_two_way` says that the side sends and receives.
    """

    rtp: Endpoint | None
    rtcp: Endpoint | None
    pair_count: int
    is_rejected: bool
    is_mux: bool
    setup: bytes | None = None
    media: bytes = b""
    is_two_way: bool = True


class Stream(NamedTuple):
    """A line, and the bindings that the phone has for it."""

    line: Line
    rtp: Bindings = ()
    rtcp: Bindings = ()


class RequestId(NamedTuple):
    """The request that a description stands in or answers; its sender's tag, b"" for the phone."""

    asker: bytes
    cseq: int


class Description(NamedTuple):
    """One session description; `others` are bindings that belong to no line's own address.

    `until` is when a proposal is given up (seconds).
    """

    exchange: int
    request: RequestId
    streams: tuple[Stream, ...]
    others: Bindings = ()
    until: float = 0.0

    def bindings(self) -> Iterator[Binding]:
        """Yields every binding of the description."""
        for stream in self.streams:
            yield from stream.rtp
            yield from stream.rtcp
        yield from self.others

    def swapped(self, swap: Swap) -> Description:
        """Returns the description with other bindings in the place of its own."""
        streams = tuple(
            Stream(line, swap_all(rtp, swap), swap_all(rtcp, swap))
            for line, rtp, rtcp in self.streams
        )
        return self._replace(streams=streams, others=swap_all(self.others, swap))


NOTHING = Description(0, RequestId(b"", -1), ())


@dataclass(slots=True)
class Party:
    """What one side has agreed to and proposed; `tag` is b"" for the phone."""

    tag: bytes
    agreed: Description = NOTHING
    proposed: list[Description] = field(default_factory=list)
    settled: dict[bytes, int] = field(default_factory=dict)

    def find(self, request: RequestId) -> Description | None:
        """Returns the latest description in or for a request."""
        for description in reversed(self.proposed):
            if description.request == request:
                return description
        return self.agreed if self.agreed.request == request else None

    def latest(self) -> Description:
        """Returns what a new description goes on from, line by line."""
        return self.proposed[-1] if self.proposed and not self.agreed.exchange else self.agreed

    def propose(self, description: Description) -> bool:
        """Takes in an offer or an early answer; returns whether anything has changed.

        A retransmission moves the time only, and does nothing once its request is settled. Several
        early answers may stand beside each other, of many proposals the oldest is given up.
        """
        asker, cseq = request = description.request
        if cseq <= self.settled.get(asker, -1):
            return False
        for i, earlier in enumerate(self.proposed):
            if earlier.request == request and (
                asker == self.tag or earlier.streams == description.streams
            ):
                self.proposed[i] = description
                return earlier._replace(until=description.until) != description
        self.proposed.append(description)
        del self.proposed[:-MAX_PROPOSED]
        return True

    def prolong(self, request: RequestId, until: float) -> None:
        """Gives what is proposed in or for a request more time."""
        for i, description in enumerate(self.proposed):
            if description.request == request:
                self.proposed[i] = description._replace(until=until)

    def settle(self, description: Description) -> bool:
        """Agrees on a final answer; returns whether anything has changed."""
        asker, cseq = request = description.request
        settled = self.settled.get(asker, -1)
        if cseq < settled or (cseq == settled and request != self.agreed.request):
            return False
        dropped = self._drop(request)
        self.settled[asker] = cseq
        if description.exchange < self.agreed.exchange or description == self.agreed:
            return dropped is not None
        self.agreed = description
        return True

    def accept(self, request: RequestId) -> bool:
        """Agrees on what is proposed in or for a request; returns whether anything has changed."""
        dropped = self._drop(request)
        if dropped is not None and dropped.exchange >= self.agreed.exchange:
            self.agreed = dropped
        return dropped is not None

    def refuse(self, request: RequestId) -> bool:
        """Rolls back what is proposed for a request; returns whether anything has changed."""
        return self._drop(request) is not None

    def give_up(self, now: float) -> bool:
        """Drops what nobody has answered in time; returns whether there was any."""
        before = len(self.proposed)
        self.proposed = [each for each in self.proposed if each.until > now]
        return len(self.proposed) < before

    def swap(self, swap: Swap) -> None:
        """Puts other bindings in the place of those it has."""
        self.agreed = self.agreed.swapped(swap)
        self.proposed = [each.swapped(swap) for each in self.proposed]

    def _drop(self, request: RequestId) -> Description | None:
        """Closes a request; returns the latest of what was proposed in or for it."""
        found = [each for each in self.proposed if each.request == request]
        if not found:
            return None
        asker, cseq = request
        self.settled[asker] = max(cseq, self.settled.get(asker, -1))
        self.proposed = [each for each in self.proposed if each.request != request]
        return found[-1]


def streams_of(
    lines: Sequence[Line], bound: Mapping[Socket, Binding], before: Description
) -> tuple[tuple[Stream, ...], Bindings]:
    """Returns the streams of a description, and the bindings that belong to none.

    A line on hold, which names no address, goes on with what it had before; so does one over TCP
    which names no port, for it may go on with the connection it has.
    """
    streams = []
    for i, line in enumerate(lines):
        held = before.streams[i] if i < len(before.streams) else None
        if line.rtp is None and not line.is_rejected and held is not None:
            streams.append(
                held._replace(line=line._replace(rtp=held.line.rtp, rtcp=held.line.rtcp))
            )
        elif line.rtp is not None and line.rtp.port == DISCARD_PORT and held is not None:
            streams.append(held._replace(line=line))
        else:
            streams.append(Stream(line, _row(line, line.rtp, bound), _row(line, line.rtcp, bound)))
    named = {each for stream in streams for each in (*stream.rtp, *stream.rtcp)}
    return tuple(streams), tuple(each for each in bound.values() if each not in named)


def swap_keys(values: Mapping[Binding, Value], swap: Swap) -> dict[Binding, Value]:
    """Returns the values of those bindings that something stands in the place of."""
    swapped = ((swap(binding), value) for binding, value in values.items())
    return {binding: value for binding, value in swapped if binding is not None}


def swap_all(bindings: Bindings, swap: Swap) -> Bindings:
    """Returns what stands in the place of each binding; those that have nothing are left out."""
    return tuple(other for other in map(swap, bindings) if other is not None)


def _row(line: Line, first: Endpoint | None, bound: Mapping[Socket, Binding]) -> Bindings:
    """Returns the bindings of every other port in the line's row (RFC 8866 §5.14)."""
    if first is None or not bound:
        return ()
    (address, port), count = first, line.pair_count
    transport = UDP if line.setup is None else TCP
    row = range(port, port + 2 * count, 2) if count > 1 else (port,)
    found = (bound.get((transport, Endpoint(address, each))) for each in row)
    return tuple(binding for binding in found if binding is not None)
