"""The path of packets on a real kernel: which flow gets which mapping, and which gets none."""

from __future__ import annotations

import time
from contextlib import closing

import pytest

from rules.backend import KernelBackend
from tests.lab.network import EXTERNAL, PHONE_1, PHONE_2, REMOTE_1, REMOTE_2, Network
from tests.netns.kernel import POOL_PORT, POOL_PORT_ENTRY, Peer, conntrack, install, opened

pytestmark = pytest.mark.netns


def test_wire_masquerades_before_the_rules_come(network: Network, peers: dict[str, Peer]) -> None:
    peers[PHONE_1].send(b"out", REMOTE_1, 7000)
    assert peers[REMOTE_1].expect(b"out") == (EXTERNAL, 4000)
    peers[REMOTE_1].send(b"back", EXTERNAL, 4000)
    peers[PHONE_1].expect(b"back")
    peers[REMOTE_2].send(b"stranger", EXTERNAL, 4000)
    peers[PHONE_1].expect_nothing()


def test_A23_two_phones_with_one_port_have_a_mapping_each(
    backend: KernelBackend, peers: dict[str, Peer]
) -> None:
    backend.commit([opened(PHONE_1, 4000), opened(PHONE_2, POOL_PORT)])
    for phone, external in ((PHONE_1, 4000), (PHONE_2, POOL_PORT)):
        for remote, port in ((REMOTE_1, 7000), (REMOTE_2, 7002)):
            peers[phone].send(b"out", remote, port)
            assert peers[remote].expect(b"out") == (EXTERNAL, external)
            peers[remote].send(b"back", EXTERNAL, external)
            assert peers[phone].expect(b"back") == (remote, port)


@pytest.mark.parametrize("external", [4000, POOL_PORT])
def test_A48_any_remote_may_send_first(
    backend: KernelBackend, peers: dict[str, Peer], external: int
) -> None:
    backend.commit([opened(PHONE_1, external)])
    peers[REMOTE_2].send(b"early media", EXTERNAL, external)
    assert peers[PHONE_1].expect(b"early media") == (REMOTE_2, 7002)
    peers[PHONE_1].send(b"answer", REMOTE_2, 7002)
    assert peers[REMOTE_2].expect(b"answer") == (EXTERNAL, external)


@pytest.mark.parametrize("external", [4000, POOL_PORT])
def test_A51_packet_from_outside_before_the_mapping_does_not_kill_the_flow(
    backend: KernelBackend, peers: dict[str, Peer], external: int
) -> None:
    for _ in range(3):
        peers[REMOTE_1].send(b"too early", EXTERNAL, external)
    time.sleep(0.05)
    backend.commit([opened(PHONE_1, external)])
    peers[PHONE_1].send(b"out", REMOTE_1, 7000)
    assert peers[REMOTE_1].expect(b"out") == (EXTERNAL, external)
    peers[REMOTE_1].send(b"back", EXTERNAL, external)
    peers[PHONE_1].expect(b"back")


@pytest.mark.parametrize("is_filtered_delete", [True, False])
def test_A51_earlier_masqueraded_flow_of_the_phone_is_cut(
    backend: KernelBackend, peers: dict[str, Peer], is_filtered_delete: bool
) -> None:
    backend._conntrack._has_filtered_delete = is_filtered_delete
    peers[PHONE_2].send(b"unmapped", REMOTE_1, 7000)
    assert peers[REMOTE_1].expect(b"unmapped") == (EXTERNAL, 4000)
    backend.commit([opened(PHONE_2, POOL_PORT)])
    peers[PHONE_2].send(b"mapped", REMOTE_1, 7000)
    assert peers[REMOTE_1].expect(b"mapped") == (EXTERNAL, POOL_PORT)


def test_A51_strays_are_asked_for_where_the_kernel_cannot_tell_in_a_transaction(
    backend: KernelBackend, peers: dict[str, Peer]
) -> None:
    backend._netlink._has_destroy = False
    peers[PHONE_2].send(b"unmapped", REMOTE_1, 7000)
    assert peers[REMOTE_1].expect(b"unmapped") == (EXTERNAL, 4000)
    backend.commit([opened(PHONE_2, POOL_PORT)])
    peers[PHONE_2].send(b"mapped", REMOTE_1, 7000)
    assert peers[REMOTE_1].expect(b"mapped") == (EXTERNAL, POOL_PORT)


