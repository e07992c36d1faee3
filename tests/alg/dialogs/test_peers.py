"""Who may send signalling to a phone, and who is believed (A19, A31, A83, A86)."""

from __future__ import annotations

import pytest

from nat_table.endpoint import Endpoint
from tests.alg.dialogs.test_calls import (
    ANSWER,
    AUDIO,
    call_in,
    call_out,
    from_server,
    hang_up,
    media,
    offer,
)
from tests.alg.dialogs.test_registration import OUR_CONTACT, state
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

SIP = "10.0.0.20:5060"
STRANGER = Endpoint("198.51.100.66", 5060)
PEER = Endpoint("198.51.100.30", 5080)


@pytest.fixture
def play() -> Playbook:
    return Playbook()


def call_with(play: Playbook, *headers: str, contact: str | None = None) -> None:
    sent = play.outbound(invite(PHONE, offer()))
    play.inbound(response(sent.payload, 200, *headers, body=ANSWER, contact=contact))


def test_a86_a_registration_admits_its_registrar(play: Playbook) -> None:
    asked = play.outbound(register())
    assert play.remotes(SIP) == []
    play.inbound(response(asked.payload, 200, contact=OUR_CONTACT))
    assert play.remotes(SIP) == [SERVER.address]


def test_a31_the_registrar_before_may_go_on_sending(play: Playbook) -> None:
    for cseq, server in ((1, SERVER), (2, PEER)):
        asked = play.outbound(register(cseq=cseq), destination=server)
        play.inbound(response(asked.payload, 200, contact=OUR_CONTACT), source=server)
    assert play.remotes(SIP) == [PEER.address, SERVER.address]


def test_a83_a_2xx_from_elsewhere_grants_nothing(play: Playbook) -> None:
    asked = play.outbound(register())
    answer = response(asked.payload, 200, contact=OUR_CONTACT)
    play.inbound(answer, source=STRANGER)
    assert state(play) == "open"
    play.inbound(answer)
    assert state(play) == "registered"


def test_a83_a_2xx_with_another_branch_grants_nothing(play: Playbook) -> None:
    asked = play.outbound(register())
    answer = response(asked.payload, 200, contact=OUR_CONTACT)
    play.inbound(answer.replace(b"branch=z9hG4bK-", b"branch=z9hG4bK-guessed-"))
    assert state(play) == "open"


def test_a83_a_deregistration_is_believed_from_the_registrar_only(play: Playbook) -> None:
    asked = play.outbound(register())
    play.inbound(response(asked.payload, 200, contact=OUR_CONTACT))
    asked = play.outbound(register(cseq=2, expires=0))
    play.inbound(response(asked.payload, 200), source=STRANGER)
    assert state(play) == "registered"


def test_a19_a_call_admits_where_it_went_and_whom_the_answer_names(play: Playbook) -> None:
    call_with(
        play,
        "Record-Route: <sip:198.51.100.40;lr>",
        "Record-Route: <sip:198.51.100.41;lr>",
        contact=f"<sip:bob@{PEER}>",
    )
    named = {SERVER.address, PEER.address, "198.51.100.40"}
    assert set(play.remotes(SIP)) == named


@pytest.mark.parametrize("contact", ["<sip:bob@example.com>", "<sip:b@0.0.0.0>", "<tel:+1>", '"'])
def test_a_contact_without_an_address_admits_nobody(play: Playbook, contact: str) -> None:
    call_with(play, contact=contact)
    assert play.remotes(SIP) in ([SERVER.address], [])


def test_a19_a_bye_from_the_contact_itself_ends_the_call(play: Playbook) -> None:
    call_with(play, contact=f"<sip:bob@{PEER}>")
    bye = from_server("BYE", "call-1", 7, local="a", remote="b")
    play.inbound(bye, source=PEER)
    play.outbound(response(bye, 200), destination=PEER)
    assert media(play) == set()


