"""Floods, routed networks, several addresses, and marks for the firewalls of others."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from nat_table.binding import Binding, Kind
from nat_table.changes import Closed, Opened
from nat_table.endpoint import Endpoint
from rules.backend import InstallFailed, KernelBackend
from tests.lab.network import (
    EXTERNAL,
    EXTERNAL_INTERFACE,
    MASQUERADE,
    PHONE_1,
    PHONE_2,
    REMOTE_1,
    REMOTE_2,
    SERVER,
    Network,
)
from tests.netns.kernel import (
    PINHOLE,
    POOL_PORT,
    SETTINGS,
    Peer,
    binding,
    closed,
    counted,
    install,
    opened,
)

pytestmark = pytest.mark.netns

SECOND = "203.0.113.2"
RATE = 50


def test_A84_flood_from_one_source_leaves_the_others_alone(
    network: Network, peers: dict[str, Peer]
) -> None:
    backend = install(network, replace(SETTINGS, flood_rate=RATE, servers=(SERVER,)))
    backend.commit([opened(PHONE_1, 5060, kind=Kind.SIP)])
    for remote, port in ((REMOTE_1, 7000), (REMOTE_2, 7002)):
        peers[PHONE_1].send(b"hello", remote, port)
        peers[remote].expect(b"hello")
    for remote in (REMOTE_1, SERVER):
        for _ in range(10 * RATE):
            peers[remote].send(remote.encode(), EXTERNAL, 5060)
    peers[REMOTE_2].send(b"not me", EXTERNAL, 5060)
    received = [peers[PHONE_1].udp.recv(64)]
    while received[-1] != b"not me":
        received.append(peers[PHONE_1].udp.recv(64))
    passed = received.count(REMOTE_1.encode())
    assert RATE <= passed < 9 * RATE
    assert received.count(SERVER.encode()) == 10 * RATE
    assert counted(backend) == {"flooded": 10 * RATE - passed}


def test_A92_routed_network_is_left_alone(network: Network, peers: dict[str, Peer]) -> None:
    """The administrator's masquerade leaves it out too: that is how it is reached without NAT."""
    spared = MASQUERADE.replace(
        "masquerade\n", f"ip daddr {REMOTE_1} accept\noifname {EXTERNAL_INTERFACE} masquerade\n"
    )
    network.router.run("nft", "-f", "-", text=f"delete table ip home_router\n{spared}")
    network.wan.run("ip", "route", "add", "10.0.0.0/24", "via", EXTERNAL)
    settings = replace(SETTINGS, routed=(REMOTE_1,), is_fail_open=False)
    backend = install(network, settings)
    backend.commit([opened(PHONE_1, POOL_PORT, kind=Kind.SIP)])
    peers[PHONE_1].send(b"private", REMOTE_1, 7000)
    assert peers[REMOTE_1].expect(b"private") == (PHONE_1, 4000)
    peers[REMOTE_1].send(b"private too", PHONE_1, 4000)
    assert peers[PHONE_1].expect(b"private too") == (REMOTE_1, 7000)
    peers[PHONE_1].send(b"held in the queue", REMOTE_2, 7002)
    peers[REMOTE_2].expect_nothing()


def at(address: str, internal: str, port: int, kind: Kind = Kind.RTP) -> Opened:
    external = Endpoint(address, port)
    return Opened(replace(binding(internal, port, kind=kind), external=external), PINHOLE)


@pytest.fixture
def two_addresses(network: Network) -> Iterator[KernelBackend]:
    """Yields a backend with two external addresses on the one interface."""
    network.router.run("ip", "address", "add", f"{SECOND}/24", "dev", EXTERNAL_INTERFACE)
    yield install(network, replace(SETTINGS, external_addresses=(EXTERNAL, SECOND)))


def test_A93_one_port_on_two_addresses(
    two_addresses: KernelBackend, peers: dict[str, Peer]
) -> None:
    first, second = at(EXTERNAL, PHONE_1, POOL_PORT), at(SECOND, PHONE_2, POOL_PORT)
    two_addresses.commit([first, second])
    for phone, external in ((PHONE_1, EXTERNAL), (PHONE_2, SECOND)):
        peers[REMOTE_1].send(b"in", external, POOL_PORT)
        peers[phone].expect(b"in")
        peers[phone].send(b"out", REMOTE_2, 7002)
        assert peers[REMOTE_2].expect(b"out") == (external, POOL_PORT)
    assert {each.external.address for each in two_addresses.listing()} == {EXTERNAL, SECOND}
    two_addresses.commit([closed(second)])
    bound = {element.key for element in two_addresses._netlink.elements("bound")}
    assert len(bound) == 1, "the fence of the first address stays"


