"""Registrations as transcripts: a binding lives as long as the registrar's 2xx says."""

from __future__ import annotations

import msgspec
import pytest

from alg.dialogs.registration import Registrations
from alg.sip.name_addr import MAX_ADDR_SPEC
from alg.verdict import Outcome
from tests.alg.playbook import PHONE, PHONE_2, Playbook, register, request, response

OUR_CONTACT = "<sip:alice@203.0.113.1:5060>"


def expires_in(play: Playbook, internal: str = "10.0.0.20:5060") -> float:
    """Returns the seconds that the signalling mapping has left, 0 where it is gone."""
    rows = [row for row in play.rows() if row["internal"] == internal]
    return float(str(rows[0]["expires_in"])) if rows else 0.0


def state(play: Playbook, internal: str = "10.0.0.20:5060") -> object:
    return next((row["state"] for row in play.rows() if row["internal"] == internal), None)


def grant(play: Playbook, contact: str | None, *headers: str, cseq: int = 1) -> Outcome:
    """Registers and has it granted by a 200 with this Contact; returns the 200's outcome."""
    asked = play.outbound(register(cseq=cseq))
    return play.inbound(response(asked.payload, 200, *headers, contact=contact))


def test_a28_a_register_alone_registers_nothing() -> None:
    play = Playbook()
    play.outbound(register())
    assert state(play) == "open"


def test_a26_the_lifetime_is_what_the_2xx_grants_not_what_was_asked() -> None:
    play = Playbook()
    grant(play, f"{OUR_CONTACT};expires=1800")
    assert state(play) == "registered"
    assert expires_in(play) == pytest.approx(1800, abs=1)


def test_a27_without_a_contact_parameter_the_expires_field_counts() -> None:
    play = Playbook()
    grant(play, OUR_CONTACT, "Expires: 900")
    assert expires_in(play) == pytest.approx(900, abs=1)


def test_a27_without_any_expires_it_is_an_hour() -> None:
    play = Playbook()
    grant(play, OUR_CONTACT)
    assert expires_in(play) == pytest.approx(3600, abs=1)


def test_a25_the_contact_in_the_200_is_what_the_phone_wrote() -> None:
    play = Playbook()
    answer = grant(play, f'{OUR_CONTACT};expires=60;+sip.instance="<urn:uuid:1>"')
    assert b'Contact: <sip:alice@10.0.0.20:5060>;expires=60;+sip.instance="<urn:' in answer.payload


def test_a25_bindings_of_others_in_the_200_are_left_alone() -> None:
    play = Playbook()
    foreign = "<sip:alice@198.51.100.7:5060>;expires=77"
    answer = grant(play, f"{foreign}, {OUR_CONTACT};expires=60")
    assert foreign.encode() in answer.payload
    assert expires_in(play) == pytest.approx(60, abs=301)


@pytest.mark.parametrize("status", [401, 407, 423, 500])
def test_a28_a_final_response_other_than_2xx_changes_nothing(status: int) -> None:
    play = Playbook()
    asked = play.outbound(register())
    play.inbound(response(asked.payload, status))
    assert state(play) == "open"


def test_a28_the_401_loop_ends_in_one_registration() -> None:
    play = Playbook()
    for cseq in (1, 2, 3):
        asked = play.outbound(register(cseq=cseq))
        play.inbound(response(asked.payload, 401))
    grant(play, f"{OUR_CONTACT};expires=600", cseq=4)
    assert state(play) == "registered"
    assert play.gateway.registration_count == 1


def test_a29_the_mapping_outlives_any_udp_timeout() -> None:
    play = Playbook()
    grant(play, f"{OUR_CONTACT};expires=3600")
    play.wait(3590)
    assert play.mappings() == {"10.0.0.20:5060": "203.0.113.1:5060"}
    play.wait(60)
    assert play.mappings() == {}


def test_a_refresh_moves_the_deadline() -> None:
    play = Playbook()
    grant(play, f"{OUR_CONTACT};expires=600")
    play.wait(500)
    grant(play, f"{OUR_CONTACT};expires=600", cseq=2)
    play.wait(500)
    assert state(play) == "registered"


def test_a26_expires_0_ends_the_registration_and_the_flow_ends_the_mapping() -> None:
    play = Playbook()
    grant(play, f"{OUR_CONTACT};expires=3600")
    asked = play.outbound(register(cseq=2, expires=0))
    play.inbound(response(asked.payload, 200))
    assert state(play) == "open"
    play.wait(400)
    assert play.mappings() == {}


def test_a26_a_wildcard_ends_every_contact_of_the_registration() -> None:
    play = Playbook()
    grant(play, f"{OUR_CONTACT};expires=3600")
    wildcard = register(cseq=2, expires=0).replace(b"<sip:alice@10.0.0.20:5060>", b"*")
    asked = play.outbound(wildcard)
    play.inbound(response(asked.payload, 200))
    assert state(play) == "open"


