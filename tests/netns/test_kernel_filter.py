"""Which remotes the kernel lets in, by the policy of signalling and of media (RFC 4787 §5)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace

import pytest

from nat_table.behavior import Filtering
from nat_table.binding import Kind
from nat_table.changes import Admitted, Excluded
from nat_table.endpoint import Endpoint, Transport
from rules.backend import KernelBackend, Refusal
from tests.lab.network import (
    EXTERNAL,
    PHONE_1,
    PHONE_2,
    REMOTE_1,
    REMOTE_2,
    SERVER,
    Network,
)
from tests.netns.kernel import POOL_PORT, SETTINGS, Peer, closed, counted, install, opened

pytestmark = pytest.mark.netns

NEAR, FAR = "198.51.100.7", "198.51.100.200"
PHONE = Endpoint(PHONE_1, 4000)
Elsewhere = Callable[[str, int], Peer]


@pytest.fixture
def elsewhere(network: Network) -> Iterator[Elsewhere]:
    """Makes remotes at other ports, or in another network than the lab's."""
    made: list[Peer] = []
    for address in (NEAR, FAR):
        network.wan.run("ip", "address", "add", f"{address}/32", "dev", "eth0")

    def bind(address: str, port: int) -> Peer:
        made.append(Peer(network.wan.udp_socket(address, port)))
        return made[-1]

    yield bind
    for peer in made:
        peer.udp.close()


def test_A86_stranger_reaches_no_phone_and_is_listed_once(
    backend: KernelBackend, peers: dict[str, Peer]
) -> None:
    backend.commit([opened(PHONE_1, 5060, kind=Kind.SIP)])
    for _ in range(3):
        peers[REMOTE_1].send(b"INVITE", EXTERNAL, 5060)
    peers[PHONE_1].expect_nothing()
    assert backend.refused() == [Refusal(REMOTE_1, Transport.UDP, PHONE)]
    assert backend.refused() == []
    assert counted(backend) == {"refused_signalling": 3}
    peers[REMOTE_2].send(b"INVITE", EXTERNAL, 5060)
    peers[PHONE_1].expect_nothing()
    assert [refusal.source for refusal in backend.refused()] == [REMOTE_2]


def test_A31_registrar_may_send_from_another_port(
    backend: KernelBackend, peers: dict[str, Peer], elsewhere: Elsewhere
) -> None:
    backend.commit([opened(PHONE_1, POOL_PORT, kind=Kind.SIP)])
    peers[PHONE_1].send(b"REGISTER", SERVER, 5060)
    assert peers[SERVER].expect(b"REGISTER") == (EXTERNAL, POOL_PORT)
    elsewhere(SERVER, 5061).send(b"INVITE", EXTERNAL, POOL_PORT)
    assert peers[PHONE_1].expect(b"INVITE") == (SERVER, 5061)


def test_A31_configured_server_may_send_before_anybody_knows_it(
    network: Network, peers: dict[str, Peer]
) -> None:
    backend = install(network, replace(SETTINGS, servers=(f"{SERVER}/32",)))
    backend.commit([opened(PHONE_1, 5060, kind=Kind.SIP), opened(PHONE_2, POOL_PORT)])
    peers[SERVER].send(b"INVITE", EXTERNAL, 5060)
    peers[PHONE_1].expect(b"INVITE")
    peers[REMOTE_1].send(b"INVITE", EXTERNAL, 5060)
    peers[PHONE_1].expect_nothing()


def test_A31_signalled_address_is_admitted_until_it_is_excluded(
    backend: KernelBackend, peers: dict[str, Peer], elsewhere: Elsewhere
) -> None:
    change = opened(PHONE_1, 5060, kind=Kind.SIP)
    peers[REMOTE_1].send(b"INVITE", EXTERNAL, 5060)
    backend.commit([change, Admitted(change.binding, REMOTE_1)])
    peers[REMOTE_1].send(b"INVITE", EXTERNAL, 5060)
    peers[PHONE_1].expect(b"INVITE")
    backend.commit([Excluded(change.binding, REMOTE_1)])
    elsewhere(REMOTE_1, 7001).send(b"INVITE", EXTERNAL, 5060)
    peers[PHONE_1].expect_nothing()


