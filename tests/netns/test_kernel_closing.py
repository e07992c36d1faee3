"""Mappings that close: gone in a moment, and until then in nobody's way."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest

from nat_table.binding import Kind
from rules import elements
from rules.backend import KernelBackend
from rules.elements import Element, Step
from rules.netlink import KernelRefused
from tests.lab.network import EXTERNAL, PHONE_1, PHONE_2, REMOTE_1, Network
from tests.netns.kernel import POOL_PORT, POOL_PORT_ENTRY, Peer, closed, conntrack, opened

pytestmark = pytest.mark.netns


def standing(backend: KernelBackend) -> list[Element]:
    """Returns what stands at this moment; `listing` would wait for what has still to go."""
    return list(backend._netlink.all_elements(elements.OF_BINDINGS + elements.OF_REMOTES))


def await_empty(backend: KernelBackend, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while standing(backend) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert standing(backend) == []


def test_what_closes_is_gone_in_a_moment(backend: KernelBackend) -> None:
    changes = [opened(PHONE_1, POOL_PORT + n, port=4000 + n) for n in range(700)]
    backend.commit(changes)
    backend.commit([closed(change) for change in changes])
    await_empty(backend, 3.0)


def test_port_goes_to_another_phone_before_the_kernel_has_let_it_go(
    backend: KernelBackend, peers: dict[str, Peer]
) -> None:
    first, other = opened(PHONE_1, POOL_PORT), opened(PHONE_1, POOL_PORT + 1, port=4001)
    backend.commit([first, other])
    backend.commit([closed(other)])
    backend.commit([closed(first)])
    second = opened(PHONE_2, POOL_PORT)
    backend.commit([second])
    assert {each.key for each in standing(backend) if each.set_name == "outbound"} == {
        element.key
        for element in elements.elements(second.binding, backend._settings)
        if element.set_name == "outbound"
    }
    peers[REMOTE_1].send(b"hello", EXTERNAL, POOL_PORT)
    peers[PHONE_2].expect(b"hello")


def test_mapping_that_comes_back_at_once_stays(
    backend: KernelBackend, peers: dict[str, Peer]
) -> None:
    change = opened(PHONE_1, POOL_PORT)
    backend.commit([change])
    backend.commit([closed(change)])
    backend.commit([change])
    time.sleep(0.2)
    assert backend.listing() == [change.binding]
    peers[REMOTE_1].send(b"hello", EXTERNAL, POOL_PORT)
    peers[PHONE_1].expect(b"hello")


def test_deletions_that_the_kernel_refuses_are_tried_again(
    backend: KernelBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    netlink = backend._closer._netlink
    take = netlink.commit
    refused: list[Sequence[Step]] = []

    def refuse_once(steps: Sequence[Step]) -> set[bytes]:
        if not refused:
            refused.append(steps)
            raise KernelRefused(12, "test")
        return take(steps)

    monkeypatch.setattr(netlink, "commit", refuse_once)
    change = opened(PHONE_1, POOL_PORT, kind=Kind.SIP)
    backend.commit([change])
    backend.commit([closed(change)])
    await_empty(backend, 5.0)
    assert refused


def test_flows_of_other_mappings_are_spared(
    network: Network, backend: KernelBackend, peers: dict[str, Peer]
) -> None:
    ends, stays = opened(PHONE_1, POOL_PORT), opened(PHONE_2, POOL_PORT + 1)
    backend.commit([ends, stays])
    for phone in (PHONE_1, PHONE_2):
        peers[phone].send(b"out", REMOTE_1, 7000)
        peers[REMOTE_1].expect(b"out")
    backend.commit([closed(ends)])
    time.sleep(0.3)
    flows = conntrack(network)
    assert POOL_PORT_ENTRY not in flows and f"dport={POOL_PORT + 1}" in flows