def test_A51_flow_of_another_phone_on_our_port_moves_to_the_fence(
    backend: KernelBackend, peers: dict[str, Peer]
) -> None:
    peers[PHONE_2].send(b"first", REMOTE_1, 7000)
    assert peers[REMOTE_1].expect(b"first") == (EXTERNAL, 4000)
    backend.commit([opened(PHONE_1, 4000)])
    peers[PHONE_1].send(b"mapped", REMOTE_1, 7000)
    assert peers[REMOTE_1].expect(b"mapped") == (EXTERNAL, 4000)
    peers[PHONE_2].send(b"second", REMOTE_1, 7000)
    moved = peers[REMOTE_1].expect(b"second")
    assert 61000 <= moved.port <= 65535
    peers[REMOTE_1].send(b"back", EXTERNAL, moved.port)
    peers[PHONE_2].expect(b"back")


def test_A51_flow_older_than_the_rules_is_cut_when_its_port_is_mapped(
    network: Network, peers: dict[str, Peer]
) -> None:
    peers[PHONE_2].send(b"old", REMOTE_1, 7000)
    peers[REMOTE_1].expect(b"old")
    backend = install(network)
    backend.commit([opened(PHONE_2, POOL_PORT)])
    peers[PHONE_2].send(b"new", REMOTE_1, 7000)
    assert peers[REMOTE_1].expect(b"new") == (EXTERNAL, POOL_PORT)


def test_a39_an_unmapped_flow_keeps_its_port_while_nobody_has_it(
    network: Network, backend: KernelBackend, peers: dict[str, Peer]
) -> None:
    with closing(network.lan.udp_socket(PHONE_1, POOL_PORT)) as udp:
        Peer(udp).send(b"probe", REMOTE_1, 7000)
        assert peers[REMOTE_1].expect(b"probe").port == POOL_PORT


def test_fence_keeps_unmapped_flows_off_bound_ports(
    network: Network, backend: KernelBackend, peers: dict[str, Peer]
) -> None:
    backend.commit([opened(PHONE_2, POOL_PORT)])
    with closing(network.lan.udp_socket(PHONE_1, POOL_PORT)) as udp:
        Peer(udp).send(b"unmapped", REMOTE_1, 7000)
        source = peers[REMOTE_1].expect(b"unmapped")
        assert 61000 <= source.port <= 65535
        peers[REMOTE_1].send(b"back", EXTERNAL, source.port)
        Peer(udp).expect(b"back")


@pytest.mark.parametrize("is_connected", [True, False])
def test_guard_spares_sockets_of_the_router(
    network: Network, backend: KernelBackend, peers: dict[str, Peer], is_connected: bool
) -> None:
    with closing(network.router.udp_socket("0.0.0.0", POOL_PORT)) as udp:
        if is_connected:
            udp.connect((REMOTE_1, 7000))
        peers[REMOTE_1].send(b"to the router", EXTERNAL, POOL_PORT)
        Peer(udp).expect(b"to the router")
        udp.connect((REMOTE_1, 7000))
        udp.send(b"from the router")
        assert peers[REMOTE_1].expect(b"from the router") == (EXTERNAL, POOL_PORT)


def test_guard_drops_what_has_no_mapping_and_leaves_no_entry(
    network: Network, backend: KernelBackend, peers: dict[str, Peer]
) -> None:
    peers[REMOTE_1].send(b"early", EXTERNAL, POOL_PORT)
    time.sleep(0.05)
    assert POOL_PORT_ENTRY not in conntrack(network)


def test_A57_hairpin_between_two_mappings(backend: KernelBackend, peers: dict[str, Peer]) -> None:
    backend.commit([opened(PHONE_1, 4000), opened(PHONE_2, POOL_PORT)])
    peers[PHONE_1].send(b"there", EXTERNAL, POOL_PORT)
    assert peers[PHONE_2].expect(b"there") == (EXTERNAL, 4000)
    peers[PHONE_2].send(b"and back", EXTERNAL, 4000)
    assert peers[PHONE_1].expect(b"and back") == (EXTERNAL, POOL_PORT)


def test_A57_hairpin_from_an_unmapped_socket(
    backend: KernelBackend, peers: dict[str, Peer]
) -> None:
    backend.commit([opened(PHONE_2, POOL_PORT)])
    peers[PHONE_1].send(b"there", EXTERNAL, POOL_PORT)
    source = peers[PHONE_2].expect(b"there")
    assert source.address == EXTERNAL and 61000 <= source.port <= 65535
    peers[PHONE_2].send(b"and back", *source)
    assert peers[PHONE_1].expect(b"and back") == (EXTERNAL, POOL_PORT)


def test_A57_hairpin_packet_before_the_mapping_does_not_kill_the_flow(
    backend: KernelBackend, peers: dict[str, Peer]
) -> None:
    peers[PHONE_1].send(b"too early", EXTERNAL, POOL_PORT)
    time.sleep(0.05)
    backend.commit([opened(PHONE_1, 4000), opened(PHONE_2, POOL_PORT)])
    peers[PHONE_1].send(b"there", EXTERNAL, POOL_PORT)
    assert peers[PHONE_2].expect(b"there") == (EXTERNAL, 4000)
