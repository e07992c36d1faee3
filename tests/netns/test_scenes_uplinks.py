"""A router with two uplinks, and a gateway for each (A93)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from nat_table.endpoint import Endpoint
from tests.lab.agents import SipAgent, wait_until
from tests.lab.gateway import Gateway
from tests.lab.message import bare_uri, uri_endpoint
from tests.lab.network import (
    EXTERNAL,
    PHONE_1,
    SECOND_EXTERNAL,
    SECOND_INTERFACE,
    SECOND_SERVER,
    STRANGER,
    Network,
)
from tests.lab.rtp import RtpStream
from tests.lab.sdp import media_endpoint
from tests.lab.server import Server
from tests.lab.site import SERVER_MEDIA_1, Site
from tests.netns.calls import check_audio, hears, media_is_released
from tests.netns.kernel import conntrack

pytestmark = [pytest.mark.netns, pytest.mark.timeout(90)]

SOON = 3.0


@pytest.fixture
def gateways(network: Network) -> Iterator[tuple[Gateway, Gateway]]:
    """Yields the gateways of both uplinks."""
    network.add_uplink()
    with (
        Gateway(network.router) as first,
        Gateway(network.router, "--external", SECOND_INTERFACE, uplink=1) as second,
    ):
        yield first, second


def test_a93_a_host_with_providers_on_two_uplinks_has_signalling_and_media_on_each(
    network: Network, gateways: tuple[Gateway, Gateway]
) -> None:
    with (
        Site(network) as site,
        Server(network.wan, SECOND_SERVER) as server,
        SipAgent(
            network.lan,
            "phone1b",
            PHONE_1,
            5062,
            proxy=Endpoint(SECOND_SERVER, 5060),
            media_port=4100,
        ) as phone,
        RtpStream(network.lan, phone.media) as near,
        RtpStream(network.wan, server.media) as far,
    ):
        sent, offer = site.call_out(site.phone_1)
        talk = site.talk(site.phone_1, offer, SERVER_MEDIA_1)
        assert offer.source.address == media_endpoint(offer.body).address == EXTERNAL

        other = phone.send("INVITE", server.address_of_record, sdp=phone.offer())
        arrived = server.expect("INVITE", call=other)
        server.reply(arrived, 200, sdp=server.offer())
        phone.expect(200, call=other)
        phone.send("ACK", call=other)
        named = media_endpoint(arrived.body)
        contact = uri_endpoint(bare_uri(arrived["Contact"]))
        assert arrived.source.address == named.address == contact.address == SECOND_EXTERNAL
        near.send_to(server.media)
        far.send_to(named)
        assert hears(far, named) and hears(near, server.media)
        check_audio(talk)
        site.hang_up(phone, server, other)
        site.hang_up(site.phone_1, site.server, sent)
    assert all(media_is_released(each) for each in gateways)


def test_a93_a_call_goes_on_by_the_other_uplink_when_its_own_is_lost(
    network: Network, gateways: tuple[Gateway, Gateway]
) -> None:
    with (
        Server(network.wan, STRANGER) as server,
        SipAgent(network.lan, "phone1", PHONE_1, proxy=server.endpoint) as phone,
        RtpStream(network.lan, phone.media) as near,
        RtpStream(network.wan, server.media) as far,
    ):
        sent = phone.send("INVITE", server.address_of_record, sdp=phone.offer())
        arrived = server.expect("INVITE", call=sent)
        server.reply(arrived, 200, sdp=server.offer())
        phone.expect(200, call=sent)
        phone.send("ACK", call=sent)
        server.expect("ACK", call=sent)
        near.send_to(server.media)
        assert hears(far, media_endpoint(arrived.body))
        assert arrived.source.address == EXTERNAL

        network.lose_external()
        assert wait_until(lambda: f"dst={EXTERNAL} " not in conntrack(network), SOON)
        phone.send("INVITE", call=sent, sdp=phone.offer(version=2))
        again = server.expect("INVITE", call=sent)
        named = media_endpoint(again.body)
        assert named.address == uri_endpoint(bare_uri(again["Contact"])).address == SECOND_EXTERNAL
        server.reply(again, 200, sdp=server.offer(version=2))
        phone.expect(200, call=sent)
        phone.send("ACK", call=sent)
        far.send_to(named)
        assert hears(far, named) and hears(near, server.media)
        phone.send("BYE", call=sent)
        server.reply(server.expect("BYE", call=sent), 200)
        phone.expect(200, call=sent)
    assert media_is_released(gateways[1])