def test_A86_signalling_open_to_all_is_a_choice(network: Network, peers: dict[str, Peer]) -> None:
    settings = replace(SETTINGS, signalling_filter=Filtering.ENDPOINT_INDEPENDENT)
    backend = install(network, settings)
    backend.commit([opened(PHONE_1, 5060, kind=Kind.SIP)])
    peers[REMOTE_1].send(b"INVITE", EXTERNAL, 5060)
    peers[PHONE_1].expect(b"INVITE")


def test_A48_media_from_anywhere_by_default(backend: KernelBackend, peers: dict[str, Peer]) -> None:
    change = opened(PHONE_1, POOL_PORT)
    backend.commit([change, Admitted(change.binding, REMOTE_1)])
    for remote in (REMOTE_1, REMOTE_2):
        peers[remote].send(b"media", EXTERNAL, POOL_PORT)
        peers[PHONE_1].expect(b"media")
    assert counted(backend) == {}


def test_A45_A84_strict_media_waits_for_the_answer_and_keeps_both_sources(
    network: Network, peers: dict[str, Peer]
) -> None:
    backend = install(network, replace(SETTINGS, media_filter=Filtering.ADDRESS_DEPENDENT))
    change = opened(PHONE_1, POOL_PORT)
    backend.commit([change])
    peers[REMOTE_1].send(b"early", EXTERNAL, POOL_PORT)
    peers[PHONE_1].expect_nothing()
    assert counted(backend) == {"refused_media": 1}
    backend.commit([Admitted(change.binding, REMOTE_1)])
    peers[REMOTE_1].send(b"late", EXTERNAL, POOL_PORT)
    peers[PHONE_1].expect(b"late")
    backend.commit([Admitted(change.binding, REMOTE_2)])
    for remote in (REMOTE_1, REMOTE_2):
        peers[remote].send(b"both", EXTERNAL, POOL_PORT)
        peers[PHONE_1].expect(b"both")


def test_A49_strict_media_lets_in_whom_the_phone_has_sent_to(
    network: Network, peers: dict[str, Peer], elsewhere: Elsewhere
) -> None:
    backend = install(network, replace(SETTINGS, media_filter=Filtering.ADDRESS_DEPENDENT))
    backend.commit([opened(PHONE_1, POOL_PORT)])
    peers[PHONE_1].send(b"out", REMOTE_1, 7000)
    peers[REMOTE_1].expect(b"out")
    elsewhere(REMOTE_1, 7001).send(b"another port", EXTERNAL, POOL_PORT)
    peers[PHONE_1].expect(b"another port")
    peers[REMOTE_2].send(b"another address", EXTERNAL, POOL_PORT)
    peers[PHONE_1].expect_nothing()


@pytest.fixture
def latching(network: Network) -> KernelBackend:
    return install(network, replace(SETTINGS, media_filter=Filtering.LATCH))


def test_A84_first_source_has_the_latch(latching: KernelBackend, peers: dict[str, Peer]) -> None:
    latching.commit([opened(PHONE_1, POOL_PORT)])
    for _ in range(2):
        peers[REMOTE_1].send(b"first", EXTERNAL, POOL_PORT)
        peers[PHONE_1].expect(b"first")
    peers[REMOTE_2].send(b"second", EXTERNAL, POOL_PORT)
    peers[PHONE_1].expect_nothing()
    peers[PHONE_1].send(b"answer", REMOTE_1, 7000)
    peers[REMOTE_1].expect(b"answer")
    assert latching.refused() == [Refusal(REMOTE_2, Transport.UDP, PHONE)]
    assert counted(latching) == {"refused_media": 1}


def test_A84_whoever_answers_the_phone_has_the_latch(
    latching: KernelBackend, peers: dict[str, Peer]
) -> None:
    latching.commit([opened(PHONE_1, POOL_PORT)])
    peers[PHONE_1].send(b"out", REMOTE_1, 7000)
    peers[REMOTE_1].expect(b"out")
    peers[REMOTE_1].send(b"back", EXTERNAL, POOL_PORT)
    peers[PHONE_1].expect(b"back")
    peers[REMOTE_2].send(b"second", EXTERNAL, POOL_PORT)
    peers[PHONE_1].expect_nothing()


