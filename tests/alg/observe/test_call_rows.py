"""A call as a row, and as lines of text that fit and are safe whatever a stranger has written."""

from __future__ import annotations

import pytest

from alg.cli.call_lines import call_lines
from alg.dialogs.origin import Origin
from alg.dialogs.summary import CallPhase, CallSummary, StreamSummary
from alg.observe.call_rows import CallRow, call_row
from alg.observe.media_activity import MediaActivity
from nat_table.binding import Binding, Kind
from nat_table.endpoint import UDP, Endpoint
from tests.alg.observe.test_media_activity import AUDIO, RTCP, RTP, Samples, bind, call

REMOTE = Endpoint("203.0.113.10", 40000)
ORIGIN = Origin(900.0, False, "sip:alice@example.com", "sip:bob@example.com")


def summary(*streams: StreamSummary) -> CallSummary:
    return call(*streams)._replace(origin=ORIGIN, remote="203.0.113.10", remotes={RTP: (REMOTE,)})


def row(
    of: CallSummary, activity: MediaActivity, *, now: float = 1010.0, has_users: bool = False
) -> CallRow:
    return call_row(of, activity, now, has_users=has_users)


def text(of: CallRow, width: int = 80) -> list[str]:
    return list(call_lines(dict(of), width))


def one_way() -> Samples:
    samples = Samples()
    for _ in range(4):
        samples.flow(RTP, sent=200)
        samples.take()
    return samples


def test_a_row_without_samples_leaves_the_counts_open() -> None:
    found = row(summary(), MediaActivity())
    assert (found["age"], found["up"], found["warnings"]) == (110.0, 1010.0, [])
    assert [stream["sent"] for stream in found["streams"]] == [None, None]
    assert [stream["remote"] for stream in found["streams"]] == ["203.0.113.10:40000", None]


def test_users_are_named_only_where_they_are_asked_for() -> None:
    assert not {"from", "to"} & row(summary(), MediaActivity()).keys()
    found = row(summary(), MediaActivity(), has_users=True)
    assert (found["from"], found["to"]) == (ORIGIN.caller, ORIGIN.callee)


def test_one_way_audio_is_said_with_the_stream_and_with_the_call() -> None:
    samples = one_way()
    found = row(summary(), samples.activity, now=samples.now)
    assert found["streams"][0]["silent"] == "no media from remote since 12 s"
    assert found["streams"][1]["silent"] is None
    assert found["warnings"] == ["audio: no media from remote since 12 s"]


def test_silence_of_both_sides_is_a_warning_only_where_nothing_else_is_heard() -> None:
    samples = Samples()
    bundled = AUDIO._replace(rtp=(RTCP,), rtcp=())
    both = summary(AUDIO._replace(rtcp=()), bundled)
    for _ in range(4):
        samples.flow(RTP, sent=200, received=200)
        samples.take(both)
    found = row(both, samples.activity, now=samples.now)
    assert found["streams"][1]["silent"] == "no media from either side since 12 s"
    assert found["warnings"] == []
    for _ in range(4):
        samples.take(both)
    found = row(both, samples.activity, now=samples.now)
    assert len(found["warnings"]) == 2


def test_two_phones_whose_media_stays_inside_are_not_called_silent() -> None:
    other = bind(4200)
    samples = Samples()
    for _ in range(4):
        samples.take(call(), call(AUDIO._replace(rtp=(other,), rtcp=()), call_id=b"2"))
    outside = summary()
    inside = outside._replace(remotes={RTP: (other.external,)})
    assert row(outside, samples.activity, now=samples.now)["warnings"]
    found = row(inside, samples.activity, now=samples.now)
    assert (found["streams"][0]["silent"], found["warnings"]) == (None, [])


def test_an_ended_call_has_the_age_that_it_had() -> None:
    ended = summary()._replace(phase=CallPhase.ENDED, ended_at=960.0)
    found = row(ended, MediaActivity())
    assert (found["state"], found["age"], found["up"]) == ("ended", 60.0, 960.0)
    assert "ended after 960s" in text(found)[0]


def test_a_call_of_an_earlier_release_has_no_age() -> None:
    old = summary()._replace(origin=Origin(), answered_at=None)
    found = row(old, MediaActivity())
    assert (found["age"], found["up"]) == (None, None)
    assert "up -" in text(found)[0]


def test_the_text_of_a_call() -> None:
    samples = one_way()
    assert text(row(summary(), samples.activity, now=samples.now, has_users=True)) == [
        "10.0.0.20 -> 203.0.113.10 up 16m from sip:alice@example.com",
        "      to sip:bob@example.com call 1",
        "  audio 10.0.0.20:4000 203.0.113.1:4000 203.0.113.10:40000 sent 800 got 0",
        "  rtcp 10.0.0.20:4001 203.0.113.1:4001 - sent 0 got 0",
        "  ! audio: no media from remote since 12 s",
    ]


def test_long_endpoints_take_lines_of_their_own() -> None:
    far = Endpoint("2001:db8:1111:2222:3333:4444:5555:6666", 40000)
    binding = Binding(UDP, far, far, Kind.RTP, 0.0)
    found = row(summary(StreamSummary(b"audio", (binding,))), MediaActivity())
    assert text(found)[1:] == [f"  audio [{far.address}]:40000 same - sent - got -"]
    other = Binding(UDP, far, far._replace(port=2), Kind.RTP, 0.0)
    found = row(summary(StreamSummary(b"audio", (other,))), MediaActivity())
    assert text(found)[1:] == [
        f"  audio [{far.address}]:40000",
        f"      [{far.address}]:2 - sent - got -",
    ]


HOSTILE = "\x1b]0;owned\x07\x1b[2J\u202e<script>" * 2000


def test_a_hostile_call_can_neither_move_the_cursor_nor_fill_the_screen() -> None:
    found = row(summary(), MediaActivity(), has_users=True)
    found["call_id"] = found["from"] = found["to"] = HOSTILE
    lines = text(found)
    assert all(line.isprintable() and len(line) <= 80 for line in lines)
    assert len(lines) < 10


@pytest.mark.parametrize("broken", [{}, {"streams": 1, "warnings": None}, {"streams": ["x"]}])
def test_a_row_of_another_release_is_shown_as_far_as_it_goes(broken: dict[str, object]) -> None:
    assert list(call_lines(broken, 80)) == ["- -> - - - call -"]
