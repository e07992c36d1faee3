"""What is told of a call: how it began, where it stands, and what its media should do."""

from __future__ import annotations

import base64
import zlib
from dataclasses import replace

import pytest

from alg.dialogs.dialog import MAX_ENDED
from alg.dialogs.invitation import InvitationKey
from alg.dialogs.origin import NO_ORIGIN
from alg.dialogs.summary import CallPhase, CallSummary, summarise
from alg.gateway import Gateway
from tests.alg.dialogs.test_calls import ANSWER, call_in, call_out, hang_up, offer, ring
from tests.alg.playbook import PHONE, Playbook, invite, request, response, sdp

STORED = (
    "eNq1VE9P2zAcbS4cN1UcuO4LEMXAJHrrZUIIidPEFbnxb6mFa1u2txYuUxEcEWkrOBP1b8o+RNXlVvFd9hHmJJVG"
    "aSt2qS1L8XN+7+m9n+W77gVcdmLkuenc85ItHzO2ixIH90Wdg+r0UmCQoxEeEoqZCHQzcSqxL/g3qmpA+nZRfNtn"
    "wv530zU4SAoDHCgA8uC0k4LT6jy2/4m8fHxa2EXOdDpp3cZGYa6lUKY4otyA4pgtVo2gMYef97x9iyK07yJ70Lug"
    "nHSVkWNfATZAzrGZle/LhXT8B3O0jjnKmHvK+Cupw1k5/JR9jaQSUmgg4VCDMQxI0/oeKqgJA1lceS5OZSmYX6h0"
    "6H5GLvI8t/Ty3XsLoDSeMAxnhflYrRVDw69iHoB2BjUsJZDrdnExv41F/EYo2lziY6rPc5tk2qsCI9ebuzdLndmc"
    "rSUtNNY0sDSM8qD5ru52skZ3O8ktarpSdtKXAEpb9VdFGR02BmrS6FbHSXauStWjg8rJbv4K2Hl8enb89ctS1Rga"
    "kirQmcTkQyYRc6yUqKfQzz/z+5tZ+IHZ5Nl20xqrgwLye2Q3wIlt7F8fQLkB",
    "eNqbNHmloYEeCBoZHGFPTszJ0c3MO8JWlJqbX5I6hXHitElrDC0t9EwN9QwNDPQsz5YaoAsYMh46dGDipDVGBsZA"
    "UwwNjYESZ4WPnHaYEsAAAgBy+h/+",
)
"""An answered call and an invitation, as the release before wrote them: compressed, in base 64."""


def only(play: Playbook) -> CallSummary:
    (call,) = play.gateway.state.calls.standing()
    return summarise(call)


def last(play: Playbook) -> CallSummary:
    return play.gateway.state.calls.ended[-1]


def describe_again(play: Playbook, body: str, answer: str = ANSWER, cseq: int = 2) -> None:
    sent = play.outbound(invite(PHONE, body, cseq=cseq, to_tag="b"))
    play.inbound(response(sent.payload, 200, body=answer))
    play.outbound(request("ACK", cseq=cseq, to_tag="b"))


def test_a_call_out_tells_when_it_began_and_who_is_in_it() -> None:
    play = Playbook()
    ring(play)
    began = play.now
    call = only(play)
    assert (call.phase, call.answered_at, call.remote) == (CallPhase.RINGING, None, "203.0.113.10")
    assert call.origin == (began, False, "sip:alice@example.com", "sip:bob@example.com")
    play.wait(5)
    sent = play.outbound(invite(PHONE, offer()))
    play.inbound(response(sent.payload, 200, body=ANSWER))
    call = only(play)
    assert (call.phase, call.answered_at) == (CallPhase.UP, began + 5)
    assert call.origin.begun_at == began


def test_a_call_in_began_with_the_first_invite() -> None:
    play = Playbook()
    play.outbound(request("OPTIONS", call_id="keep"))
    asked = invite(PHONE, ANSWER, call_id="call-in", from_tag="remote")
    asked = asked.replace(b"10.0.0.20", b"203.0.113.10")
    began = play.now
    arrived = play.inbound(asked)
    play.wait(3)
    play.inbound(asked)
    play.outbound(response(arrived.payload, 180, to_tag="phone"))
    call = only(play)
    assert call.origin == (began, True, "sip:alice@example.com", "sip:bob@example.com")
    assert call.phase is CallPhase.RINGING


def test_a_call_in_that_is_answered_is_up() -> None:
    play = Playbook()
    call_in(play)
    assert only(play).phase is CallPhase.UP
    assert only(play).origin.is_inbound


def test_a_stream_has_its_type_its_mappings_and_whom_signalling_named() -> None:
    play = Playbook()
    call_out(play)
    (stream,) = only(play).streams
    assert (stream.media, stream.is_two_way) == (b"audio", True)
    assert [str(each.internal) for each in (*stream.rtp, *stream.rtcp)] == [
        "10.0.0.20:4000",
        "10.0.0.20:4001",
    ]
    assert [str(each) for each in only(play).remotes[stream.rtp[0]]] == ["198.51.100.9:30000"]


