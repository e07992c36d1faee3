"""A17: a client that asks for its mappings and names them itself, beside one that is rewritten."""

from __future__ import annotations

from dataclasses import replace

import pytest

from alg.port_manager.leases import Ask, LeaseLimits, Leases
from alg.port_manager.map_command import MapCommand
from alg.port_manager.mapping import Mapping, PortType
from alg.port_manager.mapping import Transport as Carrier
from alg.port_manager.port_manager import PortManager
from alg.verdict import Outcome, Reason, Verdict
from nat_table.binding import Kind
from nat_table.endpoint import UDP, Endpoint
from nat_table.lease import Source
from tests.alg.playbook import (
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

MEDIA = Endpoint("10.0.0.20", 4000)
LONG = 700.0  # longer than plain traffic keeps a mapping


class Client:
    """A phone's port manager on a playbook's table."""

    def __init__(self, play: Playbook, phone: Endpoint = PHONE) -> None:
        self.play = play
        self.leases = Leases(play.table, LeaseLimits(), play.table.take_changes)
        command = MapCommand(self.leases, lambda: play.now)
        self.ports = PortManager(command.answer, phone.address)
        self.sip = self.ports.get_mapping(SERVER, Carrier.UDP, PortType.SIP, phone)

    def rtp(self) -> Mapping:
        """Returns a mapping for audio."""
        return self.ports.get_mapping(
            SERVER, Carrier.UDP, PortType.RTP, Endpoint("10.0.0.20", 4000)
        )


@pytest.fixture
def play() -> Playbook:
    return Playbook()


def unchanged(outcome: Outcome) -> bytes:
    assert (outcome.verdict, outcome.reason) == (Verdict.UNCHANGED, Reason.NOTHING_TO_CHANGE)
    return outcome.payload


def test_A17_what_a_client_names_by_itself_passes_and_its_release_empties_the_table(
    play: Playbook,
) -> None:
    client = Client(play)
    external, audio = client.sip.external, client.rtp()
    asked = unchanged(play.outbound(register(external)))
    contact = f"<sip:alice@{external}>;expires=3600"
    unchanged(play.arrive(response(asked, 200, contact=contact), str(external)))
    offer = sdp(audio.external.address, audio.external.port)
    sent = unchanged(play.outbound(invite(external, offer)))
    answer = response(sent, 200, body=sdp("203.0.113.11", 30000), contact=f"<sip:bob@{SERVER}>")
    unchanged(play.arrive(answer, str(external)))
    for method in ("ACK", "BYE"):
        cseq = 1 if method == "ACK" else 2
        unchanged(play.outbound(request(method, external, cseq=cseq, to_tag="b")))
    called = request("OPTIONS", SERVER, uri=f"sip:alice@{external}", call_id="in")
    unchanged(play.arrive(called, str(external)))
    play.outbound(b"\r\n\r\n")
    owners = {
        pinhole.owner.scope
        for binding in play.table.bindings()
        for pinhole in play.table.pinholes(binding)
    }
    assert owners == {"lease"}
    client.ports.close()
    assert play.mappings() == {}


def test_A17_the_first_message_to_a_client_that_has_said_nothing_yet_passes(
    play: Playbook,
) -> None:
    external = Client(play).sip.external
    unchanged(play.arrive(request("INVITE", SERVER, uri=f"sip:a@{external}"), str(external)))


def test_A17_a_phone_that_a_script_has_mapped_is_rewritten_as_ever(play: Playbook) -> None:
    client = Client(play)
    sent = play.outbound(register())
    assert f"Contact: <sip:alice@{client.sip.external}>".encode() in sent.payload
    play.arrive(response(sent.payload, 200, "Expires: 3600"), str(client.sip.external))
    play.wait(LONG)
    client.ports.renew()
    called = request("INVITE", SERVER, uri=f"sip:alice@{client.sip.external}")
    arrived = play.arrive(called, str(client.sip.external))
    assert arrived.payload.startswith(b"INVITE sip:alice@10.0.0.20:5060 SIP/2.0")
    client.ports.close()
    assert play.mappings() == {"10.0.0.20:5060": "203.0.113.1:5060"}


def test_A17_a_mapped_phone_that_was_silent_for_long_still_gets_its_own_address(
    play: Playbook,
) -> None:
    client = Client(play)
    external = str(client.sip.external)
    play.outbound(request("OPTIONS"))
    play.wait(LONG)
    arrived = play.arrive(request("INVITE", SERVER, uri=f"sip:alice@{external}"), external)
    assert arrived.payload.startswith(b"INVITE sip:alice@10.0.0.20:5060 SIP/2.0")


@pytest.mark.parametrize("source", [Source.API, Source.PCP])
def test_A17_a_phone_that_spoke_before_it_was_mapped_is_rewritten_too(
    play: Playbook, source: Source
) -> None:
    play.outbound(request("OPTIONS"))
    leases = Leases(play.table, LeaseLimits(), play.table.take_changes)
    leases.request(Ask(source, UDP, PHONE, 3600, Kind.SIP), play.now)
    if source is Source.PCP:
        play.wait(LONG)
    called = request("INVITE", SERVER, uri="sip:alice@203.0.113.1:5060")
    arrived = play.arrive(called, "203.0.113.1:5060")
    assert arrived.payload.startswith(b"INVITE sip:alice@10.0.0.20:5060 SIP/2.0")


def test_A17_keepalives_hold_what_signalling_needs_after_the_lease_has_ended(
    play: Playbook,
) -> None:
    client = Client(play)
    play.outbound(request("OPTIONS"))
    for _ in range(5):
        play.wait(200)
        play.outbound(b"\r\n\r\n")
    client.ports.close()
    assert play.mappings() == {"10.0.0.20:5060": "203.0.113.1:5060"}


@pytest.mark.parametrize("source", [Source.PCP, Source.STATIC])
def test_A17_what_was_mapped_for_anything_becomes_signalling_where_sip_needs_it(
    play: Playbook, source: Source
) -> None:
    leases = Leases(play.table, LeaseLimits(), play.table.take_changes)
    ask = Ask(source, UDP, PHONE, 3600, wanted=20000)
    leases.request(ask, play.now)
    sent = play.outbound(register())
    assert b"Contact: <sip:alice@203.0.113.1:20000>" in sent.payload
    [row] = play.rows()
    assert (row["kind"], row["state"], row["source"]) == ("sip", "leased", source.value)
    again = leases.request(replace(ask, kind=Kind.ANY), play.now)
    assert again.binding.kind is Kind.SIP


def test_A17_media_between_a_client_and_a_phone_of_its_site_takes_the_way_it_names(
    play: Playbook,
) -> None:
    client = Client(play)
    audio = client.rtp()
    offer = sdp(audio.external.address, audio.external.port)
    called = play.outbound(register(PHONE_2, call_id="registration-2"), PHONE_2)
    play.arrive(response(called.payload, 200, "Expires: 3600"), str(play.mappings()[str(PHONE_2)]))
    invited = request("INVITE", SERVER, offer, uri=f"sip:b@{play.mappings()[str(PHONE_2)]}")
    arrived = play.inbound(invited, PHONE_2)
    assert offer.encode().replace(b"\n", b"\r\n") in arrived.payload
    answered = play.outbound(
        response(arrived.payload, 200, body=sdp("10.0.0.21", 4000), contact=f"<sip:b@{PHONE_2}>"),
        PHONE_2,
    )
    mapped = answered.payload.partition(b"\r\n\r\n")[2].decode()
    sent = play.outbound(invite(client.sip.external, offer, call_id="other-leg"))
    back = response(sent.payload, 200, body=mapped, contact=f"<sip:bob@{SERVER}>")
    unchanged(play.arrive(back, str(client.sip.external)))


@pytest.mark.parametrize("address", ["203.0.113.1", "192.0.2.7"])
def test_A17_the_first_mapping_of_a_socket_is_the_one_that_stun_has_seen(
    play: Playbook, address: str
) -> None:
    asked = []

    def masqueraded(internal: Endpoint) -> Endpoint:
        asked.append(internal)
        return Endpoint(address, 17000)

    play.gateway._masqueraded = masqueraded
    play.outbound(register())
    play.outbound(register(cseq=2))
    assert asked == [PHONE]
    port = 17000 if address == "203.0.113.1" else 5060
    assert play.mappings() == {str(PHONE): f"203.0.113.1:{port}"}
