"""What media has carried by the samples of it, and who is called silent, and who is not."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from alg.dialogs.call import CallKey
from alg.dialogs.origin import NO_ORIGIN
from alg.dialogs.summary import CallPhase, CallSummary, StreamSummary
from alg.observe.media_activity import Carried, Counts, MediaActivity, Silence
from nat_table.binding import Binding, Kind
from nat_table.endpoint import TCP, UDP, Endpoint, Socket, Transport

TALK = Silence()
INTERVAL = 4.0


def bind(port: int, kind: Kind = Kind.RTP, transport: Transport = UDP, at: float = 0.0) -> Binding:
    internal, external = Endpoint("10.0.0.20", port), Endpoint("203.0.113.1", port)
    return Binding(transport, internal, external, kind, at)


RTP, RTCP = bind(4000), bind(4001, Kind.RTCP)
AUDIO = StreamSummary(b"audio", (RTP,), (RTCP,), is_two_way=True)


def call(
    *streams: StreamSummary,
    phase: CallPhase = CallPhase.UP,
    call_id: bytes = b"1",
    ended_at: float | None = None,
) -> CallSummary:
    key = CallKey("10.0.0.20", call_id, b"a")
    return CallSummary(key, NO_ORIGIN, phase, None, 0.0, ended_at, streams or (AUDIO,), {})


@dataclass
class Samples:
    """Samples every four seconds; `flows` are what the kernel has counted so far.

    In each as many of the accused are looked for as `looks`: `elsewhere` are who send otherwise.
    """

    activity: MediaActivity = field(default_factory=MediaActivity)
    flows: dict[Socket, Counts] = field(default_factory=dict)
    now: float = 1000.0
    looks: int = 8
    elsewhere: set[Endpoint] = field(default_factory=set)

    def flow(self, binding: Binding, *, sent: int = 0, received: int = 0) -> None:
        """Lets packets of 200 bytes flow."""
        socket = binding.transport, binding.internal
        before = self.flows.get(socket, (0, 0, 0, 0))
        more = (sent, 200 * sent, received, 200 * received)
        one, two, three, four = (a + b for a, b in zip(before, more, strict=True))
        self.flows[socket] = one, two, three, four

    def forget(self, binding: Binding) -> None:
        """Lets conntrack forget the flows of a mapping."""
        self.flows.pop((binding.transport, binding.internal), None)

    def take(self, *calls: CallSummary, ended: CallSummary | None = None) -> None:
        self.now += INTERVAL
        self.activity.begin(dict(self.flows), self.now)
        for each in calls or ((call(),) if ended is None else ()):
            self.activity.see(each)
        if ended is not None:
            self.activity.see_ended(ended)
        for accused in self.activity.accused[: self.looks]:
            is_heard = accused.internal in self.elsewhere
            self.activity.judge(accused, is_heard=is_heard)
        self.activity.finish()

    def silence(self, stream: StreamSummary = AUDIO) -> Silence:
        return self.activity.silence(call().key, stream)


def talk(samples: Samples, times: int = 3) -> None:
    for _ in range(times):
        samples.flow(RTP, sent=200, received=200)
        samples.take()


def test_a_mapping_has_carried_what_its_flows_have() -> None:
    samples = Samples()
    talk(samples)
    assert samples.activity.carried(RTP) == (600, 120000, 600, 120000)
    assert samples.activity.carried(RTCP) == (0, 0, 0, 0)
    assert samples.activity.total == (600, 120000, 600, 120000)
    assert samples.activity.carried(bind(5000)) is None


def test_a_flow_that_ends_and_comes_again_is_counted_on() -> None:
    samples = Samples()
    talk(samples)
    samples.forget(RTP)
    samples.take()
    assert samples.activity.carried(RTP) == (600, 120000, 600, 120000)
    samples.flow(RTP, sent=5, received=7)
    samples.take()
    assert samples.activity.carried(RTP) == (605, 121000, 607, 121400)


def test_where_one_of_several_flows_ends_nothing_is_counted_twice() -> None:
    samples = Samples()
    talk(samples)
    samples.flows[UDP, RTP.internal] = (250, 50000, 200, 40000)
    samples.take()
    assert samples.activity.carried(RTP) == (600, 120000, 600, 120000)
    samples.flow(RTP, sent=10)
    samples.take()
    assert samples.activity.carried(RTP) == (610, 122000, 600, 120000)


def test_a_mapping_that_two_calls_share_is_counted_once() -> None:
    samples = Samples()
    samples.flow(RTP, sent=10)
    samples.take(call(), call(call_id=b"2"))
    assert samples.activity.carried(RTP) == samples.activity.total == (10, 2000, 0, 0)


def test_a_stream_is_not_called_silent_while_both_sides_send() -> None:
    samples = Samples()
    talk(samples, 20)
    assert samples.silence() == TALK and samples.activity.suspects == 0


@pytest.mark.parametrize("has_talked", [True, False])
@pytest.mark.parametrize("is_phone", [True, False])
def test_the_side_that_does_not_send_is_named_within_twelve_seconds(
    has_talked: bool, is_phone: bool
) -> None:
    samples = Samples()
    if has_talked:
        talk(samples)
    else:
        samples.take()
    stopped = samples.now
    for _ in range(3):
        samples.flow(RTP, sent=0 if is_phone else 200, received=200 if is_phone else 0)
        samples.take()
    assert samples.silence() == (Silence(phone=stopped) if is_phone else Silence(remote=stopped))
    assert samples.activity.suspects == 1
    talk(samples, 1)
    assert samples.silence() == TALK and samples.activity.suspects == 0


def test_a50_an_accused_phone_that_is_heard_otherwise_has_its_time_again() -> None:
    samples = Samples(elsewhere={RTP.internal})
    talk(samples)
    for _ in range(2):
        samples.flow(RTP, received=200)
        samples.take()
    assert [accused.internal for accused in samples.activity.accused] == [RTP.internal]
    assert samples.silence() == TALK and samples.activity.suspects == 0
    samples.elsewhere.clear()
    samples.flow(RTP, received=200)
    samples.take()
    assert samples.activity.accused == [] and samples.silence() == TALK
    samples.flow(RTP, received=200)
    samples.take()
    assert samples.silence().phone is not None


def test_a50_nobody_is_named_whom_nobody_has_looked_for_and_each_has_a_turn() -> None:
    streams = [StreamSummary(b"audio", (bind(port),), (), is_two_way=True) for port in range(9)]
    samples = Samples(looks=2, elsewhere={Endpoint("10.0.0.20", 8)})

    def named() -> list[int]:
        return [i for i, stream in enumerate(streams) if samples.silence(stream).phone is not None]

    def sample() -> None:
        for stream in streams:
            samples.flow(stream.rtp[0], received=200)
        samples.take(call(*streams))

    for _ in range(3):
        sample()
    assert named() == [0, 1]
    for _ in range(3):
        sample()
    assert named() == [*range(8)]
    for _ in range(20):
        sample()
        assert named() == [*range(8)]
    samples.elsewhere.add(Endpoint("10.0.0.20", 3))
    for _ in range(4):
        sample()
    assert 3 not in named()
    samples.flow(streams[0].rtp[0], sent=200)
    samples.looks = 0
    for _ in range(20):
        sample()
    assert 0 not in named() and 1 in named()


def test_two_silent_sides_are_no_suspect() -> None:
    samples = Samples()
    for _ in range(5):
        samples.take()
    assert not samples.silence().is_one_way and samples.silence() != TALK
    assert samples.activity.suspects == 0


@pytest.mark.parametrize(
    "quiet",
    [
        call(phase=CallPhase.RINGING),
        call(phase=CallPhase.HELD),
        call(phase=CallPhase.ENDING),
        call(AUDIO._replace(is_two_way=False)),
        call(AUDIO._replace(media=b"video")),
        call(AUDIO._replace(media=b"image")),
        call(AUDIO._replace(rtp=(bind(4000, Kind.MEDIA, TCP),), rtcp=())),
        call(AUDIO._replace(rtp=())),
    ],
    ids=["early", "hold", "hanging up", "recvonly", "video", "fax", "tcp", "rtcp only"],
)
def test_nobody_is_expected_where_silence_is_in_order(quiet: CallSummary) -> None:
    samples = Samples()
    for _ in range(10):
        samples.flow(RTP, received=200)
        samples.take(quiet)
    assert samples.activity.silence(quiet.key, quiet.streams[0]) == TALK
    assert samples.activity.suspects == 0


def test_after_hold_both_sides_have_their_time_again() -> None:
    samples = Samples()
    talk(samples)
    for _ in range(10):
        samples.take(call(phase=CallPhase.HELD))
    for _ in range(2):
        samples.flow(RTP, sent=200)
        samples.take()
        assert samples.silence() == TALK
    samples.flow(RTP, sent=200)
    samples.take()
    assert samples.silence().remote is not None


def test_a_muted_phone_that_goes_on_with_rtcp_is_not_silent() -> None:
    samples = Samples()
    talk(samples)
    for _ in range(10):
        samples.flow(RTP, received=200)
        samples.flow(RTCP, sent=1, received=1)
        samples.take()
    assert samples.silence() == TALK


def test_who_pauses_is_waited_for_twice_as_long_from_then_on() -> None:
    samples = Samples()
    talk(samples)
    named = []
    for _ in range(3):
        for _ in range(3):
            samples.flow(RTP, sent=200)
            samples.take()
        named.append(samples.silence().remote is not None)
        talk(samples, 1)
    assert named == [True, False, False]
    for _ in range(20):
        samples.flow(RTP, sent=200)
        samples.take()
    assert samples.silence().remote is not None, "patience has an end"


def test_a_call_that_has_ended_keeps_its_counts_while_it_is_shown() -> None:
    samples = Samples()
    talk(samples)
    samples.flow(RTP, sent=20)
    over = call(phase=CallPhase.ENDED, ended_at=samples.now + 1)
    samples.take(ended=over)
    samples.forget(RTP)
    samples.take(ended=over)
    assert samples.activity.carried(RTP) == (620, 124000, 600, 120000)
    assert samples.silence() == TALK
    samples.take(call(StreamSummary(b"audio", (bind(5000),))))
    assert samples.activity.carried(RTP) is None
    assert samples.activity.total.sent == 620


def test_a_later_call_at_the_same_port_counts_for_itself() -> None:
    samples = Samples()
    talk(samples)
    over = call(phase=CallPhase.ENDED, ended_at=samples.now + 1)
    samples.forget(RTP)
    again = bind(4000, at=samples.now + 2)
    samples.flow(again, sent=3)
    samples.take(call(StreamSummary(b"audio", (again,)), call_id=b"2"), ended=over)
    assert samples.activity.carried(RTP) == (600, 120000, 600, 120000)
    assert samples.activity.carried(again) == Carried(3, 600, 0, 0)


def test_where_nobody_counts_any_more_nothing_is_known_but_the_total() -> None:
    samples = Samples()
    talk(samples)
    samples.activity.forget()
    assert samples.activity.carried(RTP) is None
    assert samples.activity.total.sent == 600