def test_rtcp_on_the_port_of_rtp_has_no_mapping_of_its_own() -> None:
    play = Playbook()
    sent = play.outbound(invite(PHONE, sdp("10.0.0.20", 4000, "a=rtcp-mux")))
    play.inbound(response(sent.payload, 200, body=sdp("198.51.100.9", 30000, "a=rtcp-mux")))
    (stream,) = only(play).streams
    assert len(stream.rtp) == 1 and stream.rtcp == ()


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        (sdp("10.0.0.20", 4000, "a=sendonly"), sdp("198.51.100.9", 30000, "a=recvonly")),
        (sdp("10.0.0.20", 4000, "a=inactive"), sdp("198.51.100.9", 30000, "a=inactive")),
        (offer(), sdp("198.51.100.9", 30000, "a=SendOnly")),
        (offer().replace("t=0 0", "a=sendonly\nt=0 0"), ANSWER),
        (sdp("0.0.0.0", 4000, origin="10.0.0.20"), ANSWER),
        (offer(), sdp("0.0.0.0", 30000)),
    ],
    ids=["sendonly", "inactive", "by the answer", "session", "zero address", "zero in the answer"],
)
def test_a_call_on_hold_is_held_until_both_sides_send_again(body: str, answer: str) -> None:
    play = Playbook()
    call_out(play)
    describe_again(play, body, answer)
    call = only(play)
    assert call.phase is CallPhase.HELD
    assert not call.streams[0].is_two_way
    assert call.streams[0].rtp, "its mapping is kept"
    describe_again(play, offer(), cseq=3)
    assert only(play).phase is CallPhase.UP


def test_a_refused_hold_leaves_the_call_up() -> None:
    play = Playbook()
    call_out(play)
    sent = play.outbound(invite(PHONE, sdp("10.0.0.20", 4000, "a=sendonly"), cseq=2, to_tag="b"))
    play.inbound(response(sent.payload, 488))
    assert only(play).phase is CallPhase.UP


def test_a_second_stream_may_be_quiet_without_hold() -> None:
    play = Playbook()
    lines = ("m=video 4002 RTP/AVP 31", "a=sendonly")
    sent = play.outbound(invite(PHONE, sdp("10.0.0.20", 4000, *lines)))
    play.inbound(response(sent.payload, 200, body=sdp("198.51.100.9", 30000, *lines)))
    call = only(play)
    assert call.phase is CallPhase.UP
    assert [(each.media, each.is_two_way) for each in call.streams] == [
        (b"audio", True),
        (b"video", False),
    ]


def test_a_call_that_has_ended_is_remembered_as_it_was() -> None:
    play = Playbook()
    call_out(play)
    before = only(play)
    play.wait(60)
    hang_up(play)
    assert play.gateway.state.calls.standing() == []
    ended = last(play)
    assert ended == before._replace(phase=CallPhase.ENDED, ended_at=play.now)


def test_a_call_whose_time_is_over_has_ended_too() -> None:
    play = Playbook()
    call_out(play)
    play.wait(20000)
    assert last(play).phase is CallPhase.ENDED and last(play).streams


def test_only_calls_that_were_answered_are_remembered_and_not_too_many() -> None:
    play = Playbook()
    sent = ring(play)
    play.inbound(response(sent.payload, 486))
    assert not play.gateway.state.calls.ended
    for number in range(MAX_ENDED + 5):
        call_out(play, call_id=f"call-{number}")
        hang_up(play, call_id=f"call-{number}")
    ended = play.gateway.state.calls.ended
    assert len(ended) == MAX_ENDED and last(play).key.call_id == b"call-104"


def test_what_a_call_tells_survives_a_restart() -> None:
    play = Playbook()
    call_out(play)
    before = only(play)
    play.restart()
    assert only(play) == before


def test_what_the_release_before_has_stored_is_read() -> None:
    """Its calls had neither origin nor time of answer, its lines neither type nor direction."""
    play = Playbook()
    call_out(play)
    call, invitation = (zlib.decompress(base64.b64decode(each)) for each in STORED)
    rows = {("call", "a"): call, ("invitation", "b"): invitation}
    play.gateway = Gateway(play.settings, play.table)
    play.gateway.restore(rows, play.now)
    assert only(play).phase is CallPhase.UP
    assert (only(play).answered_at, only(play).origin) == (None, NO_ORIGIN)
    assert [(each.media, each.is_two_way) for each in only(play).streams] == [(b"", True)]
    key = InvitationKey("10.0.0.20", b"call-in", b"remote")
    found = play.gateway.state.invitations.find(key)
    assert found is not None and found.begun_at is None and found.lines
    hang_up(play)
    assert last(play).phase is CallPhase.ENDED


def test_a_name_without_end_is_cut() -> None:
    play = Playbook()
    long = invite(PHONE, offer()).replace(b"alice@example.com", b"a" * 5000 + b"@example.com")
    play.outbound(long)
    assert len(only(play).origin.caller) == 255


def test_the_table_knows_nothing_of_it() -> None:
    """Hold by direction alone changes neither the mappings nor whom they admit."""
    play = Playbook()
    call_out(play)
    before = [replace(each, created_at=0) for each in play.table.bindings()]
    describe_again(play, sdp("10.0.0.20", 4000, "a=sendonly"))
    assert [replace(each, created_at=0) for each in play.table.bindings()] == before
