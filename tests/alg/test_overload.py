"""A gateway that is overloaded leaves aside what begins, and serves what goes on."""

from __future__ import annotations

import pytest

from alg.daemon.overload import LONG, Overload
from alg.verdict import Reason, Verdict
from tests.alg.dialogs.test_calls import ANSWER, AUDIO, call_in, call_out, from_server, media, offer
from tests.alg.playbook import (
    PHONE,
    PHONE_2,
    SERVER,
    Playbook,
    invite,
    register,
    request,
    response,
)


def overloaded(play: Playbook, *, is_fail_open: bool) -> Overload:
    overload = Overload(play.gateway, is_fail_open)
    overload.heed(LONG, play.now)
    return overload


@pytest.mark.parametrize(
    ("is_fail_open", "verdict"), [(True, Verdict.UNCHANGED), (False, Verdict.DROPPED)]
)
def test_what_begins_is_left_aside_as_the_queue_would(is_fail_open: bool, verdict: Verdict) -> None:
    play = Playbook()
    overloaded(play, is_fail_open=is_fail_open)
    for sent in (invite(PHONE, offer()), register(), request("OPTIONS", call_id="other")):
        outcome = play.outbound(sent)
        assert (outcome.verdict, outcome.reason) == (verdict, Reason.OVERLOAD)
        assert outcome.payload == sent
    assert play.mappings() == {}
    assert play.gateway.counters[Reason.OVERLOAD] == 3


@pytest.mark.parametrize("is_fail_open", [True, False])
def test_calls_that_are_up_go_on_and_end(is_fail_open: bool) -> None:
    play = Playbook()
    call_out(play)
    overloaded(play, is_fail_open=is_fail_open)
    again = play.outbound(invite(PHONE, offer(4100), cseq=2, to_tag="b"))
    assert again.verdict is Verdict.REWRITTEN
    play.inbound(response(again.payload, 200, body=ANSWER))
    assert "10.0.0.20:4100" in media(play)
    bye = play.inbound(from_server("BYE", "call-1", 3, local="a", remote="b"))
    assert play.outbound(response(bye.payload, 200)).reason is not Reason.OVERLOAD
    play.wait(5.0)
    assert media(play) == set()


@pytest.mark.parametrize("is_fail_open", [True, False])
def test_calls_that_have_begun_are_answered(is_fail_open: bool) -> None:
    play = Playbook()
    play.outbound(request("OPTIONS", PHONE_2, call_id="keep"), PHONE_2)
    first = play.outbound(invite(PHONE, offer()))
    arrived = play.inbound(invite(SERVER, ANSWER, call_id="call-in", from_tag="remote"), PHONE_2)
    overloaded(play, is_fail_open=is_fail_open)
    assert play.outbound(invite(PHONE, offer())).payload == first.payload
    play.inbound(response(first.payload, 200, body=ANSWER))
    answer = response(arrived.payload, 200, body=offer(4000, "10.0.0.21"), to_tag="phone")
    assert play.outbound(answer, PHONE_2).verdict is Verdict.REWRITTEN
    assert play.gateway.open_call_count == 2


def test_a_registration_that_was_asked_for_is_answered() -> None:
    play = Playbook()
    asked = play.outbound(register())
    overloaded(play, is_fail_open=True)
    play.inbound(response(asked.payload, 200, contact="<sip:alice@203.0.113.1:5060>"))
    assert play.gateway.registration_count == 1


def test_the_rest_of_a_call_that_has_passed_as_it_came_passes_too() -> None:
    play = Playbook()
    play.outbound(request("OPTIONS", call_id="keep"))
    overloaded(play, is_fail_open=True)
    sent = play.outbound(invite(PHONE, offer()))
    for outcome in (
        play.inbound(response(sent.payload, 200, body=ANSWER)),
        play.outbound(request("ACK", call_id="call-1", to_tag="b")),
    ):
        assert (outcome.verdict, outcome.reason) == (Verdict.UNCHANGED, Reason.OVERLOAD)


def test_nothing_but_what_begins_is_dropped() -> None:
    play = Playbook()
    play.outbound(request("OPTIONS", call_id="keep"))
    overloaded(play, is_fail_open=False)
    assert play.outbound(request("BYE", call_id="unknown", to_tag="b")).verdict is Verdict.REWRITTEN


def test_once_the_queue_is_short_calls_are_taken_again() -> None:
    play = Playbook()
    overload = overloaded(play, is_fail_open=False)
    assert play.outbound(invite(PHONE, offer())).reason is Reason.OVERLOAD
    overload.heed(0.0, play.now)
    call_out(play)
    assert media(play) == AUDIO
    call_in(play, "call-in")


def test_it_is_said_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    play = Playbook()
    overload = overloaded(play, is_fail_open=False)
    for number in range(12):
        overload.heed(2 * LONG, play.now + number)
    assert len(caplog.records) == 2
    assert "must come again" in caplog.text
