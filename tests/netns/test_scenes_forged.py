"""What comes from outside and is not meant well, or only seems so: forged messages, strange media.

SIP that nobody asked for stays outside, except from the provider; what passes for the provider's
ends nothing that it does not know by its tags; audio comes from whom the configuration admits.
"""

from __future__ import annotations

import secrets
import time

import pytest

from nat_table.endpoint import Endpoint
from tests.lab.agents import SipAgent, Timeout, receive_all, wait_until
from tests.lab.gateway import Gateway
from tests.lab.message import parameter, uri_endpoint
from tests.lab.network import REMOTE_1, REMOTE_2, SERVER, STRANGER, Network
from tests.lab.sdp import media_endpoint, render_sdp
from tests.lab.site import SERVER_MEDIA_1, Conversation, Site
from tests.netns.calls import check_audio, hears, media_is_released

pytestmark = [pytest.mark.netns, pytest.mark.timeout(90)]

# Long enough for a message to have come through if it can.
SILENCE = 1.0
# Refusals are looked for every five seconds.
LOG_INTERVAL = 7.0
GUESSED = ("guessed-1", "guessed-2")


@pytest.mark.parametrize("source", [Endpoint(REMOTE_1, 5062), Endpoint(STRANGER, 5060)], ids=str)
def test_a86_a_call_from_nobody_known_stays_outside(
    site: Site, network: Network, source: Endpoint
) -> None:
    site.register(site.phone_2)
    with SipAgent(network.wan, "scanner", *source) as scanner:
        contact = site.server.registrations["phone2"]
        for method in ("INVITE", "OPTIONS"):
            scanner.send(method, contact, sdp=scanner.offer())
            with pytest.raises(Timeout):
                site.phone_2.expect(method, timeout=SILENCE)
    site.call_in(site.phone_2)


def test_a31_another_port_of_the_registrar_reaches_the_phone(site: Site, network: Network) -> None:
    check_options_reach_the_phone(site, network, Endpoint(SERVER, 5062))


@pytest.mark.configured(servers=[REMOTE_2, f"{REMOTE_1}/32"])
def test_a31_a_configured_edge_of_the_provider_reaches_the_phone(
    site: Site, network: Network
) -> None:
    check_options_reach_the_phone(site, network, Endpoint(REMOTE_1, 5062))


@pytest.mark.configured(signalling_filter="endpoint-independent")
def test_a31_anybody_reaches_the_phone_if_the_configuration_says_so(
    site: Site, network: Network
) -> None:
    check_options_reach_the_phone(site, network, Endpoint(STRANGER, 5062))


def test_a31_somebody_whom_the_phone_wrote_to_reaches_it(site: Site, network: Network) -> None:
    direct_address = site.phone_2.endpoint.address
    with (
        SipAgent(network.wan, "friend", REMOTE_1) as friend,
        SipAgent(network.lan, "direct", direct_address, 5070) as direct,
    ):
        direct.send("OPTIONS", friend.address_of_record)
        asked = friend.expect("OPTIONS")
        friend.reply(asked, 200)
        direct.expect(200)
        friend.send("OPTIONS", f"sip:direct@{asked.source}")
        direct.reply(direct.expect("OPTIONS"), 200)
        friend.expect(200)


@pytest.mark.parametrize(
    "source",
    [Endpoint(REMOTE_1, 5060), Endpoint(SERVER, 5099), Endpoint(STRANGER, 5060)],
    ids=["remote", "server-other-port", "stranger"],
)
def test_a83_forged_ends_end_nothing(
    site: Site, network: Network, gateway: Gateway, source: Endpoint
) -> None:
    phone, server = site.phone_1, site.server
    registered = site.register(phone)
    sent, offer = site.call_out(phone)
    talk = site.talk(phone, offer, SERVER_MEDIA_1)
    assert talk.flows_on()
    before = standing(gateway)
    own_tag = parameter(sent["From"], "tag") or ""
    contact = uri_endpoint(server.registrations["phone1"])
    forged = [
        bye(source, contact, sent.call_id, *GUESSED),
        bye(source, contact, sent.call_id, GUESSED[0], own_tag),
        bye(source, contact, f"other-{sent.call_id}", *GUESSED),
        unregister(source, contact, registered.call_id),
        unregister(source, contact, "forged"),
    ]
    with network.wan.udp_socket(*source) as forger:
        for raw in forged:
            forger.sendto(raw, contact)
            answer_whatever_comes(phone)
        receive_all(forger)

    assert standing(gateway) == before
    check_audio(talk)
    assert standing(gateway) == before
    called, _ = site.call_in(phone)
    site.hang_up(server, phone, called)
    site.hang_up(phone, server, sent)
    assert media_is_released(gateway)
    assert {row["state"] for row in gateway.show_mappings("sip")} == {"registered"}


@pytest.mark.configured(media_filter="address-dependent")
def test_a84_only_signalled_addresses_send_audio_to_the_phone(site: Site, network: Network) -> None:
    phone, server = site.phone_1, site.server
    site.register(phone)
    called, answer = site.call_in(phone)
    external = media_endpoint(answer.body)
    near = site.listen(network.lan, phone.media)
    thieves = [
        site.listen(network.wan, Endpoint(address, 30000)) for address in (REMOTE_1, STRANGER)
    ]
    for thief in thieves:
        thief.send_to(external)
    assert wait_until(lambda: all(thief.sent > 20 for thief in thieves), 5.0)
    assert near.received == 0

    far = site.listen(network.wan, SERVER_MEDIA_1)
    far.send_to(external)
    near.send_to(far.endpoint)
    talk = Conversation(near, far, external)
    assert talk.flows_on()
    assert set(near.sources) == {far.endpoint}

    moved = site.listen(network.wan, Endpoint(REMOTE_2, 30000))
    server.send("INVITE", call=called, sdp=render_sdp(moved.endpoint, version=2))
    phone.reply(phone.expect("INVITE", call=called), 200, sdp=phone.offer(version=2))
    server.expect(200, call=called)
    server.send("ACK", call=called)
    phone.expect("ACK", call=called)
    moved.send_to(external)
    assert hears(near, moved.endpoint)
    assert {thief.endpoint for thief in thieves}.isdisjoint(near.sources)
    assert all(thief.received == 0 for thief in thieves)


