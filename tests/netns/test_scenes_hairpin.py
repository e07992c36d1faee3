"""Calls between two phones of the site through the provider's server."""

from __future__ import annotations

import pytest

from tests.lab.agents import wait_until
from tests.lab.gateway import Gateway
from tests.lab.message import Message, bare_uri, uri_endpoint
from tests.lab.network import EXTERNAL, Network
from tests.lab.sdp import media_endpoint
from tests.lab.site import Conversation, Site
from tests.netns.calls import check_audio, media_is_released

pytestmark = [pytest.mark.netns, pytest.mark.timeout(90)]


def test_a57_audio_between_two_phones_stays_inside(
    site: Site, network: Network, gateway: Gateway
) -> None:
    phone_1, phone_2 = site.phone_1, site.phone_2
    sent, arrived, answered = call_through_server(site)
    assert media_endpoint(arrived.body) == phone_1.media
    assert media_endpoint(answered.body) == phone_2.media

    one, other = (site.listen(network.lan, phone.media) for phone in (phone_1, phone_2))
    one.send_to(media_endpoint(answered.body))
    other.send_to(media_endpoint(arrived.body))
    check_audio(Conversation(one, other, phone_1.media))
    assert "dport=4000" not in network.router.run("conntrack", "-L", "-p", "udp")

    site.hang_up(phone_2, phone_1, sent)
    assert media_is_released(gateway)


@pytest.mark.configured(direct_media=False)
def test_a57_audio_between_two_phones_passes_by_their_external_endpoints(
    site: Site, network: Network, gateway: Gateway
) -> None:
    phone_1, phone_2 = site.phone_1, site.phone_2
    sent, arrived, answered = call_through_server(site)
    external_1, external_2 = (media_endpoint(each.body) for each in (arrived, answered))
    rows = {row["internal"]: row["external"] for row in gateway.show_mappings("rtp")}
    assert rows == {str(phone_1.media): str(external_1), str(phone_2.media): str(external_2)}
    assert external_1.address == external_2.address == EXTERNAL

    one, other = (site.listen(network.lan, phone.media) for phone in (phone_1, phone_2))
    one.send_to(external_2)
    other.send_to(external_1)
    talk = Conversation(one, other, external_1)
    assert talk.flows_on()
    talk.stop()
    assert wait_until(lambda: talk.is_complete, 2.0)
    assert set(one.sources) == {external_2}
    assert set(other.sources) == {external_1}

    site.hang_up(phone_1, phone_2, sent)
    assert media_is_released(gateway)


def call_through_server(site: Site) -> tuple[Message, Message, Message]:
    """Calls phone 2 from phone 1; returns the INVITE as sent and as it came, and its 200."""
    phone_1, phone_2, server = site.phone_1, site.phone_2, site.server
    for phone in (phone_1, phone_2):
        site.register(phone)
    server.routes["phone2"] = [server.registrations["phone2"]]

    sent = phone_1.send("INVITE", phone_2.address_of_record, sdp=phone_1.offer())
    arrived = phone_2.expect("INVITE", call=sent)
    assert arrived.uri == bare_uri(phone_2.contact)
    assert uri_endpoint(bare_uri(arrived["Contact"])).address == EXTERNAL
    phone_2.reply(arrived, 180)
    phone_1.expect(180, call=sent)
    phone_2.reply(arrived, 200, sdp=phone_2.offer())
    answered = phone_1.expect(200, call=sent)
    phone_1.send("ACK", call=sent)
    phone_2.expect("ACK", call=sent)
    return sent, arrived, answered
