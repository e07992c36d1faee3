"""Behind Debian's miniupnpd: each mapping is asked for there, before a message names it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from nat_table.endpoint import Endpoint
from tests.lab.agents import Timeout, wait_until
from tests.lab.double_nat import DoubleNat
from tests.lab.gateway import Gateway
from tests.lab.message import uri_endpoint
from tests.lab.miniupnpd import PUBLIC, Miniupnpd
from tests.lab.network import REMOTE_2
from tests.lab.sdp import media_endpoint
from tests.lab.site import SERVER_MEDIA_1, Site
from tests.netns.calls import AT_ONCE, check_audio, hears, media_is_released
from tests.netns.upstream import AT_NEXT_LOOK, call_both_ways, externals, meet, upstream

pytestmark = [pytest.mark.netns, pytest.mark.timeout(120)]

LOWEST_EPHEMERAL = 32768
PCP = {"external_address": "pcp"}


@pytest.fixture
def double_nat() -> Iterator[DoubleNat]:
    """Yields a network whose upper NAT lets nobody in but who has been sent to."""
    with DoubleNat("port restricted cone", public=PUBLIC) as network:
        yield network


@pytest.fixture
def above(double_nat: DoubleNat) -> Iterator[Miniupnpd]:
    with Miniupnpd(double_nat) as daemon:
        yield daemon


def ports(gateway: Gateway) -> set[str]:
    """Returns the ports that the table has, such as "udp 4000"."""
    return {
        f"{row['transport']} {row['external'].rpartition(':')[2]}"
        for row in gateway.show_mappings()
    }


def are_all_open(gateway: Gateway, above: Miniupnpd) -> bool:
    """Tells whether exactly what the table has is open above, and the ports of probes."""

    def has_settled() -> bool:
        wanted, opened = ports(gateway), above.opened()
        others = (int(each.split()[1]) for each in opened - wanted)
        return wanted <= opened and all(port >= LOWEST_EPHEMERAL for port in others)

    return wait_until(has_settled, AT_ONCE)


@pytest.mark.parametrize("mode", ["pcp", "auto"])
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_each_mapping_is_open_above_while_it_lives(
    double_nat: DoubleNat, above: Miniupnpd, mode: str, transport: str
) -> None:
    with (
        Gateway(double_nat.router, external_address=mode) as gateway,
        Site(double_nat, transport=transport) as site,
    ):
        row = upstream(gateway)
        assert (row["public"], row["known_by"], row["state"]) == (PUBLIC, "pcp", "in use")
        call_both_ways(site, gateway, PUBLIC)
        assert are_all_open(gateway, above), (ports(gateway), above.opened())
        assert ports(gateway), "the registrations"
        assert gateway.show_reasons()["upstream"] == 0


def test_what_a_message_names_is_open_to_anybody_when_it_arrives(
    double_nat: DoubleNat, above: Miniupnpd
) -> None:
    """The NAT above lets in only who has been sent to, but what it has granted is open."""
    with Gateway(double_nat.router, **PCP), Site(double_nat) as site:
        above.pause()
        offer = site.phone_1.send("INVITE", site.server.address_of_record, sdp=site.phone_1.offer())
        with pytest.raises(Timeout):
            site.server.expect("INVITE", call=offer, timeout=0.4)
        above.go_on()
        arrived = site.server.expect("INVITE", call=offer)
        named = media_endpoint(arrived.body)
        assert {f"udp {named.port}", f"udp {named.port + 1}"} <= above.opened()
        near = site.listen(double_nat.lan, site.phone_1.media)
        far = site.listen(double_nat.wan, Endpoint(REMOTE_2, 40000))
        far.send_to(named)
        assert hears(near, far.endpoint)


def test_a_port_that_another_client_of_the_gateway_has_is_left_to_it(
    double_nat: DoubleNat, above: Miniupnpd
) -> None:
    with Gateway(double_nat.router, **PCP) as gateway, Site(double_nat) as site:
        for port in (5060, site.phone_1.media.port):
            above.occupy(port)
        site.register(site.phone_1)
        contact = uri_endpoint(site.server.registrations["phone1"])
        assert contact.address == PUBLIC and contact.port != 5060
        sent, offer = site.call_out(site.phone_1)
        media = media_endpoint(offer.body)
        assert media.port not in (4000, 4001) and media.port % 2 == 0
        talk = meet(site, offer, site.phone_1.media, SERVER_MEDIA_1)
        assert talk.flows_on()
        assert {f"udp {media.port}", f"udp {media.port + 1}"} <= above.opened()
        called, _ = site.call_in(site.phone_1)
        site.hang_up(site.server, site.phone_1, called)
        site.hang_up(site.phone_1, site.server, sent)
        assert media_is_released(gateway)


def test_a_gateway_that_comes_back_without_its_mappings_is_asked_for_them_again(
    double_nat: DoubleNat, above: Miniupnpd
) -> None:
    with Gateway(double_nat.router, **PCP) as gateway, Site(double_nat) as site:
        site.register(site.phone_1)
        sent, offer = site.call_out(site.phone_1)
        talk = meet(site, offer, site.phone_1.media, SERVER_MEDIA_1)
        # Its clock tells that it began anew only if it stood at some seconds before.
        check_audio(talk, 5.0)
        talk.near.send_to(SERVER_MEDIA_1)
        above.stop()
        above.forget()
        above.start()
        assert wait_until(lambda: ports(gateway) <= above.opened(), AT_NEXT_LOOK), gateway.log
        talk.far.send_to(talk.external)
        assert talk.flows_on(timeout=10.0)
        assert set(talk.far.sources) == {talk.external}
        site.hang_up(site.server, site.phone_1, sent)
        assert media_is_released(gateway)


def test_calls_are_known_above_after_a_restart(double_nat: DoubleNat, above: Miniupnpd) -> None:
    with Gateway(double_nat.router, **PCP) as gateway, Site(double_nat) as site:
        site.register(site.phone_1)
        sent, offer = site.call_out(site.phone_1)
        talk = meet(site, offer, site.phone_1.media, SERVER_MEDIA_1)
        before = ports(gateway)
        for end in (gateway.stop, gateway.kill):
            end()
            assert before <= above.opened()
            gateway.start()
            assert ports(gateway) == before and externals(gateway) == {PUBLIC}
            assert talk.flows_on()
        site.hang_up(site.server, site.phone_1, sent)
        assert media_is_released(gateway)
        assert are_all_open(gateway, above), (ports(gateway), above.opened())


@pytest.mark.parametrize("mode", ["pcp", "auto"])
def test_a33_a_restart_while_the_gateway_is_silent_leaves_calls_as_they_are(
    double_nat: DoubleNat, above: Miniupnpd, mode: str
) -> None:
    with Gateway(double_nat.router, external_address=mode) as gateway, Site(double_nat) as site:
        site.register(site.phone_1)
        sent, offer = site.call_out(site.phone_1)
        talk = meet(site, offer, site.phone_1.media, SERVER_MEDIA_1)
        above.pause()
        gateway.kill()
        gateway.start()
        assert upstream(gateway)["known_by"] == "earlier run"
        assert externals(gateway) == {PUBLIC}
        assert talk.flows_on()
        above.go_on()
        assert wait_until(lambda: upstream(gateway)["known_by"] == "pcp", AT_NEXT_LOOK)
        assert wait_until(lambda: are_all_open(gateway, above), AT_ONCE)
        site.hang_up(site.server, site.phone_1, sent)
        assert media_is_released(gateway)


def test_a_gateway_that_falls_silent_delays_calls_but_does_not_prevent_them(
    double_nat: DoubleNat, above: Miniupnpd
) -> None:
    with Gateway(double_nat.router, **PCP) as gateway, Site(double_nat) as site:
        site.register(site.phone_1)
        above.stop()
        sent = site.phone_1.send("INVITE", site.server.address_of_record, sdp=site.phone_1.offer())
        arrived = site.server.expect("INVITE", call=sent, timeout=15.0)
        assert media_endpoint(arrived.body) == Endpoint(PUBLIC, 4000)
        assert gateway.show_reasons()["upstream"] > 0
        assert any("does not map udp port 4000" in line for line in gateway.log)


def test_a_gateway_that_is_silent_at_start_means_hands_off(
    double_nat: DoubleNat, above: Miniupnpd
) -> None:
    above.stop()
    with Gateway(double_nat.router, **PCP) as gateway, Site(double_nat) as site:
        [line] = [line for line in gateway.log if "neither PCP nor NAT-PMP" in line]
        assert upstream(gateway)["state"] == "hands off"
        above.start()
        assert wait_until(lambda: upstream(gateway)["state"] == "in use", AT_NEXT_LOOK), line
        call_both_ways(site, gateway, PUBLIC)
