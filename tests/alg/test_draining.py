"""A gateway that drains turns new calls away, and nothing else."""

from __future__ import annotations

import pytest

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

TURNED_AWAY = (Verdict.DROPPED, Reason.DRAINING)


def draining() -> Playbook:
    play = Playbook()
    play.gateway.is_draining = True
    return play


def test_a_new_call_is_turned_away_and_opens_nothing() -> None:
    play = draining()
    sent = play.outbound(invite(PHONE, offer()))
    assert (sent.verdict, sent.reason) == TURNED_AWAY
    assert play.mappings() == {}
    assert play.gateway.counters[Reason.DRAINING] == 1


def test_a_call_from_outside_is_turned_away() -> None:
    play = Playbook()
    play.outbound(request("OPTIONS", call_id="keep"))
    play.gateway.is_draining = True
    arrived = play.inbound(invite(SERVER, ANSWER, call_id="call-in", from_tag="remote"))
    assert (arrived.verdict, arrived.reason) == TURNED_AWAY


def test_a_call_between_two_phones_is_turned_away() -> None:
    play = Playbook()
    play.outbound(request("OPTIONS", PHONE_2, call_id="keep"), PHONE_2)
    play.gateway.is_draining = True
    sent = play.hairpin(invite(PHONE, offer()))
    assert (sent.verdict, sent.reason) == TURNED_AWAY


def test_a_call_that_is_up_may_change_and_end() -> None:
    play = Playbook()
    call_out(play)
    play.gateway.is_draining = True
    again = play.outbound(invite(PHONE, offer(4100), cseq=2, to_tag="b"))
    assert again.verdict is Verdict.REWRITTEN
    play.inbound(response(again.payload, 200, body=ANSWER))
    assert "10.0.0.20:4100" in media(play)
    bye = play.inbound(from_server("BYE", "call-1", 3, local="a", remote="b"))
    play.outbound(response(bye.payload, 200))
    play.wait(5.0)
    assert media(play) == set()


@pytest.mark.parametrize("status", [401, 407])
def test_a_call_that_was_challenged_before_goes_on(status: int) -> None:
    play = Playbook()
    sent = play.outbound(invite(PHONE, offer()))
    play.gateway.is_draining = True
    play.inbound(response(sent.payload, status))
    again = play.outbound(invite(PHONE, offer(), cseq=2))
    assert again.verdict is Verdict.REWRITTEN
    play.inbound(response(again.payload, 200, body=ANSWER))
    assert media(play) == AUDIO


def test_a65_an_attended_transfer_of_a_call_that_is_up_goes_on() -> None:
    play = draining()
    transferred = invite(PHONE, offer())
    replaces = b"\r\nReplaces: call-1;to-tag=b;from-tag=a\r\nContact:"
    sent = play.outbound(transferred.replace(b"\r\nContact:", replaces))
    assert sent.verdict is Verdict.REWRITTEN


def test_an_invite_that_was_sent_before_may_come_again_and_be_answered() -> None:
    play = Playbook()
    first = play.outbound(invite(PHONE, offer()))
    play.outbound(request("OPTIONS", PHONE_2, call_id="keep"), PHONE_2)
    asked = invite(SERVER, ANSWER, call_id="call-in", from_tag="remote")
    play.inbound(asked, PHONE_2)
    play.gateway.is_draining = True
    assert play.outbound(invite(PHONE, offer())).payload == first.payload
    arrived = play.inbound(asked, PHONE_2)
    assert arrived.verdict is not Verdict.DROPPED
    answer = response(arrived.payload, 200, body=offer(4000, "10.0.0.21"), to_tag="phone")
    assert play.outbound(answer, PHONE_2).verdict is Verdict.REWRITTEN
    assert play.gateway.open_call_count == 2


def test_registrations_and_everything_else_go_on() -> None:
    play = draining()
    asked = play.outbound(register())
    play.inbound(response(asked.payload, 200, contact="<sip:alice@203.0.113.1:5060>"))
    assert play.gateway.registration_count == 1
    for method in ("OPTIONS", "MESSAGE", "SUBSCRIBE", "CANCEL"):
        assert play.outbound(request(method, call_id=method)).verdict is Verdict.REWRITTEN


def test_once_it_is_over_calls_are_taken_again() -> None:
    play = draining()
    play.outbound(invite(PHONE, offer()))
    play.gateway.is_draining = False
    call_out(play)
    assert media(play) == AUDIO
    call_in(play, "call-in")