def test_a26_a_fetch_changes_nothing() -> None:
    play = Playbook()
    grant(play, f"{OUR_CONTACT};expires=3600")
    fetch = register(cseq=2, expires=None).replace(b"Contact: <sip:alice@10.0.0.20:5060>\r\n", b"")
    asked = play.outbound(fetch)
    play.inbound(response(asked.payload, 200, contact=f"{OUR_CONTACT};expires=3000"))
    assert state(play) == "registered"
    assert expires_in(play) == pytest.approx(3000, abs=1)


def test_a26_several_contacts_have_lifetimes_of_their_own() -> None:
    play = Playbook()
    second = "Contact: <sip:alice@10.0.0.20:5062>"
    asked = play.outbound(register(PHONE, second))
    granted = "<sip:alice@203.0.113.1:5062>;expires=700"
    play.inbound(response(asked.payload, 200, contact=f"{OUR_CONTACT};expires=500, {granted}"))
    assert expires_in(play, "10.0.0.20:5060") == pytest.approx(500, abs=1)
    assert expires_in(play, "10.0.0.20:5062") == pytest.approx(700, abs=1)


def test_a_registrar_that_lists_nothing_has_still_granted() -> None:
    play = Playbook()
    grant(play, None, "Expires: 1200")
    assert expires_in(play) == pytest.approx(1200, abs=1)


def test_a32_two_phones_share_a_call_id_and_an_account() -> None:
    play = Playbook()
    grant(play, f"{OUR_CONTACT};expires=3600")
    asked = play.outbound(register(PHONE_2), PHONE_2)
    external = play.mappings()["10.0.0.21:5060"]
    answer = response(asked.payload, 200, contact=f"<sip:alice@{external}>;expires=3600")
    play.inbound(answer, PHONE_2)
    asked = play.outbound(register(PHONE_2, cseq=2, expires=0), PHONE_2)
    play.inbound(response(asked.payload, 200), PHONE_2)
    assert state(play, "10.0.0.20:5060") == "registered"
    assert state(play, "10.0.0.21:5060") == "open"


def test_a83_a_200_nobody_asked_for_grants_nothing() -> None:
    play = Playbook()
    play.outbound(request("OPTIONS"))
    forged = play.outbound(register(call_id="other"))
    forged_answer = response(forged.payload, 200, contact=f"{OUR_CONTACT};expires=99999")
    play.inbound(forged_answer.replace(b"CSeq: 1 ", b"CSeq: 7 "))
    assert state(play) == "open"


def test_a17_a_phone_that_learned_its_external_endpoint_gets_it_back() -> None:
    """As pjsip does: it removes the Contact it wrote first and registers what received= said."""
    play = Playbook()
    grant(play, f"{OUR_CONTACT};expires=300")
    old, new = b"<sip:alice@10.0.0.20:5060>", OUR_CONTACT.encode()
    moved = register(cseq=2, expires=None).replace(
        old, old + b";expires=0," + new + b";expires=300"
    )
    asked = play.outbound(moved)
    answer = play.inbound(response(asked.payload, 200, contact=f"{OUR_CONTACT};expires=300"))
    assert b"Contact: " + new + b";expires=300" in answer.payload
    assert b"Via: SIP/2.0/UDP 10.0.0.20:5060;" in answer.payload
    assert state(play) == "registered"
    invited = play.inbound(request("OPTIONS", uri="sip:alice@203.0.113.1:5060", call_id="in"))
    assert invited.payload.startswith(b"OPTIONS sip:alice@203.0.113.1:5060 ")
    play.outbound(register(cseq=3))
    invited = play.inbound(request("OPTIONS", uri="sip:alice@203.0.113.1:5060", call_id="in"))
    assert invited.payload.startswith(b"OPTIONS sip:alice@10.0.0.20:5060 ")


def test_a30_expires_is_not_altered() -> None:
    play = Playbook()
    assert b"Expires: 3600\r\n" in play.outbound(register()).payload


def test_nothing_is_remembered_after_everything_ended() -> None:
    play = Playbook()
    grant(play, f"{OUR_CONTACT};expires=600")
    play.wait(5000)
    assert play.gateway.registration_count == 0
    assert play.rows() == []


def test_who_is_registered_is_known_and_a_name_of_any_length_is_cut() -> None:
    play = Playbook()
    asked = register().replace(b"To: <sip:", b"To: <sip:" + b"a" * 60_000)
    answer = response(play.outbound(asked).payload, 200, contact=f"{OUR_CONTACT};expires=60")
    play.inbound(answer)
    [(_, registration)] = play.gateway.state.registrations.all()
    assert registration.user == "sip:" + "a" * (MAX_ADDR_SPEC - 4)


def test_a_registration_that_an_earlier_release_has_stored_is_taken_back() -> None:
    play = Playbook()
    grant(play, f"{OUR_CONTACT};expires=1800")
    registrations = play.gateway.state.registrations
    [(_, row)] = registrations.take_rows(has_all=True)
    assert row is not None
    key, stored = msgspec.msgpack.decode(row, type=tuple[msgspec.Raw, dict[str, msgspec.Raw]])
    del stored["user"]
    earlier = Registrations(32.0, 10)
    earlier.put_row(msgspec.msgpack.encode((key, stored)), lambda binding: binding, play.now)
    [(_, registration)] = earlier.all()
    assert registration.granted and registration.user == ""
