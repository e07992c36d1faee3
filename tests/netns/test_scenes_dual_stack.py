"""Phones with addresses of both families: SIP over IPv4, media by whichever the other side has."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from nat_table.endpoint import Endpoint
from tests.lab.agents import wait_until
from tests.lab.gateway import Gateway
from tests.lab.network import EXTERNAL, REMOTE6_1, Network
from tests.lab.sdp import media_endpoint
from tests.lab.site import Site
from tests.netns.calls import check_audio, media_is_released
from tests.netns.kernel6 import FIREWALL, ROUTED_1, ROUTED_2, Bind, network_in

pytestmark = [pytest.mark.netns, pytest.mark.timeout(90)]

MEDIA6 = Endpoint(ROUTED_1, 4100)

ALTERNATIVES = b"a=altc:1 IP6 %b %d\r\na=altc:2 IP4 %b %d\r\n"
"""RFC 6947: both addresses of one stream."""

ANAT = (
    b"a=group:ANAT 1 2\r\n"
    b"m=audio %d RTP/AVP 0\r\nc=IN IP6 %b\r\na=mid:1\r\n"
    b"m=audio %d RTP/AVP 0\r\na=mid:2\r\n"
)
"""RFC 4091: a stream for each family, the first of which is preferred."""


@pytest.fixture
def network() -> Iterator[Network]:
    with network_in("pinhole", FIREWALL) as network:
        yield network


def with_alternatives(site: Site) -> bytes:
    """Returns the offer of the first phone, for both families in one stream."""
    return site.phone_1.offer() + alternatives(site.phone_1.media)


def alternatives(media: Endpoint) -> bytes:
    address6, address = MEDIA6.address.encode(), media.address.encode()
    return ALTERNATIVES % (address6, MEDIA6.port, address, media.port)


def as_anat(site: Site) -> bytes:
    """Returns the offer of the first phone, for each family in a stream of its own."""
    head, _, _ = site.phone_1.offer().partition(b"m=")
    return head + ANAT % (MEDIA6.port, MEDIA6.address.encode(), site.phone_1.media.port)


def is_open(bind: Bind, address: str) -> bool:
    """Tells whether anybody outside reaches a phone's media port by IPv6."""
    phone, remote = bind(address, MEDIA6.port), bind(REMOTE6_1)
    remote.send(b"audio", *phone.udp.getsockname()[:2])
    try:
        return phone.expect(b"audio") == Endpoint(*remote.udp.getsockname()[:2])
    except TimeoutError:
        return False


def test_A59_the_alternative_of_ipv4_carries_audio_and_that_of_ipv6_stays(
    network: Network, gateway: Gateway, site: Site, bind: Bind
) -> None:
    phone = site.phone_1
    sent, arrived = site.call_out(phone, sdp=with_alternatives(site))
    external = media_endpoint(arrived.body)
    assert external.address == EXTERNAL
    assert arrived.body.endswith(alternatives(external))
    with site.talk(phone, arrived, site.server_media_1) as talk:
        check_audio(talk)
    assert not is_open(bind, ROUTED_1)
    site.hang_up(phone, site.server, sent)
    assert media_is_released(gateway)


@pytest.mark.configured(media_hosts=[ROUTED_1])
@pytest.mark.parametrize("offer", [with_alternatives, as_anat])
def test_A59_a_named_media_host_is_open_by_ipv6_while_the_call_lasts(
    network: Network, gateway: Gateway, site: Site, bind: Bind, offer: Callable[[Site], bytes]
) -> None:
    phone = site.phone_1
    sent, arrived = site.call_out(phone, sdp=offer(site))
    assert MEDIA6.address.encode() in arrived.body
    assert str(MEDIA6.port).encode() in arrived.body
    assert EXTERNAL.encode() in arrived.body and phone.media.address.encode() not in arrived.body
    assert is_open(bind, ROUTED_1)
    assert not is_open(bind, ROUTED_2)
    site.hang_up(phone, site.server, sent)
    assert wait_until(lambda: not gateway.show_mappings("rtp", "rtcp"), 5.0)
    bind(REMOTE6_1, 4001).send(b"late", *MEDIA6)
    bind(ROUTED_1, MEDIA6.port).expect_nothing()
