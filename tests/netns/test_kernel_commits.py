"""Commits to a real kernel: all of one or nothing, and what then stands there."""

from __future__ import annotations

import time

import pytest

from nat_table.binding import Kind
from nat_table.changes import Refreshed
from rules import elements
from rules.backend import CommitFailed, KernelBackend
from rules.elements import Element
from tests.lab.network import EXTERNAL, PHONE_1, PHONE_2, REMOTE_1, Network
from tests.netns.kernel import (
    PINHOLE,
    POOL_PORT,
    POOL_PORT_ENTRY,
    SETTINGS,
    Peer,
    closed,
    conntrack,
    opened,
)

pytestmark = pytest.mark.netns


def standing(backend: KernelBackend) -> list[Element]:
    return list(backend._netlink.all_elements(elements.OF_BINDINGS + elements.OF_REMOTES))


def test_elements_stand_as_packed(network: Network, backend: KernelBackend) -> None:
    change = opened(PHONE_1, 4000, kind=Kind.SIP)
    backend.commit([change])
    assert set(standing(backend)) == set(elements.elements(change.binding, SETTINGS))
    listed = network.router.run("nft", "list", "map", "inet", "sipnat", "inbound")
    assert f"udp . {EXTERNAL} . 4000 : {PHONE_1} . 4000" in listed


def test_refused_commit_adds_nothing(backend: KernelBackend) -> None:
    backend.commit([opened(PHONE_1, 4000)])
    before = standing(backend)
    with pytest.raises(CommitFailed, match="EEXIST"):
        backend.commit([opened(PHONE_1, 6000, port=6000), opened(PHONE_2, 4000)])
    assert standing(backend) == before
    backend.commit([opened(PHONE_1, 4000)])


def test_port_changes_hands_in_one_commit(backend: KernelBackend, peers: dict[str, Peer]) -> None:
    first = opened(PHONE_1, POOL_PORT)
    backend.commit([first])
    backend.commit([closed(first), opened(PHONE_2, POOL_PORT)])
    peers[REMOTE_1].send(b"hello", EXTERNAL, POOL_PORT)
    peers[PHONE_2].expect(b"hello")


def test_missing_element_does_not_stop_the_rest_of_a_commit(backend: KernelBackend) -> None:
    gone, kept = opened(PHONE_1, 4000), opened(PHONE_2, POOL_PORT)
    backend.commit([closed(gone), kept])
    assert backend.listing() == [kept.binding]


def test_commit_says_when_the_table_is_gone(network: Network, backend: KernelBackend) -> None:
    network.router.run("nft", "delete table inet sipnat")
    with pytest.raises(CommitFailed, match=r"inbound .*ENOENT"):
        backend.commit([opened(PHONE_1, 4000)])
    backend.commit([closed(opened(PHONE_1, 4000))])
    assert backend.listing() == []


def test_many_mappings_close_at_once(
    network: Network, backend: KernelBackend, peers: dict[str, Peer]
) -> None:
    changes = [opened(PHONE_1, POOL_PORT)]
    changes += [opened(PHONE_2, POOL_PORT + n, port=4000 + n) for n in range(1, 20)]
    backend.commit(changes)
    peers[PHONE_1].send(b"out", REMOTE_1, 7000)
    peers[REMOTE_1].expect(b"out")
    backend.commit([closed(change) for change in changes])
    time.sleep(0.3)
    assert POOL_PORT_ENTRY not in conntrack(network)
    assert backend.listing() == []


def test_mapping_without_strangers_searches_nothing(
    backend: KernelBackend, peers: dict[str, Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*ends: object) -> None:
        raise AssertionError("conntrack was searched")

    change = opened(PHONE_1, 4000)
    backend.commit([change])
    peers[PHONE_1].send(b"out", REMOTE_1, 7000)
    peers[REMOTE_1].send(b"back", EXTERNAL, 4000)
    peers[PHONE_1].expect(b"back")
    peers[PHONE_1].send(b"more", REMOTE_1, 7000)
    peers[REMOTE_1].expect(b"out")
    peers[REMOTE_1].expect(b"more")
    monkeypatch.setattr(backend._conntrack, "cut", refuse)
    backend.commit([closed(change)])
    backend.commit([change])


def test_A78_closing_stops_the_flow_and_a_refresh_does_not(
    network: Network, backend: KernelBackend, peers: dict[str, Peer]
) -> None:
    change = opened(PHONE_1, POOL_PORT)
    backend.commit([change])
    peers[PHONE_1].send(b"out", REMOTE_1, 7000)
    peers[REMOTE_1].expect(b"out")
    before = conntrack(network)
    backend.commit([Refreshed(change.binding, PINHOLE, PINHOLE)])
    assert POOL_PORT_ENTRY in before and POOL_PORT_ENTRY in conntrack(network)

    backend.commit([closed(change)])
    time.sleep(0.3)
    peers[REMOTE_1].send(b"after the end", EXTERNAL, POOL_PORT)
    peers[PHONE_1].expect_nothing()
    peers[PHONE_1].send(b"after the end", REMOTE_1, 7000)
    assert peers[REMOTE_1].expect(b"after the end").port != POOL_PORT
    assert POOL_PORT_ENTRY not in conntrack(network)
    backend.commit([closed(change)])
