"""A routed IPv6 site behind its administrator's stateful firewall: calls open it, nothing else."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from nat_table.behavior import Filtering
from nat_table.binding import Kind
from nat_table.changes import Admitted, Excluded
from nat_table.endpoint import Endpoint, Transport
from rules.backend import KernelBackend, Refusal
from tests.lab.network import REMOTE6_1, REMOTE6_2, SERVER6, Network
from tests.netns.kernel import closed, counted, install
from tests.netns.kernel6 import (
    FIREWALL,
    NAT66,
    ROUTED,
    ROUTED_1,
    ROUTED_2,
    Bind,
    capturing,
    network_in,
    routed,
)

pytestmark = pytest.mark.netns

CUT = 0.3


@pytest.fixture
def network() -> Iterator[Network]:
    with network_in("pinhole", FIREWALL) as network:
        yield network


@pytest.fixture
def backend(network: Network) -> KernelBackend:
    return install(network, ROUTED)


def test_A22_media_opens_the_firewall_and_closes_it_and_no_address_changes(
    backend: KernelBackend, bind: Bind
) -> None:
    phone, unmapped, remote = bind(ROUTED_1), bind(ROUTED_1, 4002), bind(REMOTE6_1)
    remote.send(b"too early", ROUTED_1, 4000)
    phone.expect_nothing()
    change = routed(ROUTED_1)
    backend.commit([change])
    remote.send(b"in", ROUTED_1, 4000)
    assert phone.expect(b"in") == (REMOTE6_1, 4000)
    phone.send(b"out", REMOTE6_1, 4000)
    assert remote.expect(b"out") == (ROUTED_1, 4000)
    remote.send(b"to another port", ROUTED_1, 4002)
    unmapped.expect_nothing()
    backend.commit([closed(change)])
    time.sleep(CUT)
    remote.send(b"too late", ROUTED_1, 4000)
    phone.expect_nothing()


def test_A51_flow_that_is_older_than_its_pinhole_is_opened_with_it(
    backend: KernelBackend, bind: Bind
) -> None:
    phone, remote, other = bind(ROUTED_1), bind(REMOTE6_1), bind(REMOTE6_2)
    phone.send(b"out", REMOTE6_1, 4000)
    remote.expect(b"out")
    backend.commit([routed(ROUTED_1)])
    for sender in (remote, other):
        sender.send(b"in", ROUTED_1, 4000)
        phone.expect(b"in")
    assert backend.flowing() >= {Endpoint(ROUTED_1, 4000)}


def test_A86_stranger_is_left_to_the_firewall_and_listed_once(
    network: Network, backend: KernelBackend, bind: Bind
) -> None:
    phone, remote = bind(ROUTED_1), bind(REMOTE6_1)
    backend.commit([routed(ROUTED_1, Kind.SIP)])
    remote.send(b"INVITE", ROUTED_1, 4000)
    phone.expect_nothing()
    assert backend.refused() == [Refusal(REMOTE6_1, Transport.UDP, Endpoint(ROUTED_1, 4000))]
    assert backend.refused() == []
    assert counted(backend) == {"refused_signalling": 1}
    network.router.run("nft", "add rule ip6 admin forward udp dport 4000 accept")
    remote.send(b"what the administrator lets in", ROUTED_1, 4000)
    phone.expect(b"what the administrator lets in")


def test_A31_registrar_may_send_from_another_port_and_a_named_server_first(
    network: Network, bind: Bind
) -> None:
    backend = install(network, replace(ROUTED, servers=(f"{REMOTE6_2}/128",)))
    backend.commit([routed(ROUTED_1, Kind.SIP)])
    phone, server = bind(ROUTED_1), bind(SERVER6)
    bind(REMOTE6_2).send(b"named", ROUTED_1, 4000)
    phone.expect(b"named")
    phone.send(b"REGISTER", SERVER6, 4000)
    server.expect(b"REGISTER")
    bind(SERVER6, 5061).send(b"INVITE", ROUTED_1, 4000)
    assert phone.expect(b"INVITE") == (SERVER6, 5061)


def test_A84_signalled_address_is_admitted_until_it_is_excluded(
    network: Network, bind: Bind
) -> None:
    backend = install(network, replace(ROUTED, media_filter=Filtering.ADDRESS_DEPENDENT))
    change = routed(ROUTED_1)
    phone, remote = bind(ROUTED_1), bind(REMOTE6_1)
    backend.commit([change])
    remote.send(b"early", ROUTED_1, 4000)
    phone.expect_nothing()
    backend.commit([Admitted(change.binding, REMOTE6_1)])
    remote.send(b"late", ROUTED_1, 4000)
    phone.expect(b"late")
    backend.commit([Excluded(change.binding, REMOTE6_1)])
    bind(REMOTE6_1, 4002).send(b"from another port", ROUTED_1, 4000)
    phone.expect_nothing()


def test_only_one_mapping_is_cut_where_others_use_the_same_ports(
    network: Network, backend: KernelBackend, bind: Bind
) -> None:
    """The kernel's own filter would take the flows of every other address."""
    one, other = routed(ROUTED_1), routed(ROUTED_2)
    backend.commit([one, other])
    for address in (ROUTED_1, ROUTED_2):
        phone = bind(address)
        bind(REMOTE6_1).send(b"in", address, 4000)
        phone.expect(b"in")
    backend.commit([closed(one)])
    time.sleep(CUT)
    entries = network.router.run("conntrack", "-f", "ipv6", "-L", "-p", "udp")
    assert f"dst={ROUTED_1} " not in entries and f"dst={ROUTED_2} " in entries


