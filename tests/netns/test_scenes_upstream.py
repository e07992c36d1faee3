"""Behind another NAT: each classic kind of it, found by STUN, and what becomes of calls there."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from alg.upstream.nat import NatType
from alg.upstream.stun import classify
from nat_table.endpoint import Endpoint
from tests.lab.agents import wait_until
from tests.lab.coturn import Coturn
from tests.lab.double_nat import KINDS, OTHER_PUBLIC, OTHER_WIRE, WIRE, DoubleNat
from tests.lab.gateway import Gateway
from tests.lab.message import bare_uri, uri_endpoint
from tests.lab.network import EXTERNAL, MASQUERADE, PHONE_1, REMOTE_1, REMOTE_2, SERVER
from tests.lab.sdp import media_endpoint
from tests.lab.site import SERVER_MEDIA_1, SERVER_MEDIA_2, Site
from tests.lab.stun import StunServer
from tests.netns.calls import AT_ONCE, hears, media_is_released
from tests.netns.upstream import AT_NEXT_LOOK, call_both_ways, externals, meet, upstream

pytestmark = [pytest.mark.netns, pytest.mark.timeout(120)]

CONES = [kind for kind in KINDS if kind != "symmetric"]
STUN = {"external_address": "stun", "stun_servers": [REMOTE_1]}


@pytest.fixture
def double_nat(request: pytest.FixtureRequest) -> Iterator[DoubleNat]:
    """Yields a network with a second NAT, a full cone or what the test is parametrised with."""
    with DoubleNat(getattr(request, "param", "full cone")) as network:
        yield network


@pytest.fixture
def coturn(double_nat: DoubleNat) -> Iterator[Coturn]:
    with Coturn(double_nat.wan, REMOTE_1, REMOTE_2) as server:
        yield server


@pytest.mark.parametrize("double_nat", KINDS, indirect=True)
def test_each_kind_of_nat_is_told_from_the_others(double_nat: DoubleNat, coturn: Coturn) -> None:
    kind = double_nat.kind
    found = double_nat.router.call(lambda: asyncio.run(classify([coturn.endpoint], WIRE, "wan0")))
    assert found.type is NatType(kind)
    assert (found.address, found.keeps_ports) == (EXTERNAL, kind != "symmetric")


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_behind_a_nat_of_one_to_one_messages_name_the_address_that_is_given(
    double_nat: DoubleNat, transport: str
) -> None:
    """A cloud's router has a private address, and a public one that it cannot see."""
    with (
        Gateway(double_nat.router, external_address=EXTERNAL) as gateway,
        Site(double_nat, transport=transport) as site,
    ):
        call_both_ways(site, gateway)
        flows = double_nat.router.run("conntrack", "--dump")
        assert f"={WIRE} " in flows and f"={EXTERNAL} " not in flows, (
            "no packet here has the public address"
        )
        assert upstream(gateway) == {
            "public": EXTERNAL,
            "wire": WIRE,
            "known_by": "config",
            "nat": "unknown",
            "ports": None,
            "granted": 0,
            "state": "in use",
        }


@pytest.mark.parametrize("double_nat", CONES, indirect=True)
def test_behind_a_cone_calls_go_both_ways_and_it_says_who_else_may_send(
    double_nat: DoubleNat, coturn: Coturn
) -> None:
    with Gateway(double_nat.router, **STUN) as gateway, Site(double_nat) as site:
        assert upstream(gateway) == {
            "public": EXTERNAL,
            "wire": WIRE,
            "known_by": "stun",
            "nat": double_nat.kind,
            "ports": "kept",
            "granted": 0,
            "state": "in use",
        }
        call_both_ways(site, gateway)

        sent, offer = site.call_out(site.phone_1)
        talk = meet(site, offer, site.phone_1.media, Endpoint(SERVER, 40010))
        same_host = site.listen(double_nat.wan, Endpoint(SERVER, 40020))
        other_host = site.listen(double_nat.wan, Endpoint(REMOTE_2, 40010))
        for each in (same_host, other_host):
            each.send_to(talk.external)
        assert talk.flows_on()
        heard = {
            each.endpoint for each in (same_host, other_host) if talk.near.sources[each.endpoint]
        }
        assert (
            heard
            == {
                "full cone": {same_host.endpoint, other_host.endpoint},
                "restricted cone": {same_host.endpoint},
                "port restricted cone": set(),
            }[double_nat.kind]
        )
        site.hang_up(site.phone_1, site.server, sent)


@pytest.mark.parametrize("double_nat", ["symmetric"], indirect=True)
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_a94_behind_a_symmetric_nat_all_sip_passes_as_it_is(
    double_nat: DoubleNat, coturn: Coturn, transport: str
) -> None:
    with (
        Gateway(double_nat.router, **STUN) as gateway,
        Site(double_nat, transport=transport) as site,
    ):
        assert any("symmetric" in line and "passes as it is" in line for line in gateway.log)
        row = upstream(gateway)
        assert (row["nat"], row["state"]) == ("symmetric", "hands off")
        site.phone_1.register()
        arrived = site.server.accept_registration()
        assert bare_uri(arrived["Contact"]) == bare_uri(site.phone_1.contact)
        sent = site.phone_1.send("INVITE", site.server.address_of_record, sdp=site.phone_1.offer())
        invited = site.server.expect("INVITE", call=sent)
        assert media_endpoint(invited.body).address == PHONE_1
        assert gateway.show_mappings() == []
        assert gateway.show_reasons()["hands-off"] > 0


