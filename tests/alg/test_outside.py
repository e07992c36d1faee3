"""Another NAT above: hosts on this side of it are shown the address on the wire, and use it."""

from __future__ import annotations

from ipaddress import IPv4Network

import pytest

from alg.outside import Outside
from alg.verdict import Reason
from nat_table.endpoint import Endpoint
from tests.alg.playbook import (
    EXTERNAL,
    PHONE,
    PHONE_2,
    SERVER,
    Playbook,
    invite,
    register,
    request,
    response,
    sdp,
)

WIRE = "192.168.1.2"
PBX = Endpoint("192.168.1.10", 5060)
NEAR = (IPv4Network("192.168.1.0/24"), IPv4Network("10.0.0.0/24"))


@pytest.fixture
def play() -> Playbook:
    playbook = Playbook()
    playbook.gateway.outside = Outside(EXTERNAL, WIRE, NEAR)
    return playbook


def test_a_server_on_the_wire_is_shown_the_wire_address_and_others_the_public_one(
    play: Playbook,
) -> None:
    offer = sdp("10.0.0.20", 4000, "a=rtcp:4001 IN IP4 10.0.0.20")
    near = play.outbound(invite(PHONE, offer), destination=PBX)
    assert f"{EXTERNAL}:".encode() not in near.payload and b"10.0.0.20" not in near.payload
    for line in (
        f"Via: SIP/2.0/UDP {WIRE}:5060;",
        f"Contact: <sip:alice@{WIRE}:5060>",
        f"o=- 1 1 IN IP4 {WIRE}",
        f"c=IN IP4 {WIRE}",
        f"a=rtcp:4001 IN IP4 {WIRE}",
    ):
        assert line.encode() in near.payload
    far = play.outbound(invite(PHONE, offer, call_id="call-2"), destination=SERVER)
    assert WIRE.encode() not in far.payload
    assert f"c=IN IP4 {EXTERNAL}".encode() in far.payload


def test_what_a_server_on_the_wire_writes_by_that_address_comes_back_as_the_phone_wrote_it(
    play: Playbook,
) -> None:
    sent = play.outbound(register(), destination=PBX)
    answer = response(sent.payload, 200, "Expires: 3600")
    back = play.inbound(answer, source=PBX)
    assert b"Via: SIP/2.0/UDP 10.0.0.20:5060;" in back.payload
    assert WIRE.encode() not in back.payload
    play.wait(3000)
    assert play.mappings() == {str(PHONE): f"{EXTERNAL}:5060"}, "it is registered"
    called = play.inbound(request("INVITE", PBX, uri=f"sip:alice@{WIRE}:5060"), source=PBX)
    assert called.payload.startswith(b"INVITE sip:alice@10.0.0.20:5060 SIP/2.0")


def test_a_phone_that_has_learned_the_wire_address_and_writes_it_is_left_alone(
    play: Playbook,
) -> None:
    play.outbound(register(), destination=PBX)
    sent = play.outbound(register(Endpoint(WIRE, 5060), cseq=2), destination=PBX)
    assert sent.edits == ()
    back = play.inbound(response(sent.payload, 200, "Expires: 3600"), source=PBX)
    assert back.edits == ()
    play.wait(3000)
    assert play.mappings() == {str(PHONE): f"{EXTERNAL}:5060"}


def test_media_of_two_phones_by_a_server_on_the_wire_stays_inside(play: Playbook) -> None:
    play.outbound(register(PHONE_2, call_id="registration-2"), PHONE_2, destination=PBX)
    sent = play.outbound(invite(PHONE, sdp("10.0.0.20", 4000)), destination=PBX)
    offer = sent.payload.partition(b"\r\n\r\n")[2].decode()
    external = play.mappings()[str(PHONE_2)].rpartition(":")[2]
    uri = f"sip:b@{WIRE}:{external}"
    called = request("INVITE", PBX, offer, uri=uri, call_id="other-leg")
    arrived = play.inbound(called, PHONE_2, source=PBX)
    assert b"c=IN IP4 10.0.0.20" in arrived.payload


def test_hands_are_off_for_those_beyond_the_nat_alone(play: Playbook) -> None:
    play.gateway.outside = Outside(EXTERNAL, EXTERNAL, NEAR, is_hands_off=True)
    far = play.outbound(register(), destination=SERVER)
    assert (far.reason, far.edits) == (Reason.HANDS_OFF, ())
    near = play.outbound(register(), destination=PBX)
    assert f"Contact: <sip:alice@{EXTERNAL}:5060>".encode() in near.payload
