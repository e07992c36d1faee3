"""IPv6 behind one address (NAT66) does what IPv4 does; behind another prefix (NPTv6) ports stay."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from nat_table.behavior import Filtering
from nat_table.binding import Kind
from nat_table.changes import Admitted
from nat_table.endpoint import Endpoint, Transport
from rules.backend import KernelBackend, Refusal
from rules.settings import Settings
from tests.lab.network import (
    EXTERNAL6,
    LAN_UNIQUE_LOCAL6,
    REMOTE6_1,
    REMOTE6_2,
    SERVER6,
    Network,
)
from tests.netns.kernel import POOL_PORT, closed, counted, install
from tests.netns.kernel6 import (
    LOCAL_1,
    LOCAL_2,
    MASQUERADE6,
    NAT66,
    NPT,
    NPTV6,
    PREFIXES,
    Bind,
    capturing,
    mapped,
    translated,
)

pytestmark = pytest.mark.netns

CUT = 0.3
NEAR, FAR = "2001:db8:7::1", "2001:db8:7::ffff:1"


@pytest.fixture
def network() -> Iterator[Network]:
    with Network(lan6=LAN_UNIQUE_LOCAL6) as network:
        network.wan.run("ip", "-6", "route", "add", str(PREFIXES[1]), "via", EXTERNAL6)
        yield network


@pytest.fixture
def backend(network: Network) -> KernelBackend:
    network.router.run("nft", "-f", "-", text=MASQUERADE6)
    return install(network, NAT66)


def test_A22_A23_two_phones_with_one_port_have_a_mapping_each(
    backend: KernelBackend, bind: Bind
) -> None:
    backend.commit([mapped(LOCAL_1, 4000), mapped(LOCAL_2, POOL_PORT)])
    for phone, external in ((bind(LOCAL_1), 4000), (bind(LOCAL_2), POOL_PORT)):
        for address in (REMOTE6_1, REMOTE6_2):
            remote = bind(address)
            phone.send(b"out", address, 4000)
            assert remote.expect(b"out") == (EXTERNAL6, external)
            remote.send(b"back", EXTERNAL6, external)
            assert phone.expect(b"back") == (address, 4000)


def test_A48_A51_any_remote_may_send_first_even_before_there_is_a_mapping(
    network: Network, backend: KernelBackend, bind: Bind
) -> None:
    phone, remote = bind(LOCAL_1), bind(REMOTE6_1)
    remote.send(b"too early", EXTERNAL6, POOL_PORT)
    time.sleep(0.05)
    entries = network.router.run("conntrack", "-f", "ipv6", "-L", "-p", "udp")
    assert f"dport={POOL_PORT}" not in entries
    backend.commit([mapped(LOCAL_1)])
    remote.send(b"early media", EXTERNAL6, POOL_PORT)
    assert phone.expect(b"early media") == (REMOTE6_1, 4000)
    phone.send(b"answer", REMOTE6_1, 4000)
    assert remote.expect(b"answer") == (EXTERNAL6, POOL_PORT)


def test_A51_masqueraded_flow_of_the_phone_is_known_and_cut(
    backend: KernelBackend, bind: Bind
) -> None:
    phone, remote = bind(LOCAL_1), bind(REMOTE6_1)
    phone.send(b"unmapped", REMOTE6_1, 4000)
    assert remote.expect(b"unmapped") == (EXTERNAL6, 4000)
    assert backend.masqueraded(Endpoint(LOCAL_1, 4000)) == (EXTERNAL6, 4000)
    backend.commit([mapped(LOCAL_1)])
    phone.send(b"mapped", REMOTE6_1, 4000)
    assert remote.expect(b"mapped") == (EXTERNAL6, POOL_PORT)


def test_A51_flow_older_than_the_rules_is_cut_when_its_port_is_mapped(
    network: Network, bind: Bind
) -> None:
    network.router.run("nft", "-f", "-", text=MASQUERADE6)
    phone, remote = bind(LOCAL_1), bind(REMOTE6_1)
    phone.send(b"old", REMOTE6_1, 4000)
    remote.expect(b"old")
    backend = install(network, NAT66)
    backend.commit([mapped(LOCAL_1)])
    phone.send(b"new", REMOTE6_1, 4000)
    assert remote.expect(b"new") == (EXTERNAL6, POOL_PORT)


def test_fence_keeps_unmapped_flows_off_bound_ports(backend: KernelBackend, bind: Bind) -> None:
    backend.commit([mapped(LOCAL_1, 4000)])
    phone, remote = bind(LOCAL_2), bind(REMOTE6_1)
    phone.send(b"unmapped", REMOTE6_1, 4000)
    source = remote.expect(b"unmapped")
    assert 61000 <= source.port <= 65535
    remote.send(b"back", *source)
    phone.expect(b"back")


def test_A57_hairpin_between_mappings_and_from_an_unmapped_socket(
    backend: KernelBackend, bind: Bind
) -> None:
    backend.commit([mapped(LOCAL_1, 4000), mapped(LOCAL_2, POOL_PORT)])
    one, other, unmapped = bind(LOCAL_1), bind(LOCAL_2), bind(LOCAL_1, 6000)
    one.send(b"there", EXTERNAL6, POOL_PORT)
    assert other.expect(b"there") == (EXTERNAL6, 4000)
    other.send(b"and back", EXTERNAL6, 4000)
    assert one.expect(b"and back") == (EXTERNAL6, POOL_PORT)
    unmapped.send(b"unmapped", EXTERNAL6, POOL_PORT)
    source = other.expect(b"unmapped")
    assert source.address == EXTERNAL6 and 61000 <= source.port <= 65535


def test_A86_stranger_reaches_no_phone_and_is_listed_once(
    backend: KernelBackend, bind: Bind
) -> None:
    backend.commit([mapped(LOCAL_1, 5060, Kind.SIP)])
    phone, remote, server = bind(LOCAL_1), bind(REMOTE6_1), bind(SERVER6)
    for _ in range(3):
        remote.send(b"INVITE", EXTERNAL6, 5060)
    phone.expect_nothing()
    assert backend.refused() == [Refusal(REMOTE6_1, Transport.UDP, Endpoint(LOCAL_1, 4000))]
    assert counted(backend) == {"refused_signalling": 3}
    phone.send(b"REGISTER", SERVER6, 4000)
    assert server.expect(b"REGISTER") == (EXTERNAL6, 5060)
    bind(SERVER6, 5061).send(b"INVITE", EXTERNAL6, 5060)
    assert phone.expect(b"INVITE") == (SERVER6, 5061)


def test_A49_A84_latch_is_kept_within_the_64_bits_of_a_signalled_address(
    network: Network, bind: Bind
) -> None:
    network.wan.run("ip", "-6", "address", "add", f"{FAR}/128", "dev", "eth0", "nodad")
    network.router.run("ip", "-6", "route", "add", f"{FAR}/64", "via", SERVER6)
    backend = install(network, replace(NAT66, media_filter=Filtering.LATCH))
    change = mapped(LOCAL_1)
    admitted = [Admitted(change.binding, address) for address in (NEAR, "fd00:9::1")]
    backend.commit([change, *admitted])
    phone = bind(LOCAL_1)
    bind(REMOTE6_1).send(b"from elsewhere", EXTERNAL6, POOL_PORT)
    phone.expect_nothing()
    bind(FAR).send(b"from the farm", EXTERNAL6, POOL_PORT)
    assert phone.expect(b"from the farm") == (FAR, 4000)


def test_A78_closed_mapping_is_cut(backend: KernelBackend, bind: Bind) -> None:
    phone, remote = bind(LOCAL_1), bind(REMOTE6_1)
    change = mapped(LOCAL_1)
    backend.commit([change])
    for payload, is_closed in ((b"on", False), (b"off", True)):
        if is_closed:
            backend.commit([closed(change)])
            time.sleep(CUT)
        phone.send(payload, REMOTE6_1, 4000)
        assert (remote.expect(payload) == (EXTERNAL6, POOL_PORT)) is not is_closed
    remote.send(b"late", EXTERNAL6, POOL_PORT)
    phone.expect_nothing()


def test_half_a_mapping_is_made_whole_or_swept(network: Network, backend: KernelBackend) -> None:
    backend.commit([mapped(LOCAL_1, 4000), mapped(LOCAL_2, POOL_PORT, Kind.SIP)])
    run = network.router.run
    run("nft", f"delete element inet sipnat outbound6 {{ udp . {LOCAL_1} . 4000 }}")
    run("nft", f"delete element inet sipnat inbound6 {{ udp . {EXTERNAL6} . {POOL_PORT} }}")
    again = install(network, NAT66)
    standing = again.listing()
    assert standing == [mapped(LOCAL_1, 4000).binding]
    for _ in again.reconcile([(each, ()) for each in standing]):
        pass
    table = run("nft", "list", "table", "inet", "sipnat")
    assert f"{LOCAL_1} . 4000 : {EXTERNAL6} . 4000" in table and LOCAL_2 not in table


def test_mappings_come_back_where_somebody_has_flushed_the_ruleset(
    network: Network, backend: KernelBackend, bind: Bind
) -> None:
    change = mapped(LOCAL_1)
    backend.commit([change])
    network.router.run("nft", "flush ruleset")
    network.router.call(backend.install)
    for _ in backend.reconcile([(change.binding, ())]):
        pass
    phone, remote = bind(LOCAL_1), bind(REMOTE6_1)
    remote.send(b"in", EXTERNAL6, POOL_PORT)
    phone.expect(b"in")


@pytest.mark.parametrize("is_translated_by_admin", [False, True])
def test_A22_nptv6_changes_the_prefix_and_no_port(
    network: Network, bind: Bind, is_translated_by_admin: bool
) -> None:
    if is_translated_by_admin:
        for rule in NPT:
            network.router.run("ip6tables", "-t", "mangle", "-A", *rule.split())
    backend = install(network, NPTV6)
    changes = [translated(LOCAL_1), translated(LOCAL_2, Kind.SIP)]
    backend.commit([*changes, Admitted(changes[1].binding, REMOTE6_1)])
    assert set(backend.listing()) == {change.binding for change in changes}
    remote = bind(REMOTE6_1)
    for change in changes:
        phone, external = bind(change.binding.internal.address), change.binding.external
        remote.send(b"in", *external)
        assert phone.expect(b"in") == (REMOTE6_1, 4000)
        phone.send(b"out", REMOTE6_1, 4000)
        assert remote.expect(b"out") == external
    bind(REMOTE6_2).send(b"INVITE", *changes[1].binding.external)
    phone.expect_nothing()
    assert counted(backend) == {"refused_signalling": 1}


def test_A57_hairpin_under_nptv6(network: Network, bind: Bind) -> None:
    backend = install(network, NPTV6)
    one, other = translated(LOCAL_1), translated(LOCAL_2)
    backend.commit([one, other])
    phone, called = bind(LOCAL_1), bind(LOCAL_2)
    phone.send(b"there", *other.binding.external)
    assert called.expect(b"there") == one.binding.external


@pytest.mark.parametrize("settings", [NAT66, NPTV6], ids=["nat66", "nptv6"])
def test_what_is_captured(network: Network, bind: Bind, settings: Settings) -> None:
    backend = install(network, settings)
    change = mapped(LOCAL_1, 4000, Kind.SIP)
    if settings is NPTV6:
        change = translated(LOCAL_1, Kind.SIP)
    backend.commit([change, Admitted(change.binding, SERVER6)])
    phone, server, other = bind(LOCAL_1), bind(SERVER6), bind(LOCAL_2)
    with capturing(network, settings) as captured:
        phone.send(b"from a SIP socket", SERVER6, 4000)
        server.send(b"to a SIP socket", *change.binding.external)
        other.send(b"to a SIP port", SERVER6, 5060)
        other.send(b"not SIP", SERVER6, 4000)
    assert captured == [b"from a SIP socket", b"to a SIP socket", b"to a SIP port"]
    server.expect(b"not SIP")