@pytest.mark.parametrize("double_nat", ["symmetric"], indirect=True)
def test_a_nat_that_has_become_a_cone_is_noticed(double_nat: DoubleNat, coturn: Coturn) -> None:
    with Gateway(double_nat.router, **STUN) as gateway, Site(double_nat) as site:
        assert upstream(gateway)["state"] == "hands off"
        double_nat.turn_into("port restricted cone")
        assert wait_until(lambda: upstream(gateway)["state"] == "in use", AT_NEXT_LOOK), gateway.log
        call_both_ways(site, gateway)


def test_a_stun_server_with_one_address_tells_the_public_one(double_nat: DoubleNat) -> None:
    with (
        StunServer(double_nat.wan, REMOTE_1),
        Gateway(double_nat.router, stun_servers=["192.0.2.77", REMOTE_1]) as gateway,
        Site(double_nat) as site,
    ):
        assert upstream(gateway)["nat"] == "unknown"
        call_both_ways(site, gateway)


def test_nothing_above_that_tells_its_address_is_said_once_and_the_interface_has_its_own(
    double_nat: DoubleNat,
) -> None:
    with Gateway(double_nat.router) as gateway, Site(double_nat) as site:
        [line] = [line for line in gateway.log if "another NAT is above" in line]
        assert WIRE in line and "stun_servers" in line
        site.register(site.phone_1)
        assert externals(gateway) == {WIRE}


def test_a33_calls_behind_another_nat_live_through_a_restart_a_crash_and_a_flush(
    double_nat: DoubleNat,
) -> None:
    with Gateway(double_nat.router, external_address=EXTERNAL) as gateway, Site(double_nat) as site:
        site.register(site.phone_1)
        sent, offer = site.call_out(site.phone_1)
        talk = meet(site, offer, site.phone_1.media, SERVER_MEDIA_1)
        before = gateway.show_mappings()
        for end in (gateway.stop, gateway.kill):
            end()
            assert talk.flows_on()
            gateway.start()
            assert talk.flows_on()
            after = gateway.show_mappings()
            assert {row["external"] for row in after} == {row["external"] for row in before}
            assert {row["state"] for row in after} == {"call"}
        double_nat.router.run("nft", "flush", "ruleset")
        double_nat.router.run("nft", "-f", "-", text=MASQUERADE)
        assert wait_until(lambda: f"{WIRE} . 4001" in double_nat.ruleset(), AT_ONCE), gateway.log
        called, _ = site.call_in(site.phone_1, sdp=site.server.offer(media=SERVER_MEDIA_2))
        site.hang_up(site.server, site.phone_1, called)
        assert talk.flows_on()
        site.hang_up(site.server, site.phone_1, sent)
        assert media_is_released(gateway)


def test_a33_another_address_on_the_wire_changes_nothing_in_public(double_nat: DoubleNat) -> None:
    with Gateway(double_nat.router, external_address=EXTERNAL) as gateway, Site(double_nat) as site:
        site.register(site.phone_1)
        sent, offer = site.call_out(site.phone_1)
        talk = meet(site, offer, site.phone_1.media, SERVER_MEDIA_1)
        double_nat.replace_wire()
        assert wait_until(lambda: upstream(gateway)["wire"] == OTHER_WIRE, AT_ONCE), gateway.log
        double_nat.turn_into("full cone", wire=OTHER_WIRE)
        assert externals(gateway) == {EXTERNAL}
        for end in (talk.near, talk.far):
            end.sources.clear()
        assert hears(talk.near, SERVER_MEDIA_1) and hears(talk.far, talk.external)
        site.hang_up(site.server, site.phone_1, sent)
        assert media_is_released(gateway)


def test_a33_another_public_address_is_noticed_and_named(
    double_nat: DoubleNat, coturn: Coturn
) -> None:
    with Gateway(double_nat.router, **STUN) as gateway, Site(double_nat) as site:
        site.register(site.phone_1)
        sent, offer = site.call_out(site.phone_1)
        talk = meet(site, offer, site.phone_1.media, SERVER_MEDIA_1)
        talk.far.stop()
        double_nat.replace_public(OTHER_PUBLIC)
        assert wait_until(lambda: externals(gateway) == {OTHER_PUBLIC}, AT_NEXT_LOOK), gateway.log
        assert any("must register again" in line for line in gateway.log)
        moved = Endpoint(OTHER_PUBLIC, talk.external.port)
        assert hears(talk.far, moved)
        site.register(site.phone_1)
        assert uri_endpoint(site.server.registrations["phone1"]).address == OTHER_PUBLIC
        site.hang_up(site.phone_1, site.server, sent)
        assert media_is_released(gateway)


def test_a33_what_was_found_before_a_restart_is_taken_over_when_it_is_another_now(
    double_nat: DoubleNat,
) -> None:
    with Gateway(double_nat.router, external_address=EXTERNAL) as gateway, Site(double_nat) as site:
        _, offer = site.call_out(site.phone_1)
        talk = meet(site, offer, site.phone_1.media, SERVER_MEDIA_1)
        for address in (OTHER_PUBLIC, WIRE, EXTERNAL):
            gateway.stop()
            gateway.configure(external_address=address)
            gateway.start()
            assert externals(gateway) == {address}, gateway.log
            assert {row["state"] for row in gateway.show_mappings()} == {"call"}
            assert talk.flows_on()