def test_pinholes_come_back_where_somebody_has_flushed_the_ruleset(
    network: Network, backend: KernelBackend, bind: Bind
) -> None:
    changes = [routed(ROUTED_1), routed(ROUTED_2, Kind.SIP)]
    backend.commit(changes)
    wanted = {change.binding for change in changes}
    assert set(backend.listing()) == wanted
    network.router.run("nft", "delete table inet sipnat")
    assert not backend.is_installed(is_thorough=False)
    network.router.call(backend.install)
    assert backend.listing() == []
    for _ in backend.reconcile([(each, (REMOTE6_1,)) for each in wanted]):
        pass
    assert set(backend.listing()) == wanted
    phone = bind(ROUTED_2)
    bind(REMOTE6_1).send(b"in", ROUTED_2, 4000)
    phone.expect(b"in")


def test_reinstall_keeps_pinholes_and_reconcile_closes_what_nobody_wants(
    network: Network, backend: KernelBackend, bind: Bind
) -> None:
    backend.commit([routed(ROUTED_1), routed(ROUTED_2)])
    phone, other, remote = bind(ROUTED_1), bind(ROUTED_2), bind(REMOTE6_1)
    remote.send(b"in", ROUTED_1, 4000)
    phone.expect(b"in")
    again = install(network, ROUTED)
    assert len(again.listing()) == 2
    for _ in again.reconcile([(routed(ROUTED_2).binding, ())]):
        pass
    time.sleep(CUT)
    remote.send(b"in", ROUTED_1, 4000)
    phone.expect_nothing()
    remote.send(b"in", ROUTED_2, 4000)
    other.expect(b"in")


def test_what_another_mode_has_left_is_taken_away(network: Network, bind: Bind) -> None:
    former = install(network, NAT66)
    former.commit([routed(ROUTED_1)])
    backend = install(network, ROUTED)
    for _ in backend.reconcile([]):
        pass
    assert backend.listing() == []
    phone = bind(ROUTED_1)
    bind(REMOTE6_1).send(b"in", ROUTED_1, 4000)
    phone.expect_nothing()


def test_uninstall_leaves_nothing(network: Network) -> None:
    run = network.router.run
    before = run("nft", "list", "ruleset"), run("ip6tables-save")
    backend = install(network, ROUTED)
    backend.commit([routed(ROUTED_1)])
    network.router.call(backend.uninstall)
    assert (run("nft", "list", "ruleset"), run("ip6tables-save")) == before


def test_what_is_captured(network: Network, backend: KernelBackend, bind: Bind) -> None:
    """What filtering refuses is not: the engine trusts that a remote is one that it may hear."""
    network.router.run("nft", "add rule ip6 admin forward udp dport 4000 accept")
    change = routed(ROUTED_1, Kind.SIP)
    backend.commit([change, Admitted(change.binding, SERVER6)])
    phone, server, stranger = bind(ROUTED_1), bind(SERVER6), bind(REMOTE6_1)
    with capturing(network, ROUTED) as captured:
        phone.send(b"out", SERVER6, 4000)
        server.send(b"in", ROUTED_1, 4000)
        stranger.send(b"refused", ROUTED_1, 4000)
        bind(ROUTED_2).send(b"to a SIP port", SERVER6, 5060)
    assert captured == [b"out", b"in", b"to a SIP port"]
    assert phone.expect(b"refused") == (REMOTE6_1, 4000)
