"""SIP over TCP on IPv6: diverted to the relay under NAT66, let through a firewall where routed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from nat_table.binding import Binding, Kind
from nat_table.changes import Admitted, Opened
from nat_table.endpoint import Endpoint, Transport
from rules.backend import Refusal
from tests.lab.network import (
    EXTERNAL6,
    REMOTE6_1,
    SERVER6,
    Network,
)
from tests.netns.connections import (
    RELAY,
    accepted,
    check_passes,
    check_silent,
    connected,
    listening,
)
from tests.netns.kernel import PINHOLE, POOL_PORT, counted, install
from tests.netns.kernel6 import FIREWALL, LOCAL_1, MASQUERADE6, NAT66, ROUTED, ROUTED_1, network_in

pytestmark = pytest.mark.netns

RELAY6 = Endpoint("::1", RELAY.port)
RELAYED = replace(NAT66, relay_port=RELAY.port)
SIP_SERVER = Endpoint(SERVER6, 5060)
FROM_SERVER = Endpoint(SERVER6, 50000)
PHONE = Endpoint(LOCAL_1, 5060)
FROM_PHONE = Endpoint(LOCAL_1, 40000)
CONTACT = Endpoint(EXTERNAL6, POOL_PORT)


@pytest.fixture
def masqueraded() -> Iterator[Network]:
    with network_in("nat66", MASQUERADE6) as network:
        yield network


@pytest.fixture
def routed() -> Iterator[Network]:
    with network_in("pinhole", FIREWALL) as network:
        yield network


def opened_tcp6(internal: Endpoint, external: Endpoint) -> Opened:
    return Opened(Binding(Transport.TCP, internal, external, Kind.SIP, 0.0), PINHOLE)


def test_A69_connection_to_a_server_is_relayed_and_the_server_sees_the_mapping(
    masqueraded: Network,
) -> None:
    router = masqueraded.router
    backend = install(masqueraded, RELAYED)
    backend.commit([opened_tcp6(FROM_PHONE, CONTACT)])
    with (
        listening(router, RELAY6, is_transparent=True) as relay,
        listening(masqueraded.wan, SIP_SERVER) as server,
        connected(masqueraded.lan, FROM_PHONE, SIP_SERVER) as calling,
        accepted(relay, SIP_SERVER, FROM_PHONE) as near,
        connected(router, CONTACT, SIP_SERVER, is_transparent=True) as far,
        accepted(server, SIP_SERVER, CONTACT) as called,
    ):
        check_passes(calling, near)
        check_passes(far, called)
    router.call(backend.release_capture)
    with (
        listening(masqueraded.wan, SIP_SERVER) as server,
        connected(masqueraded.lan, PHONE, SIP_SERVER) as calling,
        accepted(server, SIP_SERVER, Endpoint(EXTERNAL6, PHONE.port)) as called,
    ):
        check_passes(calling, called)


def test_A69_A86_connection_to_a_mapping_is_relayed_if_it_is_admitted(
    masqueraded: Network,
) -> None:
    backend = install(masqueraded, RELAYED)
    mapping = opened_tcp6(PHONE, CONTACT)
    backend.commit([mapping, Admitted(mapping.binding, SERVER6)])
    assert backend.listing() == [mapping.binding]
    with (
        listening(masqueraded.router, RELAY6, is_transparent=True) as relay,
        listening(masqueraded.lan, PHONE) as phone,
        connected(masqueraded.wan, FROM_SERVER, CONTACT) as calling,
        accepted(relay, CONTACT, FROM_SERVER) as far,
        connected(masqueraded.router, FROM_SERVER, PHONE, is_transparent=True) as near,
        accepted(phone, PHONE, FROM_SERVER) as called,
    ):
        check_passes(calling, far)
        check_passes(near, called)
        check_silent(masqueraded.wan, Endpoint(REMOTE6_1, 50000), CONTACT)
    assert backend.refused() == [Refusal(REMOTE6_1, Transport.TCP, CONTACT)]


def test_A22_connection_passes_the_firewall_of_a_routed_site_if_it_is_admitted(
    routed: Network,
) -> None:
    phone = Endpoint(ROUTED_1, 5060)
    backend = install(routed, replace(ROUTED, relay_port=RELAY.port))
    mapping = opened_tcp6(phone, phone)
    with listening(routed.lan, phone) as listener:
        check_silent(routed.wan, FROM_SERVER, phone)
        backend.commit([mapping, Admitted(mapping.binding, SERVER6)])
        with (
            connected(routed.wan, Endpoint(SERVER6, 50001), phone) as calling,
            accepted(listener, phone, Endpoint(SERVER6, 50001)) as called,
        ):
            check_passes(calling, called)
        check_silent(routed.wan, Endpoint(REMOTE6_1, 50000), phone)
    assert counted(backend)["refused_signalling"] >= 1
