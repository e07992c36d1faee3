"""The external address becomes another one: calls and registrations go on behind it (A33, A93)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nat_table.endpoint import Endpoint
from tests.alg.dialogs.test_calls import ANSWER, call_in, call_out, hang_up, media, offer
from tests.alg.dialogs.test_registration import OUR_CONTACT, grant, state
from tests.alg.playbook import EXTERNAL, PHONE, Playbook, invite, register, request, response

NEW = "203.0.113.77"


def move(play: Playbook) -> None:
    moved = play.table.move(EXTERNAL, NEW, play.now)
    play.gateway.move_address(EXTERNAL, NEW, moved)
    play.table.take_changes()
    play.settings = replace(play.settings, external_addresses=(NEW,))


@pytest.fixture(params=[False, True], ids=["running", "restarted"])
def play(request: pytest.FixtureRequest) -> Playbook:
    """Returns a playbook with a registration and a call whose address has moved."""
    play = Playbook()
    play.store()
    grant(play, f"{OUR_CONTACT};expires=3600")
    call_out(play)
    call_in(play)
    move(play)
    if request.param:
        play.restart()
    return play


def test_a33_every_mapping_keeps_its_port_and_its_owner(play: Playbook) -> None:
    assert set(play.mappings().values()) == {f"{NEW}:{port}" for port in (5060, 4000, 4001)}
    assert state(play) == "call"


def test_a33_the_phones_that_must_register_again_are_known(play: Playbook) -> None:
    assert play.gateway.registered() == [(PHONE, Endpoint(NEW, 5060))]


def test_a33_both_calls_end_as_before(play: Playbook) -> None:
    hang_up(play)
    assert media(play)
    bye = request("BYE", call_id="call-in", cseq=2, from_tag="remote", to_tag="phone")
    play.inbound(bye)
    play.outbound(response(bye, 200))
    assert media(play) == set()


def test_a33_a_call_that_is_left_ends_in_time(play: Playbook) -> None:
    play.wait(9000)
    assert play.rows() == []
    assert play.gateway.call_count == 0


def test_a33_the_next_registration_is_granted_behind_the_new_address(play: Playbook) -> None:
    sent = play.outbound(register(cseq=2))
    assert f"Contact: <sip:alice@{NEW}:5060>".encode() in sent.payload
    answer = response(sent.payload, 200, contact=f"<sip:alice@{NEW}:5060>;expires=7200")
    assert b"Contact: <sip:alice@10.0.0.20:5060>" in play.inbound(answer).payload
    play.wait(7190)
    hang_up(play)
    bye = request("BYE", call_id="call-in", cseq=2, from_tag="remote", to_tag="phone")
    play.inbound(bye)
    play.outbound(response(bye, 200))
    assert state(play) == "registered"


def test_a45_a_reinvite_writes_the_new_address_and_moves_nothing() -> None:
    play = Playbook()
    call_out(play)
    move(play)
    sent = play.outbound(invite(PHONE, offer(), cseq=2, to_tag="b"))
    assert f"c=IN IP4 {NEW}\r\n".encode() in sent.payload
    assert b"m=audio 4000 " in sent.payload
    play.inbound(response(sent.payload, 200, body=ANSWER))
    play.wait(60)
    assert media(play) == {"10.0.0.20:4000", "10.0.0.20:4001"}
    hang_up(play, cseq=3)
    assert media(play) == set()


def test_a17_the_form_that_a_phone_writes_is_still_known() -> None:
    play = Playbook()
    play.outbound(register())
    learned = register(cseq=2).replace(
        b"Contact: <sip:alice@10.0.0.20", b"Contact: <sip:a@203.0.113.1"
    )
    play.outbound(learned)
    move(play)
    asked = play.arrive(request("OPTIONS", uri=f"sip:a@{NEW}:5060", call_id="in"), f"{NEW}:5060")
    assert asked.payload.startswith(f"OPTIONS sip:a@{NEW}:5060 ".encode())
    play.outbound(register(cseq=3))
    asked = play.arrive(request("OPTIONS", uri=f"sip:a@{NEW}:5060", call_id="in"), f"{NEW}:5060")
    assert asked.payload.startswith(b"OPTIONS sip:a@10.0.0.20:5060 ")


def test_a33_what_the_old_address_says_is_not_ours_any_more() -> None:
    play = Playbook()
    play.outbound(register())
    move(play)
    asked = play.inbound(request("OPTIONS", uri=f"sip:a@{EXTERNAL}:5060", call_id="in"))
    assert asked.edits == ()


def test_a33_what_is_dropped_with_its_address_leaves_nothing_behind() -> None:
    play = Playbook()
    via_bare = register().replace(b"10.0.0.20:5060", b"10.0.0.20")
    play.outbound(register(Endpoint("10.0.0.21", 5060)), Endpoint("10.0.0.21", 5060))
    play.outbound(via_bare)
    external = play.mappings()["10.0.0.20:5060"]
    assert external != f"{EXTERNAL}:5060"
    assert ("written", f"via udp {external}") in dict(play.gateway.take_touched(has_all=True))
    for binding in play.table.bindings():
        for pinhole in play.table.pinholes(binding):
            play.table.close(binding, pinhole.owner, play.now)
    move(play)
    assert not [key for key in dict(play.gateway.take_touched(has_all=True)) if key[0] == "written"]
