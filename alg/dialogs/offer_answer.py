"""Offer and answer: what each party of a call has described, agreed and merely proposed (RFC 3264).

A `Party` is one side's view: the description that is agreed, and those that are proposed beside it,
offers without an answer and early answers. A refused proposal leaves what was agreed before (RFC
3261 §14.1), an accepted one replaces it, one that nobody answers is given up in time.

There is one open offer at a time (RFC 3264 §4), so whatever is agreed on later was agreed after
every earlier exchange was over: the 200 to an INVITE must not bring back what it offered before a
PRACK or UPDATE changed it. Exchanges are therefore numbered as they begin, and an answer has the
number of its offer: descriptions of one number belong together, line by line.

Values that are made for every message write their `__init__` out, as in `nat_table.binding`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from alg.sdp.session import DISCARD_PORT
from nat_table.binding import Binding
from nat_table.endpoint import TCP, UDP, Endpoint, Socket

MAX_PROPOSED = 8

Bindings = tuple[Binding, ...]

RequestId = tuple[bytes, int]
"""Which request a description is in, or answers: its sender's tag, b"" for the phone, and CSeq."""

Swap = Callable[[Binding], Binding | None]
Value = TypeVar("Value")


class Line:
    """One m= line, as the side that wrote it means it.

    `rtp` and `rtcp` are where that side wants its media: None where it names nothing that can be
    reached, such as a host name or, on hold, 0.0.0.0. `pair_count` is the number of pairs in a row.
    `is_rejected` is port 0, `is_mux` offers or accepts RTCP on the RTP port (RFC 5761). `setup`
    says of a line over TCP who connects (RFC 4145), b"" where it does not say; None over UDP.
    `media` is its type, such as b"audio". `is_two_way` says that the side sends and receives.
    """

    __slots__ = (
        "is_mux",
        "is_rejected",
        "is_two_way",
        "media",
        "pair_count",
        "rtcp",
        "rtp",
        "setup",
    )

    def __init__(
        self,
        rtp: Endpoint | None,
        rtcp: Endpoint | None,
        pair_count: int,
        is_rejected: bool,
        is_mux: bool,
        setup: bytes | None = None,
        media: bytes = b"",
        is_two_way: bool = True,
    ) -> None:
        self.rtp = rtp
        self.rtcp = rtcp
        self.pair_count = pair_count
        self.is_rejected = is_rejected
        self.is_mux = is_mux
        self.setup = setup
        self.media = media
        self.is_two_way = is_two_way

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Line) and self.fields() == other.fields()

    def fields(self) -> tuple[object, ...]:
        """Returns what it consists of, in the order in which it is made."""
        return (
            self.rtp,
            self.rtcp,
            self.pair_count,
            self.is_rejected,
            self.is_mux,
            self.setup,
            self.media,
            self.is_two_way,
        )

    def at(self, rtp: Endpoint | None, rtcp: Endpoint | None) -> Line:
        """Returns the same line with its media elsewhere."""
        return Line(
            rtp,
            rtcp,
            self.pair_count,
            self.is_rejected,
            self.is_mux,
            self.setup,
            self.media,
            self.is_two_way,
        )


class Stream:
    """A line, and the bindings that the phone has for it."""

    __slots__ = ("line", "rtcp", "rtp")

    def __init__(self, line: Line, rtp: Bindings = (), rtcp: Bindings = ()) -> None:
        self.line = line
        self.rtp = rtp
        self.rtcp = rtcp

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and self.fields() == other.fields()

    def fields(self) -> tuple[object, ...]:
        """Returns what it consists of, in the order in which it is made."""
        return (self.line, self.rtp, self.rtcp)


class Description:
    """One session description; `others` are bindings that belong to no line's own address.

    `until` is when a proposal is given up (seconds).
    """

    __slots__ = ("exchange", "others", "request", "streams", "until")

    def __init__(
        self,
        exchange: int,
        request: RequestId,
        streams: tuple[Stream, ...],
        others: Bindings = (),
        until: float = 0.0,
    ) -> None:
        self.exchange = exchange
        self.request = request
        self.streams = streams
        self.others = others
        self.until = until

    def is_same_as(self, other: Description) -> bool:
        """Whether it says the same as another one, however long either is proposed."""
        return (
            self.exchange == other.exchange
            and self.request == other.request
            and self.streams == other.streams
            and self.others == other.others
        )

    def fields(self) -> tuple[object, ...]:
        """Returns what it consists of, in the order in which it is made."""
        return (self.exchange, self.request, self.streams, self.others, self.until)

    def swapped(self, swap: Swap) -> Description:
        """Returns the description with other bindings in the place of its own."""
        streams = tuple(
            Stream(each.line, swap_all(each.rtp, swap), swap_all(each.rtcp, swap))
            for each in self.streams
        )
        others = swap_all(self.others, swap)
        return Description(self.exchange, self.request, streams, others, self.until)


