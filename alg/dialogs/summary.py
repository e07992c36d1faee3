"""A call as whoever looks at it sees it: its state, and what its media needs, as plain values.

Of a call that has ended it tells what it was just before (`Call.end`).
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from alg.dialogs.call import Call, CallKey
from alg.dialogs.offer_answer import Bindings, Description, Line
from alg.dialogs.origin import Origin
from alg.dialogs.peers import Peers
from nat_table.binding import Binding


class CallPhase(enum.Enum):
    """Where a call stands; the value is what the command line prints."""

    RINGING = "ringing"
    UP = "up"
    HELD = "held"
    ENDING = "ending"
    ENDED = "ended"


class StreamSummary(NamedTuple):
    """One m= line: "audio" or the like, b"" where nobody knows; and the bindings that it has.

    `is_two_way` says that both sides have agreed to send and to receive (RFC 3264 §6.1).
    """

    media: bytes
    rtp: Bindings
    rtcp: Bindings = ()
    is_two_way: bool = False


class CallSummary(NamedTuple):
    """A call at one moment; all times in seconds.

    `remote` is the address of its latest signalling peer. `remotes` has every media binding, with
    whom signalling has named for it.
    """

    key: CallKey
    origin: Origin
    phase: CallPhase
    remote: str | None
    answered_at: float | None
    ended_at: float | None
    streams: tuple[StreamSummary, ...]
    remotes: Mapping[Binding, Peers]


def summarise(call: Call, ended_at: float | None = None) -> CallSummary:
    """Returns the summary of a call that stands, or that ends at that time."""
    streams = tuple(_streams(call))
    return CallSummary(
        call.key,
        call.origin,
        CallPhase.ENDED if ended_at is not None else _phase(call, streams),
        call.peers[0].address if call.peers else None,
        call.answered_at,
        ended_at,
        streams,
        dict(call.held),
    )


def _phase(call: Call, streams: tuple[StreamSummary, ...]) -> CallPhase:
    if call.is_in_use:
        is_held = bool(streams) and not any(each.is_two_way for each in streams)
        return CallPhase.HELD if is_held else CallPhase.UP
    return CallPhase.ENDING if call.is_confirmed else CallPhase.RINGING


def _streams(call: Call) -> Iterator[StreamSummary]:
    """Yields the lines that have bindings, then the bindings that belong to no line."""
    description = call.media.local.agreed
    if not description.exchange and call.media.local.proposed:
        description = call.media.local.proposed[-1]
    parties = call.media.remotes.values()
    answers = [each.agreed for each in parties if each.agreed.exchange == description.exchange]
    left = dict.fromkeys(call.held)
    for i, stream in enumerate(description.streams):
        rows = (stream.rtp, stream.rtcp)
        rtp, rtcp = (tuple(each for each in row if each in call.held) for row in rows)
        if rtp or rtcp:
            is_two_way = _is_two_way(stream.line, answers, i)
            yield StreamSummary(stream.line.media, rtp, rtcp, is_two_way)
            for binding in (*rtp, *rtcp):
                left.pop(binding, None)
    for binding in left:
        yield StreamSummary(b"", (binding,))


def _is_two_way(line: Line, answers: list[Description], index: int) -> bool:
    """Whether a line says so, and one of those on the other side that anybody could read."""
    others = [each.streams[index].line for each in answers if index < len(each.streams)]
    return line.is_two_way and (not others or any(each.is_two_way for each in others))
