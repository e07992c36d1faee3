"""STUN from behind the gateway: Debian's client finds of each socket what README says of it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import closing

import pytest

from nat_table.endpoint import Endpoint
from tests.lab.agents import SipAgent
from tests.lab.coturn import Coturn
from tests.lab.gateway import SIPNAT, Gateway
from tests.lab.message import uri_endpoint
from tests.lab.network import EXTERNAL, PHONE_1, PHONE_2, REMOTE_1, SERVER, Network
from tests.lab.server import Server
from tests.lab.site import PROXY, Site
from tests.lab.stun import StunServer, probe
from tests.netns.control_point import told
from tests.netns.masqueraded import masqueraded

pytestmark = [pytest.mark.netns, pytest.mark.timeout(90)]

UNMAPPED = "Independent Mapping, Port Dependent Filter, preserves ports, no hairpin"
OPEN = "Independent Mapping, Independent Filter, preserves ports, will hairpin"
ADDRESS_DEPENDENT = "Independent Mapping, Address Dependent Filter, preserves ports, will hairpin"


@pytest.fixture
def coturn(network: Network) -> Iterator[Coturn]:
    """Yields a STUN server with two addresses, outside."""
    with Coturn(network.wan, SERVER, REMOTE_1) as server:
        yield server


def behaviour(network: Network, port: int) -> str:
    """Returns what Debian's client says of a phone's port and the one behind it.

    It asks for the mapping from the first and for the filter from the second (RFC 3489 §10.1).
    """
    done = subprocess.run(
        network.lan.command("stun", SERVER, "-p", str(port), "-i", PHONE_1),
        capture_output=True,
        text=True,
        timeout=30,
    )
    _, _, found = done.stdout.partition("Primary: ")
    return found.partition("\n")[0].strip()


def test_a_socket_without_a_mapping_has_the_routers_masquerade(
    network: Network, gateway: Gateway, coturn: Coturn
) -> None:
    assert behaviour(network, 4100) == UNMAPPED


@pytest.mark.parametrize(
    "media_filter",
    [
        pytest.param(each, marks=pytest.mark.configured(upnp=True, media_filter=each))
        for each in ("endpoint-independent", "address-dependent")
    ],
)
def test_a_lease_for_whatever_is_open_to_all(
    network: Network, gateway: Gateway, coturn: Coturn, media_filter: str
) -> None:
    for port in ("4100", "4101"):
        assert told(network, "-a", PHONE_1, port, port, "UDP").status == 0
    assert behaviour(network, 4100) == OPEN


@pytest.mark.parametrize(
    "expected",
    [
        pytest.param(expected, marks=pytest.mark.configured(media_filter=media_filter))
        for media_filter, expected in (
            ("endpoint-independent", OPEN),
            ("address-dependent", ADDRESS_DEPENDENT),
        )
    ],
)
def test_a_lease_for_media_and_its_remote_has_the_filter_of_media(
    network: Network, gateway: Gateway, coturn: Coturn, expected: str
) -> None:
    asked = ("--internal", f"{PHONE_1}:4100", "--type", "rtp", "--remote", f"{SERVER}:3478")
    network.router.run(SIPNAT, "map", "add", *asked, "--control", gateway.control)
    assert behaviour(network, 4100) == expected


def test_a_socket_that_speaks_sip_has_the_filter_of_signalling(
    network: Network, gateway: Gateway, coturn: Coturn
) -> None:
    with Server(network.wan, SERVER) as server:
        for port in (5060, 5061):
            with SipAgent(network.lan, f"phone{port}", PHONE_1, port, proxy=PROXY) as phone:
                phone.register()
                server.accept_registration(expires=3600)
                phone.expect(200)
    assert behaviour(network, 5060) == ADDRESS_DEPENDENT


def test_stun_from_a_socket_that_speaks_sip_passes_unchanged(
    network: Network, gateway: Gateway, site: Site
) -> None:
    site.register(site.phone_1)
    site.register(site.phone_2)
    rows = {row["internal"]: row["external"] for row in gateway.show_mappings("sip")}
    mapped = rows[f"{PHONE_2}:5060"]
    site.phone_2.close()
    request = bytes.fromhex("000100002112a442") + bytes(range(12))
    answer = bytes.fromhex("0101000c2112a442") + bytes(range(12)) + bytes(range(12))
    with (
        closing(network.lan.udp_socket(PHONE_2, 5060)) as phone,
        closing(network.wan.udp_socket(REMOTE_1, 3478)) as far,
    ):
        for udp in (phone, far):
            udp.settimeout(2.0)
        phone.sendto(request, (REMOTE_1, 3478))
        data, source = far.recvfrom(2048)
        assert (data, str(Endpoint(*source))) == (request, mapped)
        far.sendto(answer, source)
        assert phone.recv(2048) == answer
    assert gateway.show_reasons()["not-sip"] == 2


def test_what_stun_has_told_a_phone_is_the_mapping_that_sip_uses_later(
    network: Network, gateway: Gateway
) -> None:
    """A17"""
    with (
        StunServer(network.wan, SERVER) as stun_server,
        Server(network.wan, SERVER) as server,
        masqueraded(network, stun_server) as (socket, port, seen),
    ):
        socket.close()
        with SipAgent(network.lan, "phone", PHONE_1, port, proxy=PROXY) as phone:
            phone.register()
            registered = server.accept_registration(expires=3600)
            phone.expect(200)
        assert uri_endpoint(registered["Contact"].strip("<>")) == seen
        with closing(network.lan.udp_socket(PHONE_1, port)) as again:
            assert probe(again, stun_server.endpoint) == seen
            assert probe(again, Endpoint(SERVER, 3478)) == seen
        (row,) = gateway.show_mappings("sip")
        assert (row["internal"], row["external"]) == (f"{PHONE_1}:{port}", str(seen))
    assert seen.address == EXTERNAL