def test_A49_latch_is_kept_within_the_network_of_a_signalled_address(
    latching: KernelBackend, peers: dict[str, Peer], elsewhere: Elsewhere
) -> None:
    change = opened(PHONE_1, POOL_PORT)
    latching.commit([change, Admitted(change.binding, NEAR), Admitted(change.binding, "10.9.9.9")])
    peers[REMOTE_1].send(b"from elsewhere", EXTERNAL, POOL_PORT)
    peers[PHONE_1].expect_nothing()
    farm = elsewhere(FAR, 7000)
    farm.send(b"from the farm", EXTERNAL, POOL_PORT)
    assert peers[PHONE_1].expect(b"from the farm") == (FAR, 7000)


def test_A49_private_address_of_a_remote_limits_nobody(
    latching: KernelBackend, peers: dict[str, Peer]
) -> None:
    change = opened(PHONE_1, POOL_PORT)
    latching.commit([change, Admitted(change.binding, "192.168.1.5")])
    peers[REMOTE_1].send(b"behind a NAT", EXTERNAL, POOL_PORT)
    peers[PHONE_1].expect(b"behind a NAT")


def test_A78_next_call_on_the_same_ports_has_a_latch_of_its_own(
    latching: KernelBackend, peers: dict[str, Peer]
) -> None:
    change = opened(PHONE_1, POOL_PORT)
    latching.commit([change])
    peers[REMOTE_1].send(b"first call", EXTERNAL, POOL_PORT)
    peers[PHONE_1].expect(b"first call")
    latching.commit([closed(change)])
    time.sleep(0.3)
    latching.commit([change])
    peers[REMOTE_2].send(b"second call", EXTERNAL, POOL_PORT)
    peers[PHONE_1].expect(b"second call")
    peers[REMOTE_1].send(b"what is left of the first", EXTERNAL, POOL_PORT)
    peers[PHONE_1].expect_nothing()


@pytest.mark.parametrize("policy", [Filtering.ADDRESS_DEPENDENT, Filtering.LATCH])
def test_A78_closed_port_admits_nobody_to_its_next_owner(
    network: Network, peers: dict[str, Peer], elsewhere: Elsewhere, policy: Filtering
) -> None:
    backend = install(network, replace(SETTINGS, media_filter=policy))
    old, new = opened(PHONE_1, POOL_PORT), opened(PHONE_2, POOL_PORT)
    backend.commit([old, Admitted(old.binding, REMOTE_1)])
    peers[PHONE_1].send(b"out", REMOTE_1, 7000)
    peers[REMOTE_1].expect(b"out")
    peers[REMOTE_1].send(b"back", EXTERNAL, POOL_PORT)
    peers[PHONE_1].expect(b"back")
    backend.commit([Excluded(old.binding, REMOTE_1), closed(old)])
    time.sleep(0.3)
    backend.commit([new, Admitted(new.binding, NEAR)])
    peers[REMOTE_1].send(b"what is left", EXTERNAL, POOL_PORT)
    peers[PHONE_2].expect_nothing()
    elsewhere(NEAR, 7000).send(b"new", EXTERNAL, POOL_PORT)
    peers[PHONE_2].expect(b"new")


@pytest.mark.parametrize("policy", [Filtering.ADDRESS_DEPENDENT, Filtering.LATCH])
def test_A57_hairpin_is_not_filtered(
    network: Network, peers: dict[str, Peer], policy: Filtering
) -> None:
    backend = install(network, replace(SETTINGS, media_filter=policy))
    backend.commit([opened(PHONE_1, 5060, kind=Kind.SIP), opened(PHONE_2, POOL_PORT)])
    peers[PHONE_1].send(b"there", EXTERNAL, POOL_PORT)
    assert peers[PHONE_2].expect(b"there") == (EXTERNAL, 5060)
    with closing(network.lan.udp_socket(PHONE_2, 6000)) as udp:
        Peer(udp).send(b"unmapped", EXTERNAL, 5060)
        peers[PHONE_1].expect(b"unmapped")
    assert counted(backend) == {}
