"""The kernel is made equal to the table, whatever stands; live flows are told from dead ones."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

from nat_table.behavior import Filtering
from nat_table.binding import Binding, Kind
from nat_table.changes import Admitted
from nat_table.endpoint import Endpoint
from rules import elements
from rules.backend import CommitFailed, KernelBackend
from tests.lab.network import EXTERNAL, PHONE_1, PHONE_2, REMOTE_1, REMOTE_2, Network
from tests.netns.connections import connected, listening, opened_tcp
from tests.netns.kernel import POOL_PORT, SETTINGS, Peer, binding, closed, install, opened

pytestmark = pytest.mark.netns

STRICT = replace(SETTINGS, media_filter=Filtering.ADDRESS_DEPENDENT)


def reconcile(backend: KernelBackend, *wanted: tuple[Binding, Iterable[str]]) -> None:
    for _ in backend.reconcile(wanted):
        pass


def test_A75_flushed_kernel_gets_mappings_and_admissions_back(
    network: Network, peers: dict[str, Peer]
) -> None:
    backend = install(network, STRICT)
    change = opened(PHONE_1, POOL_PORT)
    backend.commit([change, Admitted(change.binding, REMOTE_1)])
    network.router.run("nft", "flush ruleset")
    peers[PHONE_1].send(b"unmapped meanwhile", REMOTE_2, 7002)
    assert peers[REMOTE_2].expect(b"unmapped meanwhile") == (PHONE_1, 4000)
    network.router.call(backend.install)
    reconcile(backend, (change.binding, [REMOTE_1]))
    peers[REMOTE_1].send(b"admitted", EXTERNAL, POOL_PORT)
    peers[PHONE_1].expect(b"admitted")
    peers[REMOTE_2].send(b"stranger", EXTERNAL, POOL_PORT)
    peers[PHONE_1].expect_nothing()
    peers[PHONE_1].send(b"out", REMOTE_2, 7002)
    assert peers[REMOTE_2].expect(b"out") == (EXTERNAL, POOL_PORT)


def test_A78_what_the_table_has_not_goes_with_its_flows(
    network: Network, peers: dict[str, Peer]
) -> None:
    backend = install(network, STRICT)
    kept, gone = opened(PHONE_1, 4000), opened(PHONE_2, POOL_PORT)
    backend.commit([kept, gone, Admitted(gone.binding, REMOTE_1), Admitted(kept.binding, REMOTE_2)])
    peers[REMOTE_1].send(b"in", EXTERNAL, POOL_PORT)
    peers[PHONE_2].expect(b"in")
    reconcile(backend, (kept.binding, []))
    names = elements.OF_BINDINGS + elements.OF_REMOTES
    standing = set(backend._netlink.all_elements(names))
    assert standing == set(elements.elements(kept.binding, STRICT))


def test_endpoint_that_stands_for_another_is_replaced(
    backend: KernelBackend, peers: dict[str, Peer]
) -> None:
    backend.commit([opened(PHONE_1, POOL_PORT)])
    reconcile(backend, (binding(PHONE_2, POOL_PORT), []))
    peers[REMOTE_1].send(b"in", EXTERNAL, POOL_PORT)
    peers[PHONE_2].expect(b"in")


def test_mapping_that_closes_between_two_steps_does_not_come_back(backend: KernelBackend) -> None:
    changes = [opened(PHONE_1, 5000 + n, port=5000 + n) for n in range(2000)]
    last, late = changes[-1], opened(PHONE_2, POOL_PORT)
    steps = backend.reconcile([(change.binding, []) for change in changes])
    next(steps)
    backend.commit([closed(last), late])
    for _ in steps:
        pass
    listed = {each.external.port for each in backend.listing()}
    assert len(listed) == 2000 and last.binding.external.port not in listed
    assert POOL_PORT in listed


def test_reconciling_may_be_given_up_and_begun_anew(backend: KernelBackend) -> None:
    """The second one reads while commits change the set under it."""
    changes = [opened(PHONE_1, 5000 + n, port=5000 + n) for n in range(4000)]
    backend.commit(changes)
    wanted: list[tuple[Binding, list[str]]] = [(change.binding, []) for change in changes]
    given_up = backend.reconcile(iter(wanted))
    next(given_up)
    del given_up
    steps = backend.reconcile(wanted)
    for number, _ in enumerate(steps):
        backend.commit([opened(PHONE_2, POOL_PORT + number, port=6000 + number)])
    ports = {each.external.port for each in backend.listing()}
    assert ports == {5000 + n for n in range(4000)} | {POOL_PORT + n for n in range(number + 1)}


def test_A49_latches_go_on_from_what_was_reconciled(network: Network) -> None:
    latching = replace(SETTINGS, media_filter=Filtering.LATCH)
    backend = install(network, latching)
    media = binding(PHONE_1, POOL_PORT)
    reconcile(backend, (media, ["198.51.100.7"]))
    near = list(backend._netlink.elements(elements.NEAR))
    backend.commit([Admitted(media, "198.51.100.8")])
    assert list(backend._netlink.elements(elements.NEAR)) == near and len(near) == 1


def test_reconciling_says_when_the_table_is_gone(network: Network, backend: KernelBackend) -> None:
    network.router.run("nft", "delete table inet sipnat")
    with pytest.raises(CommitFailed):
        reconcile(backend, (binding(PHONE_1, POOL_PORT), []))


def test_flows_are_told_by_their_internal_endpoints(
    network: Network, backend: KernelBackend, peers: dict[str, Peer]
) -> None:
    backend.commit([opened(PHONE_1, 4000), opened(PHONE_2, POOL_PORT, kind=Kind.SIP)])
    backend.commit([opened(PHONE_1, 6000, port=6000)])
    assert backend.flowing().isdisjoint({Endpoint(PHONE_1, 4000), Endpoint(PHONE_2, 4000)})
    peers[REMOTE_1].send(b"in", EXTERNAL, 4000)
    peers[PHONE_1].expect(b"in")
    assert Endpoint(PHONE_1, 4000) in backend.flowing()
    peers[PHONE_2].send(b"out", REMOTE_1, 7000)
    peers[REMOTE_1].expect(b"out")
    assert backend.flowing() == {Endpoint(PHONE_1, 4000), Endpoint(PHONE_2, 4000)}


def test_a53_of_connections_those_count_that_were_made_to_a_phone(
    network: Network, backend: KernelBackend
) -> None:
    inner = Endpoint(PHONE_1, 7394)
    backend.commit([opened_tcp(7394, port=7394, kind=Kind.MEDIA)])
    with (
        listening(network.lan, inner),
        listening(network.wan, Endpoint(REMOTE_1, 7394)),
        connected(network.lan, Endpoint(PHONE_2, 4000), Endpoint(REMOTE_1, 7394)),
        connected(network.wan, Endpoint(REMOTE_1, 0), Endpoint(EXTERNAL, 7394)),
    ):
        assert backend.flowing() == {inner}