@pytest.mark.parametrize("port", [4000, POOL_PORT])
def test_A93_early_packet_to_the_second_address_does_not_kill_the_flow(
    two_addresses: KernelBackend, peers: dict[str, Peer], port: int
) -> None:
    peers[REMOTE_1].send(b"too early", SECOND, port)
    two_addresses.commit([at(SECOND, PHONE_1, port)])
    peers[PHONE_1].send(b"out", REMOTE_1, 7000)
    assert peers[REMOTE_1].expect(b"out") == (SECOND, port)


@pytest.mark.parametrize("kind", [Kind.SIP, Kind.RTP])
def test_A75_first_packet_to_the_outside_has_the_mark(
    network: Network, backend: KernelBackend, peers: dict[str, Peer], kind: Kind
) -> None:
    network.router.run(
        "nft",
        "table inet admin { chain forward { type filter hook forward priority filter; policy drop;"
        f" meta mark & {SETTINGS.open_mark:#x} != 0 accept; }}; }}",
    )
    backend.commit([opened(PHONE_1, POOL_PORT, kind=kind)])
    peers[PHONE_1].send(b"out", REMOTE_1, 7000)
    peers[REMOTE_1].expect(b"out")
    peers[REMOTE_1].send(b"back", EXTERNAL, POOL_PORT)
    peers[PHONE_1].expect(b"back")
    peers[PHONE_2].send(b"unmapped", REMOTE_1, 7000)
    peers[REMOTE_1].expect_nothing()


@pytest.mark.parametrize("is_moved_first", [True, False])
def test_A93_address_changes_under_live_mappings(
    network: Network, backend: KernelBackend, peers: dict[str, Peer], is_moved_first: bool
) -> None:
    old, new = at(EXTERNAL, PHONE_1, POOL_PORT), at(SECOND, PHONE_1, POOL_PORT)
    backend.commit([old])
    peers[PHONE_1].send(b"before", REMOTE_1, 7000)
    assert peers[REMOTE_1].expect(b"before").address == EXTERNAL
    network.router.run("ip", "address", "add", f"{SECOND}/24", "dev", EXTERNAL_INTERFACE)

    def move() -> None:
        backend.commit([Closed(old.binding, (PINHOLE,)), new])

    if is_moved_first:
        move()
    settings = replace(SETTINGS, external_addresses=(SECOND,))
    network.router.call(lambda: backend.reconfigure(settings))
    if not is_moved_first:
        assert backend.listing() == [old.binding]
        move()
    assert backend.listing() == [new.binding]
    time.sleep(0.3)
    peers[PHONE_1].send(b"after", REMOTE_1, 7000)
    assert peers[REMOTE_1].expect(b"after") == (SECOND, POOL_PORT)
    peers[REMOTE_2].send(b"in", SECOND, POOL_PORT)
    peers[PHONE_1].expect(b"in")
    assert [e.key[4:6] for e in backend._netlink.elements("bound")] == [b"\x4e\x20"]


def test_A93_ten_thousand_mappings_move_in_one_commit(
    network: Network, backend: KernelBackend
) -> None:
    def many(address: str) -> list[Binding]:
        return [
            replace(
                binding(f"10.0.{n >> 8}.{n & 255}", 0),
                external=Endpoint(address, 10_000 + n),
            )
            for n in range(10_000)
        ]

    old, new = many(EXTERNAL), many(SECOND)
    backend.commit([Opened(each, PINHOLE) for each in old])
    settings = replace(SETTINGS, external_addresses=(SECOND,))
    network.router.call(lambda: backend.reconfigure(settings))
    moved = [Closed(each, (PINHOLE,)) for each in old]
    backend.commit([*moved, *(Opened(each, PINHOLE) for each in new)])
    assert {each.external.address for each in backend.listing()} == {SECOND}
    assert len(backend.listing()) == 10_000


def test_refused_reconfiguration_leaves_the_old_settings(
    network: Network, backend: KernelBackend, peers: dict[str, Peer]
) -> None:
    backend.commit([opened(PHONE_1, POOL_PORT)])
    bad = replace(SETTINGS, queue_number=1 << 20)
    with pytest.raises(InstallFailed, match="refused"):
        network.router.call(lambda: backend.reconfigure(bad))
    network.router.call(backend.install)
    peers[REMOTE_1].send(b"in", EXTERNAL, POOL_PORT)
    peers[PHONE_1].expect(b"in")
