"""Servers that answer audio to where it comes from, and SDP that is of no use (RFC 7362)."""

from __future__ import annotations

import pytest

from nat_table.endpoint import Endpoint
from tests.lab.agents import wait_until
from tests.lab.gateway import Gateway
from tests.lab.network import EXTERNAL, PHONE_1, STRANGER, Network
from tests.lab.rtp import LatchingStream, RtpStream
from tests.lab.sdp import media_endpoint
from tests.lab.site import SERVER_MEDIA_1, Site
from tests.netns.calls import media_is_released

pytestmark = [pytest.mark.netns, pytest.mark.timeout(90)]

PHONE_MEDIA = Endpoint(PHONE_1, 4000)
ELSEWHERE = Endpoint("192.168.77.7", 4000)
"""What a phone writes that believes in another interface, or has a VPN."""

OTHER_MEDIA = Endpoint(STRANGER, 40000)
PACKETS = 40
FILTERS = ("endpoint-independent", "address-dependent", "latch")

in_every_filter = pytest.mark.parametrize(
    "media_filter",
    [pytest.param(each, marks=pytest.mark.configured(media_filter=each)) for each in FILTERS],
)


@in_every_filter
@pytest.mark.parametrize("written", [PHONE_MEDIA, ELSEWHERE], ids=["own", "useless"])
def test_a_server_that_latches_hears_and_is_heard(
    site: Site, network: Network, gateway: Gateway, media_filter: str, written: Endpoint
) -> None:
    phone = site.phone_1
    site.register(phone)
    call, arrived = site.call_out(phone, sdp=phone.offer(media=written))
    assert len(gateway.show_mappings("rtp")) == (written == PHONE_MEDIA)
    with (
        RtpStream(network.lan, PHONE_MEDIA) as near,
        LatchingStream(network.wan, SERVER_MEDIA_1) as far,
    ):
        near.send_to(SERVER_MEDIA_1)
        assert wait_until(lambda: min(near.received, far.received) >= PACKETS, 5.0)
        (source,) = far.sources
        assert list(near.sources) == [SERVER_MEDIA_1]
    if written == PHONE_MEDIA:
        assert source == media_endpoint(arrived.body)
    assert source.address == EXTERNAL
    site.hang_up(phone, site.server, call)
    assert media_is_released(gateway, call)


@in_every_filter
@pytest.mark.parametrize("written", [PHONE_MEDIA, ELSEWHERE], ids=["own", "useless"])
def test_answers_from_an_address_that_nobody_named_need_a_mapping_open_to_all(
    site: Site, network: Network, gateway: Gateway, media_filter: str, written: Endpoint
) -> None:
    phone = site.phone_1
    site.register(phone)
    site.call_out(phone, sdp=phone.offer(media=written))
    with (
        RtpStream(network.lan, PHONE_MEDIA) as near,
        RtpStream(network.wan, SERVER_MEDIA_1) as far,
        RtpStream(network.wan, OTHER_MEDIA) as other,
    ):
        near.send_to(SERVER_MEDIA_1)
        assert wait_until(lambda: far.received > 0, 5.0)
        other.send_to(next(iter(far.sources)))
        is_heard = wait_until(lambda: near.received >= PACKETS, 2.0)
    assert is_heard == (written == PHONE_MEDIA and media_filter == "endpoint-independent")
