"""Mappings on request of IPv6: a pinhole where the site is routed, a mapping where it is not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_interface

import pytest

from nat_table.binding import ANYONE, Binding, Kind, Permit
from nat_table.changes import Closed, Forbidden, Opened, Permitted, Turned
from nat_table.endpoint import Endpoint, Transport
from rules.backend import KernelBackend, Refusal
from rules.settings import Settings
from tests.lab.network import REMOTE6_1, REMOTE6_2, Network
from tests.netns.connections import (
    RELAY,
    accepted,
    check_passes,
    check_silent,
    connected,
    listening,
)
from tests.netns.kernel import PINHOLE, counted, install
from tests.netns.kernel6 import (
    FIREWALL,
    LOCAL_1,
    MASQUERADE6,
    NAT66,
    NPTV6,
    ROUTED,
    ROUTED_1,
    Bind,
    capturing,
    network_in,
    outside_of,
)

pytestmark = pytest.mark.netns

CUT = 1.0  # with room for a machine under load
NETWORK = Permit(str(ip_interface(f"{REMOTE6_1}/127").network))
SETTINGS: dict[str, Settings] = {"pinhole": ROUTED, "nat66": NAT66, "nptv6": NPTV6}
RULES = {"pinhole": FIREWALL, "nat66": MASQUERADE6, "nptv6": ""}


@pytest.fixture
def network(mode: str) -> Iterator[Network]:
    with network_in(mode, RULES[mode]) as network:
        yield network


@pytest.fixture
def backend(network: Network, mode: str) -> KernelBackend:
    return install(network, SETTINGS[mode])


@pytest.fixture
def asked(mode: str) -> Binding:
    """Returns the binding of what a host has asked for."""
    internal = ROUTED_1 if mode == "pinhole" else LOCAL_1
    ends = Endpoint(internal, 4000), Endpoint(outside_of(mode, internal), 4000)
    return Binding(Transport.UDP, *ends, Kind.ANY, 0.0)


def test_A22_a_remote_comes_in_by_a_permit_and_no_longer_than_that_stands(
    backend: KernelBackend, bind: Bind, asked: Binding
) -> None:
    host, near, far = bind(asked.internal.address), bind(REMOTE6_1), bind(REMOTE6_2)
    backend.commit([Opened(asked, PINHOLE)])
    near.send(b"nobody is permitted", *asked.external)
    host.expect_nothing()
    assert backend.refused() == [Refusal(REMOTE6_1, Transport.UDP, asked.internal)]
    assert counted(backend) == {"refused_requested": 1}
    backend.commit([Permitted(asked, NETWORK)])
    near.send(b"permitted", *asked.external)
    assert host.expect(b"permitted") == (REMOTE6_1, 4000)
    far.send(b"not permitted", *asked.external)
    host.expect_nothing()
    backend.commit([Forbidden(asked, NETWORK), Permitted(asked, ANYONE)])
    for remote in (near, far):
        remote.send(b"everybody is permitted", *asked.external)
        host.expect(b"everybody is permitted")
    backend.commit([Forbidden(asked, ANYONE)])
    time.sleep(CUT)
    far.send(b"nobody again", *asked.external)
    host.expect_nothing()
    host.send(b"out", REMOTE6_2, 4000)
    assert far.expect(b"out") == asked.external
    bind(REMOTE6_2, 4002).send(b"who was sent to", *asked.external)
    host.expect(b"who was sent to")
    backend.commit([Closed(asked, (PINHOLE,))])
    assert backend.listing() == []


def test_connections_come_in_by_a_permit(
    network: Network, backend: KernelBackend, asked: Binding
) -> None:
    asked = replace(asked, transport=Transport.TCP)
    backend.commit([Opened(asked, PINHOLE), Permitted(asked, Permit(f"{REMOTE6_1}/128", 50000))])
    caller = Endpoint(REMOTE6_1, 50000)
    with (
        listening(network.lan, asked.internal) as host,
        connected(network.wan, caller, asked.external) as calling,
        accepted(host, asked.internal, caller) as called,
    ):
        check_passes(calling, called)
        check_silent(network.wan, Endpoint(REMOTE6_1, 50001), asked.external)


@pytest.mark.parametrize("mode", ["pinhole", "nat66"])
@pytest.mark.parametrize("permit", [ANYONE, Permit(f"{REMOTE6_1}/128", 50000)])
def test_A69_connection_for_SIP_comes_to_the_relay_by_a_permit(
    network: Network, mode: str, asked: Binding, permit: Permit
) -> None:
    backend = install(network, replace(SETTINGS[mode], relay_port=RELAY.port))
    sip = replace(asked, transport=Transport.TCP, kind=Kind.SIP)
    backend.commit([Opened(sip, PINHOLE)])
    caller = Endpoint(REMOTE6_1, 50000)
    check_silent(network.wan, caller, sip.external)
    backend.commit([Permitted(sip, permit)])
    with (
        listening(network.router, Endpoint("::1", RELAY.port), is_transparent=True) as relay,
        connected(network.wan, caller, sip.external) as calling,
        accepted(relay, sip.external, caller) as far,
    ):
        check_passes(calling, far)
    if permit is not ANYONE:
        check_silent(network.wan, Endpoint(REMOTE6_1, 50001), sip.external)


def test_what_turns_into_signalling_is_captured_from_then_on(
    network: Network, backend: KernelBackend, mode: str, bind: Bind, asked: Binding
) -> None:
    host, remote = bind(asked.internal.address), bind(REMOTE6_1)
    sip = replace(asked, kind=Kind.SIP)
    backend.commit([Opened(asked, PINHOLE), Permitted(asked, ANYONE)])
    with capturing(network, SETTINGS[mode]) as captured:
        remote.send(b"in", *asked.external)
        host.expect(b"in")
        backend.commit([Forbidden(asked, ANYONE), Turned(sip, asked), Permitted(sip, ANYONE)])
        remote.send(b"INVITE", *asked.external)
    assert captured == [b"INVITE"]
    host.expect(b"INVITE")
    assert backend.listing() == [sip]


def test_A75_permits_come_back_where_somebody_has_flushed_the_ruleset(
    network: Network, backend: KernelBackend, bind: Bind, asked: Binding
) -> None:
    backend.commit([Opened(asked, PINHOLE), Permitted(asked, NETWORK)])
    assert backend.listing() == [asked]
    network.router.run("nft", "delete table inet sipnat")
    network.router.call(backend.install)
    for _ in backend.reconcile([(asked, [NETWORK])]):
        pass
    for _ in backend.reconcile([(asked, [NETWORK])]):
        pass
    assert backend.listing() == [asked]
    host, near = bind(asked.internal.address), bind(REMOTE6_1)
    near.send(b"in", *asked.external)
    host.expect(b"in")
    bind(REMOTE6_2).send(b"in", *asked.external)
    host.expect_nothing()