def test_a83_a_bye_from_elsewhere_with_the_right_tags_ends_nothing(play: Playbook) -> None:
    call_out(play)
    bye = from_server("BYE", "call-1", 7, local="a", remote="b")
    passed = play.inbound(bye, source=STRANGER)
    assert b"BYE" in passed.payload
    play.outbound(response(bye, 200), destination=STRANGER)
    play.wait(40)
    assert media(play) == AUDIO


def test_a83_a_strangers_answer_does_not_end_the_phones_bye_early(play: Playbook) -> None:
    call_out(play)
    bye = play.outbound(request("BYE", cseq=2, to_tag="b"))
    play.inbound(response(bye.payload, 200), source=STRANGER)
    assert media(play) == AUDIO
    play.inbound(response(bye.payload, 200))
    assert media(play) == set()


def test_a83_a_stranger_does_not_become_a_peer_by_asking(play: Playbook) -> None:
    call_out(play)
    asked = request("INFO", call_id="call-1", cseq=8, from_tag="b", to_tag="a")
    play.inbound(asked, source=STRANGER)
    play.outbound(response(asked, 200), destination=STRANGER)
    assert STRANGER.address not in play.remotes(SIP)


def test_a_cancel_from_outside_ends_nothing(play: Playbook) -> None:
    call_in(play, status=183)
    play.inbound(from_server("CANCEL", "call-in", 1, local="", remote="remote"))
    play.wait(60)
    assert media(play) == AUDIO


def test_a31_a_call_in_admits_the_one_who_called(play: Playbook) -> None:
    play.outbound(request("OPTIONS", call_id="keep"))
    asked = invite(PHONE, ANSWER, call_id="in", from_tag="r")
    asked = asked.replace(b"Contact: <sip:alice@10.0.0.20:5060>", b"Contact: <sip:b@198.51.100.30>")
    play.inbound(asked, source=STRANGER)
    play.outbound(response(asked, 200, body=offer(), to_tag="p", contact=f"<sip:a@{PHONE}>"))
    assert set(play.remotes(SIP)) == {SERVER.address, STRANGER.address, PEER.address}


def test_a_repeated_message_changes_no_remote(play: Playbook) -> None:
    call_with(play, contact=f"<sip:bob@{PEER}>")
    before = play.remotes(SIP)
    for cseq in range(2, 6):
        asked = play.outbound(request("OPTIONS", cseq=cseq, to_tag="b"))
        answered = play.inbound(response(asked.payload, 200, contact="<sip:bob@198.51.100.30:9>"))
        assert (asked.changes, answered.changes) == ((), ())
    assert play.remotes(SIP) == before


def test_no_more_than_eight_peers_are_kept(play: Playbook) -> None:
    call_out(play)
    for number in range(20):
        contact = f"<sip:bob@198.51.100.{number + 1}>"
        asked = play.outbound(request("UPDATE", cseq=number + 2, to_tag="b"))
        play.inbound(response(asked.payload, 200, contact=contact))
    assert len(play.remotes(SIP)) == 8
    assert SERVER.address in play.remotes(SIP), "whom the phone sends to stays"


def test_what_a_call_admitted_ends_with_it(play: Playbook) -> None:
    call_with(play, contact=f"<sip:bob@{PEER}>")
    hang_up(play)
    assert play.remotes(SIP) == []


def test_a57_the_peer_of_a_call_inside_is_the_other_phone(play: Playbook) -> None:
    play.outbound(register())
    play.outbound(register(PHONE_2), PHONE_2)
    asked = invite(PHONE, offer())
    play.hairpin(asked)
    play.hairpin(response(asked, 200, contact=f"<sip:b@{PHONE_2}>"), PHONE_2, PHONE)
    bye = request("BYE", PHONE_2, from_tag="b", to_tag="a", cseq=7)
    assert play.gateway.call_count == 2
    play.hairpin(bye, PHONE_2, PHONE)
    play.hairpin(response(bye, 200), PHONE, PHONE_2)
    play.wait(40)
    assert play.gateway.call_count == 0
