"""What each message is said to have meant: the steps of its outcome."""

from __future__ import annotations

from alg.gateway_settings import GatewaySettings
from alg.verdict import Outcome, Step
from tests.alg.playbook import (
    EXTERNAL,
    PHONE,
    PHONE_2,
    Playbook,
    invite,
    register,
    request,
    response,
    sdp,
)

OFFER, ANSWER = Step.OFFER, Step.ANSWER
HERE, THERE = sdp("10.0.0.20", 4000), sdp("203.0.113.10", 40000)


def answered(play: Playbook) -> Outcome:
    """Sets up a call; returns the INVITE."""
    sent = play.outbound(invite(body=HERE))
    play.inbound(response(sent.payload, 200, body=THERE))
    play.outbound(request("ACK", to_tag="b"))
    return sent


def test_an_outbound_call_from_offer_to_end() -> None:
    play = Playbook()
    sent = play.outbound(invite(body=HERE))
    assert sent.steps == (OFFER,)
    assert play.inbound(response(sent.payload, 100)).steps == ()
    assert play.inbound(response(sent.payload, 180)).steps == (Step.RINGING,)
    assert play.inbound(response(sent.payload, 183, body=THERE)).steps == (ANSWER,)
    ok = response(sent.payload, 200, body=THERE)
    assert play.inbound(ok).steps == (ANSWER, Step.ANSWERED)
    assert play.inbound(ok).steps == (ANSWER,), "it is answered once"
    assert play.outbound(request("ACK", to_tag="b")).steps == ()
    bye = play.outbound(request("BYE", cseq=2, to_tag="b"))
    assert bye.steps == ()
    assert play.inbound(response(bye.payload, 200)).steps == (Step.ENDED,)


def test_an_offer_in_the_2xx_is_answered_in_the_ack() -> None:
    play = Playbook()
    sent = play.outbound(invite())
    assert sent.steps == ()
    ok = play.inbound(response(sent.payload, 200, body=THERE))
    assert ok.steps == (OFFER, Step.ANSWERED)
    assert play.outbound(request("ACK", body=HERE, to_tag="b")).steps == (ANSWER,)


def test_a_refused_re_invite_is_rolled_back_and_a_refused_invite_is_refused() -> None:
    play = Playbook()
    answered(play)
    again = invite(body=sdp("10.0.0.20", 4002, version=2), cseq=2, to_tag="b")
    offer = play.outbound(again)
    assert offer.steps == (OFFER,)
    assert play.inbound(response(offer.payload, 488)).steps == (Step.ROLLED_BACK,)

    other = play.outbound(invite(body=HERE, call_id="call-2"))
    challenge = play.inbound(response(other.payload, 407))
    assert challenge.steps == (), "it goes on with credentials"
    other = play.outbound(invite(body=HERE, call_id="call-2", cseq=2))
    assert play.inbound(response(other.payload, 486)).steps == (Step.REFUSED,)


def test_an_inbound_call_that_is_taken_and_one_that_is_refused_at_once() -> None:
    play = Playbook()
    registered = play.outbound(register())
    assert registered.steps == ()
    contact = "<sip:alice@203.0.113.1:5060>;expires=3600"
    ok = play.inbound(response(registered.payload, 200, contact=contact))
    assert ok.steps == (Step.REGISTERED,)
    for status, steps in ((200, (ANSWER, Step.ANSWERED)), (486, (Step.REFUSED,))):
        text = invite(PHONE, THERE, call_id=f"in-{status}").replace(b"10.0.0.20", b"203.0.113.10")
        came = play.inbound(text)
        assert came.steps == (OFFER,)
        body = HERE if status == 200 else ""
        assert play.outbound(response(came.payload, status, body=body)).steps == steps


def test_a_registration_that_ends() -> None:
    play = Playbook()
    play.inbound(response(play.outbound(register()).payload, 200))
    gone = play.outbound(register(cseq=2, expires=0))
    assert play.inbound(response(gone.payload, 401)).steps == ()
    gone = play.outbound(register(cseq=3, expires=0))
    assert play.inbound(response(gone.payload, 200)).steps == (Step.UNREGISTERED,)


def test_a_hairpin_offers_once_though_two_phones_see_it() -> None:
    play = Playbook(settings=GatewaySettings((EXTERNAL,), has_direct_media=False))
    sent = play.outbound(register(PHONE_2, call_id="registration-2"), PHONE_2)
    play.inbound(response(sent.payload, 200), PHONE_2)
    external = play.mappings()["10.0.0.21:5060"]
    text = invite(body=HERE).replace(b"bob@203.0.113.10", f"bob@{external}".encode())
    assert play.hairpin(text).steps == (OFFER,)