@pytest.mark.configured(media_filter="latch")
@pytest.mark.parametrize("sender", [SERVER, REMOTE_2], ids=["signalled", "its-neighbour"])
def test_a84_audio_latches_to_the_first_of_the_signalled_network(
    site: Site, network: Network, sender: str
) -> None:
    phone = site.phone_1
    _, offer = site.call_out(phone)
    external = media_endpoint(offer.body)
    near = site.listen(network.lan, phone.media)
    stranger = site.listen(network.wan, Endpoint(STRANGER, 30000))
    stranger.send_to(external)
    assert wait_until(lambda: stranger.sent > 20, 5.0)
    assert near.received == 0, "the first packet is not of the signalled network"

    far = site.listen(network.wan, Endpoint(sender, SERVER_MEDIA_1.port))
    far.send_to(external)
    assert hears(near, far.endpoint)
    late = site.listen(network.wan, Endpoint(REMOTE_1, 30000))
    late.send_to(external)
    assert wait_until(lambda: late.sent > 20, 5.0)
    near.send_to(far.endpoint)
    talk = Conversation(near, far, external)
    assert talk.flows_on()
    assert set(near.sources) == {far.endpoint}
    assert set(far.sources) == {external}


@pytest.mark.configured(media_filter="address-dependent")
def test_whom_filtering_has_refused_is_logged_with_the_key_that_admits(
    site: Site, network: Network, gateway: Gateway
) -> None:
    phone = site.phone_1
    site.register(phone)
    called, answer = site.call_in(phone)
    thief = site.listen(network.wan, Endpoint(STRANGER, 30000))
    thief.send_to(media_endpoint(answer.body))
    with network.wan.udp_socket(REMOTE_1) as scanner:
        scanner.sendto(b"OPTIONS", uri_endpoint(site.server.registrations["phone1"]))
    assert wait_until(lambda: len(refusals(gateway)) == 2, LOG_INTERVAL)
    site.hang_up(phone, site.server, called)
    assert media_is_released(gateway)
    assert sorted(refusals(gateway)) == [
        f"sipnat: {STRANGER} was kept from the media at udp {phone.media}, as `media_filter` says",
        f"sipnat: {REMOTE_1} was kept from udp {phone.endpoint}: no phone has dealt with it; "
        "if it may call, add it to `servers`",
    ]


def refusals(gateway: Gateway) -> list[str]:
    """Returns what the log says about those whom filtering has refused."""
    return [line for line in gateway.log if "was kept from" in line]


def check_options_reach_the_phone(site: Site, network: Network, source: Endpoint) -> None:
    """Checks that a phone is asked from there, and answers from where it is registered."""
    site.register(site.phone_2)
    contact = site.server.registrations["phone2"]
    with SipAgent(network.wan, "edge", *source) as edge:
        edge.send("OPTIONS", contact)
        site.phone_2.reply(site.phone_2.expect("OPTIONS"), 200)
        assert edge.expect(200).source == uri_endpoint(contact)


def standing(gateway: Gateway) -> set[tuple[str, str, str]]:
    """Returns internal and external endpoint and state of each mapping."""
    return {(row["internal"], row["external"], row["state"]) for row in gateway.show_mappings()}


def answer_whatever_comes(phone: SipAgent) -> None:
    """Lets the phone answer the forged requests that reach it, a REGISTER as the forger wishes."""
    deadline = time.monotonic() + SILENCE
    while time.monotonic() < deadline:
        for method, status in (("BYE", 481), ("REGISTER", 200)):
            try:
                request = phone.expect(method, timeout=0.1)
            except Timeout:
                continue
            phone.reply(request, status)


def bye(source: Endpoint, contact: Endpoint, call_id: str, remote_tag: str, tag: str) -> bytes:
    """Renders a BYE to the phone, with these tags of the far and of its own side."""
    return request_head("BYE", source, contact, call_id, remote_tag, f";tag={tag}") + b"\r\n"


def unregister(source: Endpoint, contact: Endpoint, call_id: str) -> bytes:
    """Renders a REGISTER that takes the phone's Contact away."""
    head = request_head("REGISTER", source, contact, call_id, GUESSED[0], "")
    return head + f"Contact: <sip:phone1@{contact}>;expires=0\r\nExpires: 0\r\n\r\n".encode()


def request_head(
    method: str, source: Endpoint, contact: Endpoint, call_id: str, tag: str, to: str
) -> bytes:
    return (
        f"{method} sip:phone1@{contact} SIP/2.0\r\n"
        f"Via: SIP/2.0/UDP {source};branch=z9hG4bK{secrets.token_hex(8)};rport\r\n"
        f"From: <sip:server@{SERVER}>;tag={tag}\r\nTo: <sip:phone1@{SERVER}>{to}\r\n"
        f"Call-ID: {call_id}\r\nCSeq: 7 {method}\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n"
    ).encode()
