"""What trunks, forking proxies and clusters of servers do to calls, as transcripts."""

from __future__ import annotations

import pytest

from alg.datagram import Side
from nat_table.binding import Owner, Pinhole
from nat_table.changes import Admitted
from nat_table.endpoint import Endpoint
from nat_table.table import NatTable
from tests.alg.dialogs.test_calls import ANSWER, AUDIO, call_out, from_server, hang_up, media, offer
from tests.alg.playbook import PHONE, SERVER, Playbook, invite, register, request, response, sdp

STRANGER = Endpoint("198.51.100.66", 5060)


@pytest.fixture
def play() -> Playbook:
    return Playbook()


@pytest.mark.parametrize("status", [401, 407, 422, 302, 503])
def test_a64_a_failure_that_is_sent_again_does_not_touch_the_next_attempt(
    play: Playbook, status: int
) -> None:
    first = play.outbound(invite(PHONE, offer()))
    failed = response(first.payload, status)
    play.inbound(failed)
    second = play.outbound(invite(PHONE, offer(), cseq=2))
    play.inbound(response(second.payload, 180))
    play.inbound(failed)
    play.wait(60)
    play.inbound(response(second.payload, 200, body=ANSWER))
    assert media(play) == AUDIO
    play.wait(600)
    assert media(play) == AUDIO


def test_a64_one_branch_of_a_proxy_inside_fails_and_the_other_answers(play: Playbook) -> None:
    asked = invite(PHONE, offer())
    one = play.outbound(asked.replace(b"branch=", b"branch=z9hG4bK-one-"))
    other = play.outbound(asked.replace(b"branch=", b"branch=z9hG4bK-two-"))
    play.inbound(response(other.payload, 180, to_tag="two"))
    play.inbound(response(one.payload, 486, to_tag="one"))
    play.inbound(response(other.payload, 200, body=ANSWER, to_tag="two"))
    assert media(play) == AUDIO
    play.wait(600)
    assert media(play) == AUDIO


def test_a83_a_strangers_failure_does_not_end_a_ringing_call(play: Playbook) -> None:
    sent = play.outbound(invite(PHONE, offer()))
    play.inbound(response(sent.payload, 180))
    play.inbound(response(sent.payload, 486), source=STRANGER)
    assert media(play) == AUDIO


def test_a64_a_call_that_rang_elsewhere_too_closes_with_its_bye(play: Playbook) -> None:
    sent = play.outbound(invite(PHONE, offer()))
    play.inbound(response(sent.payload, 183, body=ANSWER, to_tag="elsewhere"))
    play.inbound(response(sent.payload, 200, body=ANSWER))
    play.outbound(request("ACK", to_tag="b"))
    hang_up(play)
    assert media(play) == set()


def test_a53_many_forks_do_not_make_the_proxy_a_stranger(play: Playbook) -> None:
    sent = play.outbound(invite(PHONE, offer()))
    for i in range(20):
        contact = f"<sip:bob@198.51.100.{i + 100}>"
        play.inbound(response(sent.payload, 180, to_tag=f"t{i}", contact=contact))
    assert SERVER.address in play.remotes("10.0.0.20:5060")
    play.inbound(response(sent.payload, 200, body=ANSWER, to_tag="t0"))
    assert play.remotes("10.0.0.20:4000") == ["198.51.100.9"]


def test_a83_a_bye_from_an_unknown_node_that_the_phone_accepts_is_looked_into(
    play: Playbook,
) -> None:
    call_out(play)
    bye = from_server("BYE", "call-1", 7, local="a", remote="b")
    play.inbound(bye, source=STRANGER)
    play.outbound(response(bye, 200), destination=STRANGER)
    play.wait(50)
    assert media(play) == AUDIO
    play.review("10.0.0.20:4000")
    play.wait(200)
    assert media(play) == AUDIO, "media flows, so it was forged"
    play.wait(400)
    assert media(play) == set()