NOTHING: Final = Description(0, (b"", -1), ())


@dataclass(init=False, slots=True)
class Party:
    """What one side has agreed to and proposed; `tag` is b"" for the phone."""

    tag: bytes
    agreed: Description
    proposed: list[Description]
    settled: dict[bytes, int]

    def __init__(self, tag: bytes) -> None:
        self.tag = tag
        self.agreed = NOTHING
        self.proposed = []
        self.settled = {}

    def find(self, request: RequestId) -> Description | None:
        """Returns the latest description in or for a request."""
        found = None
        for description in self.proposed:
            if description.request == request:
                found = description
        if found is None and self.agreed.request == request:
            return self.agreed
        return found

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
                return not earlier.is_same_as(description)
        self.proposed.append(description)
        del self.proposed[:-MAX_PROPOSED]
        return True

    def prolong(self, request: RequestId, until: float) -> None:
        """Gives what is proposed in or for a request more time."""
        for description in self.proposed:
            if description.request == request:
                description.until = until

    def settle(self, description: Description) -> bool:
        """Agrees on a final answer; returns whether anything has changed."""
        asker, cseq = request = description.request
        settled = self.settled.get(asker, -1)
        if cseq < settled or (cseq == settled and request != self.agreed.request):
            return False
        dropped = self._drop(request)
        self.settled[asker] = cseq
        if description.exchange < self.agreed.exchange or description.is_same_as(self.agreed):
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
        found, left = None, []
        for each in self.proposed:
            if each.request == request:
                found = each
            else:
                left.append(each)
        if found is None:
            return None
        asker, cseq = request
        self.settled[asker] = max(cseq, self.settled.get(asker, -1))
        self.proposed = left
        return found


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
        rtp = line.rtp
        if rtp is None and not line.is_rejected and held is not None:
            line = line.at(held.line.rtp, held.line.rtcp)
            streams.append(Stream(line, held.rtp, held.rtcp))
        elif rtp is not None and rtp[1] == DISCARD_PORT and held is not None:
            streams.append(Stream(line, held.rtp, held.rtcp))
        elif not bound:
            streams.append(Stream(line))
        else:
            streams.append(Stream(line, _row(line, rtp, bound), _row(line, line.rtcp, bound)))
    return tuple(streams), _others(streams, bound)


def _others(streams: list[Stream], bound: Mapping[Socket, Binding]) -> Bindings:
    """Returns the bindings that belong to none of the streams."""
    if not bound:
        return ()
    named: set[Binding] = set()
    for stream in streams:
        named.update(stream.rtp)
        named.update(stream.rtcp)
    if len(named) == len(bound) and named.issuperset(bound.values()):
        return ()
    return tuple([each for each in bound.values() if each not in named])


def swap_keys(values: Mapping[Binding, Value], swap: Swap) -> dict[Binding, Value]:
    """Returns the values of those bindings that something stands in the place of."""
    swapped = ((swap(binding), value) for binding, value in values.items())
    return {binding: value for binding, value in swapped if binding is not None}


def swap_all(bindings: Bindings, swap: Swap) -> Bindings:
    """Returns what stands in the place of each binding; those that have nothing are left out."""
    return tuple(other for other in map(swap, bindings) if other is not None)


def _row(line: Line, first: Endpoint | None, bound: Mapping[Socket, Binding]) -> Bindings:
    """Returns the bindings of every other port in the line's row (RFC 8866 §5.14)."""
    if first is None:
        return ()
    transport = UDP if line.setup is None else TCP
    if line.pair_count <= 1:
        only = bound.get((transport, first))
        return () if only is None else (only,)
    address, port = first
    row = [Endpoint(address, each) for each in range(port, port + 2 * line.pair_count, 2)]
    found = [bound.get((transport, each)) for each in row]
    return tuple([binding for binding in found if binding is not None])
