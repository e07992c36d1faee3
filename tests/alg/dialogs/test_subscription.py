"""Subscriptions as transcripts: NOTIFY finds the phone for as long as one lasts (A65, A66)."""

from __future__ import annotations

import pytest

from nat_table.endpoint import Endpoint
from tests.alg.dialogs.test_calls import AUDIO, call_out, media
from tests.alg.playbook import PHONE, SERVER, Playbook, request, response

SIP = "10.0.0.20:5060"
STRANGER = Endpoint("198.51.100.66", 5060)


@pytest.fixture
def play() -> Playbook:
    return Playbook()


def subscribe(play: Playbook, *headers: str, cseq: int = 1, method: str = "SUBSCRIBE") -> None:
    sent = play.outbound(request(method, call_id="sub", cseq=cseq))
    play.inbound(response(sent.payload, 200, *headers, contact="<sip:pbx@198.51.100.30>"))


def notify(state: str | None, cseq: int = 1) -> bytes:
    headers = ("Event: dialog",) if state is None else (f"Subscription-State: {state}",)
    return request("NOTIFY", PHONE, b"", *headers, call_id="sub", cseq=cseq, from_tag="b")


def lasts(play: Playbook, seconds: float) -> bool:
    """Whether the mapping stands after so long, and no longer than what plain traffic adds."""
    play.wait(seconds)
    is_there = SIP in play.mappings()
    play.wait(700)
    return is_there and SIP not in play.mappings()


def test_a66_a_2xx_grants_what_it_says(play: Playbook) -> None:
    subscribe(play, "Expires: 1800")
    assert set(play.remotes(SIP)) == {SERVER.address, "198.51.100.30"}
    assert lasts(play, 1790)


def test_a66_notify_says_how_long_it_still_lasts(play: Playbook) -> None:
    subscribe(play, "Expires: 600")
    play.inbound(notify("active;expires=3600"))
    assert lasts(play, 3590)


def test_a66_a_folded_state_in_other_case_reads_the_same(play: Playbook) -> None:
    subscribe(play, "Expires: 600")
    play.inbound(notify("PENDING ;\n  Expires = 3600"))
    assert lasts(play, 3590)


def test_a66_terminated_ends_it(play: Playbook) -> None:
    subscribe(play, "Expires: 3600")
    play.inbound(notify("terminated;reason=timeout"))
    play.wait(400)
    assert SIP not in play.mappings()


@pytest.mark.parametrize("state", [None, "active", "", "active;expires=x"])
def test_a66_a_notify_that_says_nothing_changes_nothing(play: Playbook, state: str) -> None:
    subscribe(play, "Expires: 1800")
    play.inbound(notify(state))
    assert lasts(play, 1790)


def test_a83_a_stranger_ends_no_subscription(play: Playbook) -> None:
    subscribe(play, "Expires: 1800")
    play.inbound(notify("terminated"), source=STRANGER)
    assert lasts(play, 1790)


def test_a66_a_notify_before_the_2xx_counts(play: Playbook) -> None:
    play.outbound(request("SUBSCRIBE", call_id="sub"))
    play.inbound(notify("active;expires=1800"))
    assert lasts(play, 1790)


def test_a66_unsubscribing_ends_it(play: Playbook) -> None:
    subscribe(play, "Expires: 3600")
    subscribe(play, "Expires: 0", cseq=2)
    play.wait(400)
    assert SIP not in play.mappings()


def test_a66_a_refused_refresh_leaves_what_was_granted(play: Playbook) -> None:
    subscribe(play, "Expires: 1800")
    sent = play.outbound(request("SUBSCRIBE", call_id="sub", cseq=2))
    play.inbound(response(sent.payload, 500))
    assert lasts(play, 1790)


def test_a66_the_phone_as_notifier_keeps_its_contact(play: Playbook) -> None:
    play.outbound(request("OPTIONS"))
    asked = request("SUBSCRIBE", call_id="sub", from_tag="watcher")
    play.inbound(asked)
    play.outbound(response(asked, 202, "Expires: 1200", contact=f"<sip:a@{PHONE}>"))
    assert play.remotes(SIP) == [SERVER.address]
    play.wait(1000)
    ours = request("NOTIFY", PHONE, b"", "Subscription-State: active;expires=200", call_id="sub")
    play.outbound(ours.replace(b"CSeq: 1 ", b"CSeq: 5 "))
    assert lasts(play, 190)


def test_a65_refer_waits_for_its_notify(play: Playbook) -> None:
    subscribe(play, method="REFER")
    play.wait(170)
    assert SERVER.address in play.remotes(SIP)
    play.inbound(notify("active;expires=1800"))
    assert lasts(play, 1790)


def test_a65_refer_within_a_call_leaves_the_call_alone(play: Playbook) -> None:
    call_out(play)
    sent = play.outbound(request("REFER", cseq=2, to_tag="b"))
    play.inbound(response(sent.payload, 202))
    done = request(
        "NOTIFY",
        PHONE,
        b"",
        "Subscription-State: terminated;reason=noresource",
        cseq=3,
        from_tag="b",
        to_tag="a",
    )
    play.inbound(done)
    play.wait(3600)
    assert media(play) == AUDIO
    assert SIP in play.mappings()


def test_a66_nothing_is_remembered_after_everything_ended(play: Playbook) -> None:
    subscribe(play, "Expires: 600")
    play.outbound(request("SUBSCRIBE", call_id="other"))
    play.wait(5000)
    play.store()
    assert play.stored == {}
    assert play.rows() == []


def test_a_subscription_keeps_the_latest_contacts_only(play: Playbook) -> None:
    for number in range(30):
        phone = Endpoint(PHONE.address, 6000 + number)
        sent = play.outbound(request("SUBSCRIBE", phone, call_id="sub", cseq=number + 1), phone)
        play.inbound(response(sent.payload, 200, "Expires: 600"), phone)
    play.wait(2)
    told = play.inbound(notify("active;expires=3600"))
    assert len(told.changes) < 20
    play.wait(3500)
    assert len(play.mappings("sip")) < 20
    assert "10.0.0.20:6029" in play.mappings("sip")


def test_no_peer_keeps_a_subscription_for_centuries(play: Playbook) -> None:
    subscribe(play, "Expires: 600")
    play.inbound(notify("active;expires=9999999999"))
    assert lasts(play, 604700)
