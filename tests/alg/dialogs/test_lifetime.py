"""How long a call lives: by its timer, its signalling, its media (A43, A60, A61, A63)."""

from __future__ import annotations

import pytest

from alg.gateway_settings import GatewaySettings
from tests.alg.dialogs.test_calls import ANSWER, AUDIO, call_in, call_out, hang_up, media, offer
from tests.alg.playbook import EXTERNAL, PHONE, Playbook, invite, request, response

RTP = "10.0.0.20:4000"


@pytest.fixture
def play() -> Playbook:
    return Playbook()


def call_with_timer(play: Playbook, field: str = "Session-Expires: 1800;refresher=uac") -> None:
    sent = play.outbound(invite(PHONE, offer()))
    play.inbound(response(sent.payload, 200, field, body=ANSWER))


def remaining(play: Playbook) -> float:
    return min(float(str(row["expires_in"])) for row in play.rows())


@pytest.mark.parametrize("field", ["Session-Expires: 1800;refresher=uas", "x: 1800"])
def test_a60_a_session_timer_says_how_long(play: Playbook, field: str) -> None:
    call_with_timer(play, field)
    assert 1832 <= remaining(play) <= 1862
    play.wait(1832)
    assert set(play.mappings()) == AUDIO | {"10.0.0.20:5060"}
    play.wait(60)
    assert media(play) == set()


def test_a60_a_refresh_moves_it(play: Playbook) -> None:
    call_with_timer(play)
    for number in range(10):
        play.wait(900)
        sent = play.outbound(request("UPDATE", cseq=number + 2, to_tag="b"))
        play.inbound(response(sent.payload, 200, "Session-Expires: 1800;refresher=uac"))
    assert set(play.mappings()) == AUDIO | {"10.0.0.20:5060"}


def test_a60_the_phones_own_2xx_counts_too(play: Playbook) -> None:
    call_in(play)
    asked = request("UPDATE", call_id="call-in", cseq=9, from_tag="remote", to_tag="phone")
    play.inbound(asked)
    play.outbound(response(asked, 200, "Session-Expires: 3600;refresher=uas"))
    assert 3632 <= remaining(play) <= 3662


def test_a60_a_2xx_without_the_timer_ends_it(play: Playbook) -> None:
    call_with_timer(play)
    sent = play.outbound(invite(PHONE, offer(), cseq=2, to_tag="b"))
    play.inbound(response(sent.payload, 200, body=ANSWER))
    play.wait(7000)
    assert media(play) == AUDIO


@pytest.mark.parametrize("seconds", ["0", "1", "99999999999999999999", "-5", "abc"])
def test_a60_an_absurd_timer_does_no_harm(play: Playbook, seconds: str) -> None:
    call_with_timer(play, f"Session-Expires: {seconds}")
    play.wait(85)
    assert media(play) == AUDIO
    play.wait(700000)
    assert media(play) == set()


def test_a60_other_messages_do_not_prolong_a_session_timer(play: Playbook) -> None:
    call_with_timer(play)
    before = remaining(play)
    play.wait(600)
    play.outbound(request("INFO", cseq=2, to_tag="b"))
    assert remaining(play) == pytest.approx(before - 600)


@pytest.mark.parametrize("method", ["INFO", "OPTIONS", "MESSAGE", "NOTIFY", "UPDATE"])
def test_a43_any_message_of_the_dialog_keeps_a_call(play: Playbook, method: str) -> None:
    call_out(play)
    for cseq in range(2, 7):
        play.wait(5000)
        play.outbound(request(method, cseq=cseq, to_tag="b"))
    assert media(play) == AUDIO


def test_a61_media_keeps_a_call_for_days(play: Playbook) -> None:
    call_out(play)
    for _ in range(3 * 24 * 60):
        play.wait(60)
        play.review(RTP)
    assert media(play) == AUDIO
    hang_up(play)
    assert media(play) == set()


def test_a63_a_call_whose_bye_was_lost_ends_soon_after_its_media(play: Playbook) -> None:
    call_out(play)
    for _ in range(200):
        play.wait(60)
        play.review(RTP)
    for _ in range(7):
        play.wait(60)
        play.review()
    assert media(play) == set()
    assert play.gateway.call_count == 0


def test_a63_only_calls_that_end_soon_are_asked_about(play: Playbook) -> None:
    call_out(play)
    assert play.review() == []
    play.wait(7170)
    call_out(play, "call-2", 4100)
    assert set(play.review()) == AUDIO
    play.wait(10)
    assert set(play.review(RTP)) == AUDIO
    assert play.review() == []


def test_a63_where_nobody_can_tell_every_call_is_kept(play: Playbook) -> None:
    call_out(play)
    for _ in range(24 * 60):
        play.wait(60)
        play.gateway.calls_to_review(play.now)
        play.gateway.keep_calls(None, play.now)
    assert media(play) == AUDIO


def test_a63_media_does_not_keep_a_call_that_was_hung_up(play: Playbook) -> None:
    call_out(play)
    play.outbound(request("BYE", cseq=2, to_tag="b"))
    assert play.review(RTP) == []
    play.wait(33)
    assert media(play) == set()


def test_100_trying_makes_an_invite_wait(play: Playbook) -> None:
    sent = play.outbound(invite(PHONE, offer()))
    play.inbound(response(sent.payload, 100))
    play.wait(200)
    assert media(play) == AUDIO
    play.wait(101)
    assert media(play) == set()


def test_the_idle_time_is_configured() -> None:
    settings = GatewaySettings((EXTERNAL,))
    timeouts = settings.call_timeouts._replace(idle=600.0)
    play = Playbook(settings=GatewaySettings((EXTERNAL,), call_timeouts=timeouts))
    call_out(play)
    play.wait(590)
    assert media(play) == AUDIO
    play.wait(60)
    assert media(play) == set()


def test_roll_back_of_an_answer_is_made_good_by_the_next(play: Playbook) -> None:
    sent = play.outbound(invite(PHONE, offer()))
    answer = response(sent.payload, 200)
    outcome = play.inbound(answer)
    play.gateway.roll_back(outcome)
    assert remaining(play) <= 33
    play.inbound(answer)
    assert remaining(play) > 7000


def test_a63_the_answer_to_a_late_bye_still_has_its_mapping(play: Playbook) -> None:
    call_out(play)
    play.wait(3600)
    bye = request("BYE", cseq=7, from_tag="b", to_tag="a")
    for _ in range(2):
        play.inbound(bye)
        play.outbound(response(bye, 200))
        assert play.mappings() == {"10.0.0.20:5060": "203.0.113.1:5060"}
        play.wait(4)
    play.wait(400)
    assert play.mappings() == {}
