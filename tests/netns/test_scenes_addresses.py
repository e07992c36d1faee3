"""The external interface in motion: a new address in a call, a lost link, several addresses."""

from __future__ import annotations

import pytest

from nat_table.endpoint import Endpoint
from tests.lab.agents import wait_until
from tests.lab.gateway import Gateway
from tests.lab.message import bare_uri, uri_endpoint
from tests.lab.network import (
    EXTERNAL,
    EXTERNAL_INTERFACE,
    PHONE_1,
    SERVER,
    Network,
)
from tests.lab.sdp import media_endpoint
from tests.lab.site import SERVER_MEDIA_1, SERVER_MEDIA_2, Site
from tests.netns.calls import check_audio, hears, media_is_released

pytestmark = [pytest.mark.netns, pytest.mark.timeout(90)]

NEW_EXTERNAL = "203.0.113.2"
MORE_PHONES = [f"10.0.0.{number}" for number in range(22, 28)]
# The promise is a second; a machine that is busy with other tests may take some more.
SOON = 3.0


def external_addresses(gateway: Gateway) -> set[str]:
    """Returns the external addresses that mappings have."""
    return {str(row["external"]).partition(":")[0] for row in gateway.show_mappings()}


def test_a33_a93_a_new_external_address_in_a_call_takes_the_mappings_along(
    site: Site, network: Network, gateway: Gateway
) -> None:
    phone, server = site.phone_1, site.server
    site.register(phone)
    sent, offer = site.call_out(phone)
    talk = site.talk(phone, offer, SERVER_MEDIA_1)
    assert talk.flows_on()
    assert external_addresses(gateway) == {EXTERNAL}

    network.replace_external(NEW_EXTERNAL)
    assert wait_until(lambda: external_addresses(gateway) == {NEW_EXTERNAL}, SOON), gateway.log
    moved = Endpoint(NEW_EXTERNAL, talk.external.port)
    assert hears(talk.far, moved)
    assert wait_until(
        lambda: any(PHONE_1 in line and "register" in line for line in gateway.log), SOON
    ), gateway.log

    phone.send("INVITE", call=sent, sdp=phone.offer(version=2))
    again = server.expect("INVITE", call=sent)
    assert media_endpoint(again.body) == moved
    server.reply(again, 200, sdp=server.offer(version=2))
    phone.expect(200, call=sent)
    phone.send("ACK", call=sent)
    server.expect("ACK", call=sent)
    talk.far.send_to(moved)
    assert talk.flows_on()
    site.hang_up(phone, server, sent)
    assert media_is_released(gateway)

    site.register(phone)
    assert uri_endpoint(server.registrations["phone1"]).address == NEW_EXTERNAL
    called, answer = site.call_in(phone, sdp=server.offer(media=SERVER_MEDIA_2))
    talk.stop()
    near, far = talk.near, site.listen(network.wan, SERVER_MEDIA_2)
    near.sources.clear()
    far.send_to(media_endpoint(answer.body))
    near.send_to(SERVER_MEDIA_2)
    assert hears(near, SERVER_MEDIA_2)
    assert hears(far, media_endpoint(answer.body))
    site.hang_up(server, phone, called)
    assert media_is_released(gateway)


@pytest.mark.configured(on_address_change="drop")
def test_a33_a_new_address_ends_all_mappings_where_the_configuration_says_so(
    site: Site, network: Network, gateway: Gateway
) -> None:
    site.register(site.phone_1)
    site.call_out(site.phone_1)
    network.replace_external(NEW_EXTERNAL)
    assert wait_until(lambda: not gateway.show_mappings(), SOON), gateway.log
    site.register(site.phone_1)
    assert external_addresses(gateway) == {NEW_EXTERNAL}


@pytest.mark.parametrize("accident", ["blink", "remake"])
def test_a93_an_external_interface_that_goes_and_comes_back_is_survived(
    site: Site, network: Network, gateway: Gateway, accident: str
) -> None:
    for phone in (site.phone_1, site.phone_2):
        site.register(phone)
    sent, offer = site.call_out(site.phone_1)
    talk = site.talk(site.phone_1, offer, SERVER_MEDIA_1)
    assert talk.flows_on()

    if accident == "blink":
        network.blink_external()
    else:
        network.remake_external()
    assert gateway.is_running
    assert talk.flows_on(timeout=10.0)
    talk.near.sources.clear()
    talk.far.sources.clear()
    assert talk.flows_on()
    assert set(talk.near.sources) == {SERVER_MEDIA_1}
    assert set(talk.far.sources) == {talk.external}
    said = [line for line in gateway.log if " wan0 is " in line]
    assert said == ["sipnat: wan0 is down or gone", "sipnat: wan0 is up"]

    called, answer = site.call_in(site.phone_2, sdp=site.server.offer(media=SERVER_MEDIA_2))
    check_audio(site.talk(site.phone_2, answer, SERVER_MEDIA_2))
    site.hang_up(site.server, site.phone_2, called)
    site.hang_up(site.phone_1, site.server, sent)
    assert media_is_released(gateway)
    site.register(site.phone_1)


def test_a93_each_phone_keeps_to_one_of_several_external_addresses(network: Network) -> None:
    network.add_address(network.router, EXTERNAL_INTERFACE, NEW_EXTERNAL)
    for address in MORE_PHONES:
        network.add_address(network.lan, "eth0", address)
    both = [EXTERNAL, NEW_EXTERNAL]
    with Gateway(network.router, external_addresses=both) as gateway, Site(network) as site:
        phones = [site.phone_1, site.phone_2]
        phones += [site.add_phone(f"phone{address}", address) for address in MORE_PHONES]
        used = {}
        for number, phone in enumerate(phones):
            phone.register()
            arrived = site.server.accept_registration()
            phone.expect(200)
            contact = uri_endpoint(bare_uri(arrived["Contact"]))
            assert contact == arrived.source

            server_media = Endpoint(SERVER, 42000 + 2 * number)
            sent, offer = site.call_out(phone, answer=site.server.offer(media=server_media))
            assert media_endpoint(offer.body).address == offer.source.address == contact.address
            used[phone.user] = contact.address
            check_audio(site.talk(phone, offer, server_media), 0.5)
            site.hang_up(phone, site.server, sent)
        assert set(used.values()) == set(both), used
        assert media_is_released(gateway)


@pytest.mark.parametrize("key", [None, "external_addresses"])
def test_a33_an_address_that_changed_while_the_gateway_was_down_is_followed(
    network: Network, key: str | None
) -> None:
    def only(address: str) -> dict[str, object]:
        return {key: [address]} if key else {}

    with Gateway(network.router, **only(EXTERNAL)) as gateway, Site(network) as site:
        sent, offer = site.call_out(site.phone_1)
        talk = site.talk(site.phone_1, offer, SERVER_MEDIA_1)
        gateway.stop()
        network.replace_external(NEW_EXTERNAL)
        gateway.configure(**only(NEW_EXTERNAL))
        gateway.start()
        assert external_addresses(gateway) == {NEW_EXTERNAL}, gateway.log
        assert hears(talk.far, Endpoint(NEW_EXTERNAL, talk.external.port))
        site.hang_up(site.phone_1, site.server, sent)
        assert media_is_released(gateway)
