"""Behind another NAT, a server between the two: it is reached by the address on the wire."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.coturn import Coturn
from tests.lab.double_nat import WIRE, DoubleNat
from tests.lab.gateway import Gateway
from tests.lab.message import uri_endpoint
from tests.lab.network import EXTERNAL, PHONE_2, REMOTE_1, REMOTE_2
from tests.lab.sdp import media_endpoint
from tests.lab.site import Site
from tests.netns.calls import check_audio, media_is_released
from tests.netns.upstream import meet, upstream

pytestmark = [pytest.mark.netns, pytest.mark.timeout(120)]

PBX = "192.168.1.10"


@pytest.fixture(params=["port restricted cone", "symmetric"])
def network(request: pytest.FixtureRequest) -> Iterator[DoubleNat]:
    """Yields a network with a PBX beside the upper NAT, and STUN servers beyond it."""
    with DoubleNat(request.param) as network, Coturn(network.wan, REMOTE_1, REMOTE_2):
        network.upper.run("ip", "address", "add", f"{PBX}/24", "dev", "eth0")
        yield network


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_calls_by_a_server_between_the_two_nats_go_on_as_if_there_were_one(
    network: DoubleNat, transport: str
) -> None:
    with Gateway(network.router, stun_servers=[REMOTE_1]) as gateway:
        is_symmetric = network.kind == "symmetric"
        assert upstream(gateway)["state"] == ("hands off" if is_symmetric else "in use")
        with Site(network, transport=transport) as beyond:
            beyond.register(beyond.phone_2)
            registered = uri_endpoint(beyond.server.registrations["phone2"])
            assert registered.address == (PHONE_2 if is_symmetric else EXTERNAL)

        network.wan = network.upper
        with Site(network, server=PBX, transport=transport) as site:
            site.register(site.phone_1)
            assert uri_endpoint(site.server.registrations["phone1"]).address == WIRE
            sent, offer = site.call_out(site.phone_1)
            assert media_endpoint(offer.body).address == WIRE
            talk = meet(site, offer, site.phone_1.media, site.server_media_1)
            check_audio(talk)
            site.hang_up(site.server, site.phone_1, sent)
            called, answer = site.call_in(site.phone_1, sdp=site.server.offer())
            assert media_endpoint(answer.body).address == WIRE
            site.hang_up(site.phone_1, site.server, called)
            assert media_is_released(gateway)
