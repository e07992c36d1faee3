"""What the kernel has counted of the flows of mappings, and of no others."""

from __future__ import annotations

from contextlib import closing

import pytest

from nat_table.binding import Kind
from nat_table.endpoint import TCP, UDP, Endpoint
from rules.accounting import is_counting, start_counting
from rules.backend import KernelBackend
from tests.lab.network import (
    EXTERNAL,
    PHONE_1,
    PHONE_2,
    REMOTE_1,
    REMOTE_2,
    Network,
)
from tests.netns.connections import connected, listening, opened_tcp
from tests.netns.kernel import POOL_PORT, Peer, install, opened
from tests.netns.test_kernel_tcp import CONTACT, FROM_SERVER

pytestmark = pytest.mark.netns

HEADERS = 28
NEAR_1, NEAR_2 = (UDP, Endpoint(PHONE_1, 4000)), (UDP, Endpoint(PHONE_2, 4000))


@pytest.fixture
def counting(network: Network) -> KernelBackend:
    network.router.call(start_counting)
    return install(network)


def test_counting_is_switched_on_for_this_namespace_alone(network: Network) -> None:
    assert not network.router.call(is_counting)
    network.router.call(start_counting)
    assert network.router.call(is_counting)
    assert not network.lan.call(is_counting)


@pytest.mark.parametrize("is_outbound", [True, False])
def test_a_mapping_has_sent_and_received_whoever_began(
    counting: KernelBackend, peers: dict[str, Peer], is_outbound: bool
) -> None:
    counting.commit([opened(PHONE_1, POOL_PORT)])
    phone, remote = peers[PHONE_1], peers[REMOTE_1]

    def send() -> None:
        phone.send(b"12345", REMOTE_1, 7000)
        remote.expect(b"12345")

    def answer() -> None:
        remote.send(b"123", EXTERNAL, POOL_PORT)
        phone.expect(b"123")

    for step in (send, send, answer) if is_outbound else (answer, send, send):
        step()
    assert counting.traffic() == {NEAR_1: (2, 2 * (HEADERS + 5), 1, HEADERS + 3)}


def test_the_flows_with_several_remotes_are_counted_together(
    counting: KernelBackend, peers: dict[str, Peer]
) -> None:
    counting.commit([opened(PHONE_1, POOL_PORT)])
    for remote, port in ((REMOTE_1, 7000), (REMOTE_2, 7002)):
        peers[remote].send(b"", EXTERNAL, POOL_PORT)
        peers[PHONE_1].expect(b"")
        peers[PHONE_1].send(b"", remote, port)
        peers[remote].expect(b"")
    assert counting.traffic() == {NEAR_1: (2, 2 * HEADERS, 2, 2 * HEADERS)}


def test_A57_two_phones_that_talk_to_each_other_have_a_count_each(
    counting: KernelBackend, peers: dict[str, Peer]
) -> None:
    counting.commit([opened(PHONE_1, 4000), opened(PHONE_2, POOL_PORT)])
    peers[PHONE_1].send(b"", EXTERNAL, POOL_PORT)
    peers[PHONE_2].expect(b"")
    for _ in range(2):
        peers[PHONE_2].send(b"", EXTERNAL, 4000)
        peers[PHONE_1].expect(b"")
    assert counting.traffic() == {
        NEAR_1: (1, HEADERS, 2, 2 * HEADERS),
        NEAR_2: (2, 2 * HEADERS, 1, HEADERS),
    }


def test_flows_without_a_mapping_are_not_looked_at(
    counting: KernelBackend, peers: dict[str, Peer]
) -> None:
    peers[PHONE_1].send(b"", REMOTE_1, 7000)
    peers[REMOTE_1].expect(b"")
    assert counting.traffic() == {}


def test_flows_that_are_older_than_the_counting_are_left_out(
    network: Network, backend: KernelBackend, peers: dict[str, Peer]
) -> None:
    backend.commit([opened(PHONE_1, POOL_PORT)])
    peers[PHONE_1].send(b"", REMOTE_1, 7000)
    network.router.call(start_counting)
    peers[PHONE_1].send(b"", REMOTE_1, 7000)
    assert backend.traffic() == {}
    backend.cut_flows()
    peers[PHONE_1].send(b"", REMOTE_1, 7000)
    for _ in range(3):
        peers[REMOTE_1].expect(b"")
    assert backend.traffic() == {NEAR_1: (1, HEADERS, 0, 0)}


def test_A53_media_over_tcp_is_counted_at_the_socket_that_listens(
    network: Network, counting: KernelBackend
) -> None:
    passive = Endpoint(PHONE_1, 9000)
    counting.commit([opened_tcp(POOL_PORT, port=9000, kind=Kind.MEDIA)])
    with (
        listening(network.lan, passive) as listener,
        connected(network.wan, FROM_SERVER, CONTACT) as far,
        closing(listener.accept()[0]) as near,
    ):
        far.sendall(b"x" * 1000)
        assert near.recv(2000) == b"x" * 1000
        traffic = counting.traffic()[TCP, passive]
    assert traffic.sent >= 1 and traffic.received >= 3
    assert traffic.received_bytes > 1000 > traffic.sent_bytes
