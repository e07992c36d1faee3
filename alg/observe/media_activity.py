"""What the kernel has seen of media: how much each mapping has carried, and who has fallen silent.

Samples come every few seconds. What a mapping has carried is the sum of what its flows have gained
from one sample to the next: a flow that conntrack has forgotten comes again and counts from 0.

A side is silent when neither RTP nor RTCP of it has moved for `PATIENCE`, in a stream where both
sides have agreed to send: not before the answer, nor on hold, nor where one only listens. Video,
text and the like rest for other reasons, so only audio is listened to. A phone that is muted, or
suppresses silence, goes on with RTCP; one that does not, and pauses, is waited for twice as long as
it has paused before. A stream is a suspect if one side is silent and the other is not: where both
are, nobody may have anything to say, or media goes another way.

A phone that is accused may send from another port than it has signalled (RFC 4961 is not for all):
that flow has no mapping, so whoever can look for it is asked before the sample ends. Each is asked
about in turn, and none is named silent before.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from alg.dialogs.call import CallKey
from alg.dialogs.summary import CallPhase, CallSummary, StreamSummary
from nat_table.binding import Binding
from nat_table.endpoint import Endpoint, Socket, Transport

PATIENCE = 8.0
MAX_PATIENCE = 60.0

Counts = tuple[int, int, int, int]
"""Packets and bytes that an internal socket has sent, packets and bytes that it was sent."""


class Carried(NamedTuple):
    """Packets and bytes from the internal host, and to it."""

    sent: int = 0
    sent_bytes: int = 0
    received: int = 0
    received_bytes: int = 0

    def plus(self, other: Carried) -> Carried:
        """Returns both together."""
        return Carried(*(mine + more for mine, more in zip(self, other, strict=True)))


class Silence(NamedTuple):
    """Since when the phone and the remote of a stream are silent; None of who is not."""

    phone: float | None = None
    remote: float | None = None

    @property
    def is_one_way(self) -> bool:
        """Whether one side is silent and the other is not."""
        return (self.phone is None) is not (self.remote is None)


_TALK = Silence()


class Accused(NamedTuple):
    """A phone that is not heard though its remotes are, and where it should send from."""

    internal: Endpoint
    remotes: tuple[Endpoint, ...]
    listener: _Listener


class MediaActivity:
    """What every media mapping has carried, and which streams are silent.

    A sample is `begin`, `see` for every call that stands, `see_ended` for every one that is still
    shown, `judge` for as many of the `accused` as can be looked for, `finish`. `suspects` is the
    number of streams where one side is silent, `total` what all mappings have carried.
    """

    def __init__(self) -> None:
        self.suspects = 0
        self.total = Carried()
        self.sampled_at = -math.inf
        self._accused: list[Accused] = []
        self._sockets: dict[Binding, _SocketActivity] = {}
        self._streams: dict[tuple[CallKey, Binding], _Listener] = {}
        self._traffic: Mapping[Socket, Counts] = {}
        self._now = self._before = -math.inf
        self._seen: dict[Binding, _SocketActivity] = {}
        self._heard: dict[tuple[CallKey, Binding], _Listener] = {}
        self._followed: set[Socket] = set()
        self._outside: set[Socket] = set()

    def begin(self, traffic: Mapping[Socket, Counts], now: float) -> None:
        """Begins a sample: what the live flows of each socket have carried."""
        self._traffic, self._before, self._now = traffic, self._now, now
        self._seen, self._heard, self._followed = {}, {}, set()
        self._accused = []

    def see(self, call: CallSummary) -> None:
        """Takes in a call that stands."""
        for stream in call.streams:
            for binding in (*stream.rtp, *stream.rtcp):
                self._follow(binding)
            if call.phase is CallPhase.UP and _is_expected(stream):
                self._listen(call, stream)

    def see_ended(self, call: CallSummary) -> None:
        """Takes in a call that has ended; what it has carried since the last sample still counts.

        Not what a later call at the same sockets has.
        """
        for binding in _bindings(call):
            activity = self._sockets.get(binding)
            is_late = has_ended_since(call, self._before)
            if is_late and (binding.transport, binding.internal) not in self._followed:
                self._follow(binding)
            elif activity is not None:
                self._seen.setdefault(binding, activity)

    @property
    def accused(self) -> list[Accused]:
        """The phones that seem silent, first whom nobody has looked for, or not for longest."""
        return sorted(self._accused, key=lambda each: each.listener.judged_at)

    def judge(self, accused: Accused, *, is_heard: bool) -> None:
        """Takes note whether a phone is heard by other means."""
        accused.listener.judge_phone(self._now, is_heard=is_heard)

    def finish(self) -> None:
        """Ends a sample: forgets what was not seen in it, and names nobody unjudged."""
        for accused in self._accused:
            accused.listener.presume_phone()
        self._sockets, self._streams = self._seen, self._heard
        self._outside = {(binding.transport, binding.external) for binding in self._sockets}
        self.suspects = sum(each.silence.is_one_way for each in self._streams.values())
        self.sampled_at = self._now
        self._traffic = {}

    def forget(self) -> None:
        """Forgets everything but the total: nobody counts any more."""
        self.begin({}, self._now)
        self.finish()

    def carried(self, binding: Binding) -> Carried | None:
        """Returns what a mapping has carried since it was made, None where nobody has counted."""
        activity = self._sockets.get(binding)
        return None if activity is None else activity.carried

    def silence(self, key: CallKey, stream: StreamSummary) -> Silence:
        """Returns who is silent in a stream of a call."""
        listener = self._streams.get((key, stream.rtp[0])) if stream.rtp else None
        return _TALK if listener is None else listener.silence

    def is_phone(self, socket: Socket) -> bool:
        """Whether this stands outside for a phone in a call: media to it need not pass by here."""
        return socket in self._outside

    def _follow(self, binding: Binding) -> None:
        """Adds what a mapping has carried since the last sample, once a sample."""
        if binding in self._seen:
            return
        socket = binding.transport, binding.internal
        activity = self._seen[binding] = self._sockets.get(binding) or _SocketActivity()
        gained = activity.follow(self._traffic.get(socket, _NOTHING), self._now)
        self.total = self.total.plus(gained)
        self._followed.add(socket)

    def _listen(self, call: CallSummary, stream: StreamSummary) -> None:
        rtp = stream.rtp[0]
        place = call.key, rtp
        listener = self._heard[place] = self._streams.get(place) or _Listener(self._now)
        sockets = [self._seen[binding] for binding in (*stream.rtp, *stream.rtcp)]
        listener.follow(
            max(each.sent_at for each in sockets),
            max(each.received_at for each in sockets),
            self._now,
        )
        if listener.silence.phone is not None and listener.silence.remote is None:
            self._accused.append(Accused(rtp.internal, call.remotes.get(rtp, ()), listener))


def has_ended_since(call: CallSummary, moment: float) -> bool:
    """Whether a call has ended after that time."""
    return call.ended_at is not None and call.ended_at > moment


_NOTHING = Carried()


@dataclass(slots=True)
class _SocketActivity:
    """What a mapping has carried, what of it its live flows have, and when each way last moved."""

    carried: Carried = _NOTHING
    live: Counts = _NOTHING
    sent_at: float = -math.inf
    received_at: float = -math.inf

    def follow(self, live: Counts, now: float) -> Carried:
        """Takes in what the live flows have carried by now; returns what that adds.

        Where there is less than before, a flow has ended; what others have gained is not known.
        """
        sent, sent_bytes = _gain(self.live[:2], live[:2])
        received, received_bytes = _gain(self.live[2:], live[2:])
        if sent:
            self.sent_at = now
        if received:
            self.received_at = now
        gained = Carried(sent, sent_bytes, received, received_bytes)
        self.carried = self.carried.plus(gained)
        self.live = live
        return gained


@dataclass(slots=True)
class _Listener:
    """Both sides of a stream that should carry media since `since`.

    `judged_at` is when the phone was last looked for in the silence that it is in.
    """

    since: float
    phone: _Ear = field(init=False)
    remote: _Ear = field(init=False)
    silence: Silence = _TALK
    judged_at: float = -math.inf

    def __post_init__(self) -> None:
        self.phone, self.remote = _Ear(self.since), _Ear(self.since)

    def follow(self, sent_at: float, received_at: float, now: float) -> None:
        """Takes in when each side was last heard."""
        self.silence = Silence(self.phone.hear(sent_at, now), self.remote.hear(received_at, now))
        if self.silence.phone is None:
            self.judged_at = -math.inf

    def judge_phone(self, now: float, *, is_heard: bool) -> None:
        """Takes in that the phone is heard now, or indeed is not."""
        if is_heard:
            self.phone.heard_at = now
            self.silence = self.silence._replace(phone=None)
        else:
            self.judged_at = now

    def presume_phone(self) -> None:
        """Does not call a phone silent that was not judged in this silence."""
        if self.judged_at == -math.inf:
            self.silence = self.silence._replace(phone=None)


@dataclass(slots=True)
class _Ear:
    """When a side was last heard, and how long it may be silent."""

    heard_at: float
    patience: float = PATIENCE

    def hear(self, moved_at: float, now: float) -> float | None:
        """Returns since when the side is silent, if it is."""
        if moved_at > self.heard_at:
            pause = moved_at - self.heard_at
            if pause >= self.patience:
                self.patience = min(MAX_PATIENCE, 2 * pause)
            self.heard_at = moved_at
        return self.heard_at if now - self.heard_at >= self.patience else None


def _gain(before: tuple[int, int], now: tuple[int, int]) -> tuple[int, int]:
    """Returns the packets and bytes that came since, where both have not become less."""
    packets, size = now[0] - before[0], now[1] - before[1]
    return (packets, max(0, size)) if packets > 0 else (0, 0)


def _is_expected(stream: StreamSummary) -> bool:
    """Whether both sides of a stream should be heard."""
    is_audio = stream.media in (b"audio", b"") and bool(stream.rtp)
    return is_audio and stream.is_two_way and stream.rtp[0].transport is Transport.UDP


def _bindings(call: CallSummary) -> Iterator[Binding]:
    for stream in call.streams:
        yield from stream.rtp
        yield from stream.rtcp
