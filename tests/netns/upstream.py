"""What tests behind another NAT ask of the gateway, and how calls are made there."""

from __future__ import annotations

import json

from nat_table.endpoint import Endpoint
from tests.lab.gateway import Gateway
from tests.lab.message import Message, uri_endpoint
from tests.lab.network import EXTERNAL
from tests.lab.sdp import media_endpoint
from tests.lab.site import SERVER_MEDIA_1, SERVER_MEDIA_2, Conversation, Site
from tests.netns.calls import check_audio, hears, media_is_released

AT_NEXT_LOOK = 40.0
"""Seconds until what has changed above is noticed, at the latest."""


def upstream(gateway: Gateway) -> dict[str, object]:
    """Returns what `sipnat show upstream --json` prints."""
    [row] = json.loads(gateway.show("upstream", "--json"))
    return dict(row)


def externals(gateway: Gateway) -> set[str]:
    """Returns the addresses of mappings, as phones and servers see them."""
    return {row["external"].partition(":")[0] for row in gateway.show_mappings()}


def call_both_ways(site: Site, gateway: Gateway, public: str = EXTERNAL) -> None:
    """Registers, calls out and in, and checks every address and every packet."""
    for phone in (site.phone_1, site.phone_2):
        site.register(phone)
        assert uri_endpoint(site.server.registrations[phone.user]).address == public
    sent, offer = site.call_out(site.phone_1)
    called, answer = site.call_in(site.phone_2, sdp=site.server.offer(media=SERVER_MEDIA_2))
    for message in (offer, answer):
        assert media_endpoint(message.body).address == public
    assert externals(gateway) == {public}
    talks = [
        meet(site, offer, site.phone_1.media, SERVER_MEDIA_1),
        meet(site, answer, site.phone_2.media, SERVER_MEDIA_2),
    ]
    for talk in talks:
        check_audio(talk)
        talk.close()
    site.hang_up(site.server, site.phone_1, sent)
    site.hang_up(site.phone_2, site.server, called)
    assert media_is_released(gateway)


def meet(site: Site, offered: Message, near: Endpoint, far: Endpoint) -> Conversation:
    """Starts audio, the phone first: a NAT that filters lets in who has been sent to."""
    talk = Conversation(
        site.listen(site.network.lan, near),
        site.listen(site.network.wan, far),
        media_endpoint(offered.body),
    )
    talk.near.send_to(far)
    assert hears(talk.far, talk.external, packets=0)
    talk.far.send_to(talk.external)
    return talk
