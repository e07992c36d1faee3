"""Mappings of the configuration with real packets, and STUN that shares its mapping with SIP."""

from __future__ import annotations

import json

import pytest

from nat_table.endpoint import Endpoint
from rules.interfaces import is_reached_by
from tests.lab.agents import SipAgent, receive_all, wait_until
from tests.lab.gateway import SIPNAT, Gateway
from tests.lab.message import uri_endpoint
from tests.lab.network import (
    EXTERNAL,
    EXTERNAL_INTERFACE,
    INTERNAL_INTERFACE,
    LAN_ROUTER,
    PHONE_1,
    PHONE_2,
    REMOTE_1,
    SERVER,
    Network,
)
from tests.lab.site import PROXY, Site
from tests.lab.stun import StunServer, probe
from tests.netns.masqueraded import masqueraded

pytestmark = [pytest.mark.netns, pytest.mark.timeout(90)]

WEB = {"internal": f"{PHONE_1}:80", "external": 8080, "transport": "udp"}
PBX = {"internal": f"{PHONE_2}:5060", "external": f"{EXTERNAL}:5060", "transport": "udp"}


@pytest.mark.configured(static=[WEB, PBX])
def test_a_static_mapping_lets_anybody_in_until_it_is_configured_no_more(
    network: Network, gateway: Gateway
) -> None:
    [web, _] = leases = json.loads(
        network.router.run(SIPNAT, "map", "list", "--json", "--control", gateway.control)
    )
    assert {(row["source"], row["expires_in"]) for row in leases} == {("static", None)}
    assert web["external"] == f"{EXTERNAL}:8080"
    with (
        network.lan.udp_socket(PHONE_1, 80) as host,
        network.wan.udp_socket(REMOTE_1, 7000) as remote,
    ):
        remote.sendto(b"hello", (EXTERNAL, 8080))
        assert receive_all(host) == [(b"hello", Endpoint(REMOTE_1, 7000))]
        host.sendto(b"welcome", (REMOTE_1, 7000))
        assert receive_all(remote) == [(b"welcome", Endpoint(EXTERNAL, 8080))]
        gateway.stop()
        gateway.configure(static=[PBX])
        gateway.start()

        def is_shut() -> bool:
            remote.sendto(b"hello again", (EXTERNAL, 8080))
            return not receive_all(host)

        assert wait_until(is_shut, 5.0)
    assert [row["internal"] for row in gateway.show_mappings()] == [PBX["internal"]]


@pytest.mark.configured(static=[PBX])
def test_a_static_mapping_becomes_signalling_and_stays_one(site: Site, gateway: Gateway) -> None:
    site.register(site.phone_1)
    site.register(site.phone_2)
    assert uri_endpoint(site.server.registrations["phone2"]) == Endpoint(EXTERNAL, 5060)
    [row] = [row for row in gateway.show_mappings() if row["internal"] == PBX["internal"]]
    assert (row["kind"], row["source"], row["expires_in"]) == ("sip", "static", None)
    called, _ = site.call_in(site.phone_2)
    site.hang_up(site.server, site.phone_2, called)
    site.register(site.phone_2, expires=0)
    [row] = [row for row in gateway.show_mappings() if row["internal"] == PBX["internal"]]
    assert row["source"] == "static"


def test_a_static_mapping_that_cannot_be_is_one_warning_and_calls_go_on(
    network: Network,
) -> None:
    with (
        network.router.udp_socket("0.0.0.0", 8080),
        Gateway(network.router, static=[WEB]) as gateway,
        Site(network) as site,
    ):
        site.register(site.phone_1)
        assert [line for line in gateway.log if "static" in line] == [
            f"sipnat: static mapping of {PHONE_1}:80, tried again: external port 8080 cannot be had"
        ]


def test_A17_the_mapping_that_stun_shows_is_the_one_that_sip_uses(
    network: Network, gateway: Gateway
) -> None:
    with (
        StunServer(network.wan, REMOTE_1) as stun,
        SipAgent(network.wan, "server", SERVER) as server,
    ):
        with masqueraded(network, stun) as (_, port, seen):
            pass
        with SipAgent(network.lan, "phone1", PHONE_1, port, proxy=PROXY) as phone:
            phone.register()
            request = server.expect("REGISTER")
            assert request.source == uri_endpoint(request["Contact"]) == seen
        with network.lan.udp_socket(PHONE_1, port) as again:
            assert probe(again, stun.endpoint) == seen
        assert [row["external"] for row in gateway.show_mappings()] == [str(seen)]


def test_who_is_internal_is_what_the_routes_say(network: Network) -> None:
    network.router.run("ip", "route", "add", "10.9.0.0/16", "via", PHONE_1)

    def reached(address: str) -> bool:
        return network.router.call(lambda: is_reached_by((INTERNAL_INTERFACE,), address))

    assert all(map(reached, (PHONE_1, PHONE_2, "10.9.1.1")))
    outside = (SERVER, EXTERNAL, LAN_ROUTER, "10.0.0.255", "127.0.0.1", "239.0.0.1", "192.0.2.9")
    assert not any(map(reached, outside))
    assert not network.router.call(lambda: is_reached_by((EXTERNAL_INTERFACE,), PHONE_1))