def test_roll_back_of_what_ends_a_call_is_made_good_by_the_retransmission(play: Playbook) -> None:
    call_out(play)
    bye = play.outbound(request("BYE", cseq=2, to_tag="b"))
    answer = response(bye.payload, 200)
    outcome = play.send(answer, SERVER, PHONE, Side.EXTERNAL, Side.INTERNAL, is_confirmed=False)
    play.gateway.roll_back(outcome)
    assert media(play) == AUDIO
    play.wait(40)
    assert media(play) == set()


def test_a83_a_registrar_prolongs_only_what_was_asked_of_it(play: Playbook) -> None:
    call_out(play)
    external = play.mappings()["10.0.0.20:4000"]
    asked = play.outbound(register(), destination=STRANGER)
    listed = f"<sip:alice@203.0.113.1:5060>;expires=60, <sip:a@{external}>;expires=999999"
    play.inbound(response(asked.payload, 200, contact=listed), source=STRANGER)
    assert STRANGER.address not in play.remotes("10.0.0.20:4000")
    hang_up(play)
    assert media(play) == set()


def test_a_registration_forgets_contacts_whose_time_is_over(play: Playbook) -> None:
    for i in range(5):
        phone = Endpoint(PHONE.address, 5060 + 2 * i)
        asked = play.outbound(register(phone, cseq=i + 1, expires=60), phone)
        play.inbound(response(asked.payload, 200, "Expires: 60"), phone)
        play.wait(50)
    assert len(play.gateway.registered()) == 2


def test_a62_a_call_keeps_the_latest_signalling_ports_only(play: Playbook) -> None:
    call_out(play)
    for i in range(40):
        phone = Endpoint(PHONE.address, 6000 + i)
        play.outbound(request("INFO", phone, cseq=10 + i, to_tag="b"), phone)
    play.wait(60)
    play.changes.clear()
    play.outbound(request("INFO", PHONE, cseq=99, to_tag="b"))
    assert len(play.changes) < 20
    assert {"10.0.0.20:5060", "10.0.0.20:6039"} <= set(play.mappings("sip"))


def test_a33_calls_that_are_kept_tell_whom_they_admit(play: Playbook) -> None:
    call_out(play)
    play.store()
    binding = play.binding("10.0.0.20:4000")
    assert binding is not None
    for pinhole in play.table.pinholes(binding):
        play.table.adopt(binding, Pinhole(Owner("orphan"), play.now + 9000), play.now)
        play.table.close(binding, pinhole.owner, play.now)
    play.table.take_changes()
    play.wait(7190)
    play.gateway.calls_to_review(play.now)
    play.restart()
    play.gateway.calls_to_review(play.now)
    changes = play.gateway.keep_calls(None, play.now)
    assert Admitted(binding, "198.51.100.9") in changes


def test_a16_the_end_of_a_call_does_not_look_at_the_others_on_its_flow(
    play: Playbook, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(3):
        call_out(play, f"call-{i}", 4000 + 10 * i)
    monkeypatch.setattr(NatTable, "pinholes", None)
    hang_up(play, "call-1")
    monkeypatch.undo()
    assert len(play.mappings("rtp")) == 2


def test_a53_the_hundredth_fork_may_answer(play: Playbook) -> None:
    sent = play.outbound(invite(PHONE, offer()))
    for i in range(100):
        early = sdp(f"192.0.2.{i + 1}", 30000)
        play.inbound(response(sent.payload, 183, body=early, to_tag=f"t{i}"))
    play.inbound(response(sent.payload, 200, body=ANSWER, to_tag="t99"))
    assert play.remotes("10.0.0.20:4000")[0] == "198.51.100.9"
    play.wait(1000)
    assert media(play) == AUDIO
    assert play.remotes("10.0.0.20:4000") == ["198.51.100.9"]
    hang_up(play, to_tag="t99")
    assert media(play) == set()
