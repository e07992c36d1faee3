"""Mappings on request in the kernel: whom a permit lets in, beside the policy of the mapping."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest

from nat_table.behavior import Filtering
from nat_table.binding import ANYONE, Binding, Kind, Permit
from nat_table.changes import Admitted, Change, Closed, Excluded, Forbidden, Permitted, Turned
from nat_table.endpoint import Endpoint, Transport
from rules.backend import CommitFailed, KernelBackend, Refusal
from tests.lab.network import EXTERNAL, PHONE_1, PHONE_2, REMOTE_1, REMOTE_2, SERVER, Network
from tests.netns.connections import (
    accepted,
    check_passes,
    check_silent,
    connected,
    listening,
    opened_tcp,
)
from tests.netns.kernel import POOL_PORT, SETTINGS, Peer, counted, install, opened
from tests.netns.kernel6 import capturing

pytestmark = pytest.mark.netns

CUT = 1.0  # with room for a machine under load
CLOSED_BOTH_WAYS = f"""
table ip admin {{
    chain forward {{
        type filter hook forward priority filter; policy drop;
        meta mark & {SETTINGS.open_mark:#x} != 0 accept
    }}
}}
"""
PORTS = {REMOTE_1: 7000, REMOTE_2: 7002}
NOBODY, BOTH = frozenset[str](), frozenset(PORTS)
CASES: list[tuple[Iterable[Permit], frozenset[str]]] = [
    ((), NOBODY),
    ((ANYONE,), BOTH),
    ((Permit(f"{REMOTE_1}/32"),), frozenset({REMOTE_1})),
    ((Permit("203.0.113.0/28", PORTS[REMOTE_2]),), frozenset({REMOTE_2})),
    ((Permit("", PORTS[REMOTE_2]),), frozenset({REMOTE_2})),
    ((Permit(f"{REMOTE_2}/32", 9), Permit("192.0.2.0/24")), NOBODY),
    ((Permit(f"{REMOTE_2}/32", 9), Permit(f"{REMOTE_2}/32"), Permit(REMOTE_1)), BOTH),
]
"""Permits, and the remotes that they let in."""

POLICIES: dict[str, tuple[Kind, dict[str, Any], frozenset[str]]] = {
    "asked-for": (Kind.ANY, {}, NOBODY),
    "media": (Kind.RTP, {}, BOTH),
    "strict media": (Kind.RTP, {"media_filter": Filtering.ADDRESS_DEPENDENT}, NOBODY),
    "latching media": (Kind.RTP, {"media_filter": Filtering.LATCH}, frozenset({REMOTE_1})),
    "signalling": (Kind.SIP, {}, NOBODY),
}
"""Kinds with a policy, and the remotes that it lets in, if they send in this order."""


def asked(port: int = 4000, *, kind: Kind = Kind.ANY, external: int = POOL_PORT) -> Binding:
    return opened(PHONE_1, external, port=port, kind=kind).binding


def listed(network: Network) -> str:
    """Returns what the kernel has in `permitted`."""
    return network.router.run("nft", "list", "set", "inet", "sipnat", "permitted")


def permitted(network: Network) -> set[str]:
    """Returns the elements of `permitted`, which the kernel lists in any order."""
    elements = listed(network).partition("elements = {")[2].partition("}")[0]
    return {" ".join(each.split()) for each in elements.split(",")}


def opening(binding: Binding, *permits: Permit) -> list[Change]:
    first = opened(
        binding.internal.address, binding.external.port, port=binding.internal.port
    ).pinhole
    change = replace(opened(PHONE_1, POOL_PORT), binding=binding, pinhole=first)
    return [change, *(Permitted(binding, permit) for permit in permits)]


@pytest.mark.parametrize("policy", POLICIES)
def test_a_remote_comes_in_by_the_policy_or_by_a_permit(
    network: Network, peers: dict[str, Peer], policy: str
) -> None:
    kind, keys, by_policy = POLICIES[policy]
    backend = install(network, replace(SETTINGS, **keys))
    for number, (permits, by_permit) in enumerate(CASES):
        port = 6000 + number
        backend.commit(opening(asked(port, kind=kind, external=port), *permits))
        with closing(network.lan.udp_socket(PHONE_1, port)) as udp:
            phone = Peer(udp)
            for remote in PORTS:
                peers[remote].send(b"in", EXTERNAL, port)
                if remote in by_policy | by_permit:
                    assert phone.expect(b"in") == (remote, PORTS[remote])
                    phone.send(b"back", remote, PORTS[remote])
                    assert peers[remote].expect(b"back") == (EXTERNAL, port)
                else:
                    phone.expect_nothing()
                    refusal = Refusal(remote, Transport.UDP, Endpoint(PHONE_1, port))
                    assert refusal in backend.refused()


def test_whom_the_host_has_sent_to_may_answer_from_any_port_and_nobody_else(
    network: Network, backend: KernelBackend, peers: dict[str, Peer]
) -> None:
    binding = asked()
    backend.commit([*opening(binding), Admitted(binding, SERVER)])
    peers[PHONE_1].send(b"out", REMOTE_1, PORTS[REMOTE_1])
    assert peers[REMOTE_1].expect(b"out") == (EXTERNAL, POOL_PORT)
    with closing(network.wan.udp_socket(REMOTE_1, 9000)) as udp:
        Peer(udp).send(b"from another port", EXTERNAL, POOL_PORT)
        peers[PHONE_1].expect(b"from another port")
    peers[SERVER].send(b"named by the client", EXTERNAL, POOL_PORT)
    peers[PHONE_1].expect(b"named by the client")
    peers[REMOTE_2].send(b"stranger", EXTERNAL, POOL_PORT)
    peers[PHONE_1].expect_nothing()
    assert counted(backend) == {"refused_requested": 1}
    backend.commit([Excluded(binding, SERVER)])
    with closing(network.wan.udp_socket(SERVER, 5061)) as udp:
        Peer(udp).send(b"named no longer", EXTERNAL, POOL_PORT)
        peers[PHONE_1].expect_nothing()


def test_a_firewall_lets_in_what_is_permitted_and_keeps_in_what_it_always_kept_in(
    network: Network, backend: KernelBackend, peers: dict[str, Peer]
) -> None:
    """Anybody may ask for a mapping, and must not get round the administrator's rules by one."""
    network.router.run("nft", "-f", "-", text=CLOSED_BOTH_WAYS)
    backend.commit([*opening(asked(), ANYONE), opened(PHONE_2, 4002)])
    peers[REMOTE_1].send(b"in", EXTERNAL, POOL_PORT)
    peers[PHONE_1].expect(b"in")
    peers[PHONE_1].send(b"answer", REMOTE_1, PORTS[REMOTE_1])
    assert peers[REMOTE_1].expect(b"answer") == (EXTERNAL, POOL_PORT)
    peers[PHONE_1].send(b"out", REMOTE_2, PORTS[REMOTE_2])
    peers[REMOTE_2].expect_nothing()
    peers[PHONE_2].send(b"media", REMOTE_2, PORTS[REMOTE_2])
    peers[REMOTE_2].expect(b"media")


def test_a_permit_within_another_lives_on_after_it(
    backend: KernelBackend, peers: dict[str, Peer]
) -> None:
    binding, around, within = asked(), Permit("203.0.113.0/28"), Permit(f"{REMOTE_1}/32")
    backend.commit(opening(binding, around))
    backend.commit([Permitted(binding, within)])
    peers[REMOTE_2].send(b"by the network", EXTERNAL, POOL_PORT)
    peers[PHONE_1].expect(b"by the network")
    backend.commit([Forbidden(binding, around)])
    time.sleep(CUT)
    peers[REMOTE_2].send(b"no longer", EXTERNAL, POOL_PORT)
    peers[PHONE_1].expect_nothing()
    peers[REMOTE_1].send(b"by its address", EXTERNAL, POOL_PORT)
    peers[PHONE_1].expect(b"by its address")


def test_permits_that_cross_each_other_are_taken_in_any_order_and_at_once(
    network: Network, backend: KernelBackend
) -> None:
    """What one host asks for must not keep the rules of all from being restored."""
    crossing = [Permit("203.0.113.0/28", PORTS[REMOTE_1]), Permit("203.0.113.0/29")]
    for external, order in ((4000, crossing), (4001, crossing[::-1])):
        binding = asked(external, external=external)
        backend.commit(opening(binding))
        for permit in order:
            backend.commit([Permitted(binding, permit)])
        for _ in range(4):
            for _ in backend.reconcile([]):
                pass
            for _ in backend.reconcile([(binding, order)]):
                pass
        assert f"{external} . 203.0.113.0/28" in listed(network)


def test_hairpin_needs_no_permit(backend: KernelBackend, peers: dict[str, Peer]) -> None:
    backend.commit([*opening(asked()), opened(PHONE_2, 4002)])
    peers[PHONE_2].send(b"there", EXTERNAL, POOL_PORT)
    assert peers[PHONE_1].expect(b"there") == (EXTERNAL, 4002)
    peers[PHONE_1].send(b"back", EXTERNAL, 4002)
    assert peers[PHONE_2].expect(b"back") == (EXTERNAL, POOL_PORT)


@pytest.mark.parametrize("is_permitted", [True, False])
def test_connections_to_a_mapping_are_translated_in_the_kernel_and_not_relayed(
    network: Network, diverting: KernelBackend, relay: socket.socket, is_permitted: bool
) -> None:
    binding = opened_tcp(POOL_PORT, port=8080, kind=Kind.ANY).binding
    diverting.commit(opening(binding, *[Permit(f"{REMOTE_1}/32")][:is_permitted]))
    with (
        listening(network.wan, Endpoint(SERVER, 8080)) as server,
        connected(network.lan, binding.internal, Endpoint(SERVER, 8080)) as out,
        accepted(server, Endpoint(SERVER, 8080), binding.external) as called,
    ):
        check_passes(out, called)
    with listening(network.lan, binding.internal) as host:
        callers = [Endpoint(SERVER, 50001), *[Endpoint(REMOTE_1, 50000)][:is_permitted]]
        for caller in callers:
            with (
                connected(network.wan, caller, binding.external) as calling,
                accepted(host, binding.internal, caller) as called,
            ):
                check_passes(calling, called)
        check_silent(network.wan, Endpoint(REMOTE_2, 50000), binding.external)
    assert "diverted" not in counted(diverting)


@pytest.mark.parametrize("permit", [ANYONE, Permit(f"{REMOTE_1}/32", 50000)])
def test_A86_connection_for_SIP_comes_to_the_relay_by_a_permit(
    network: Network, diverting: KernelBackend, relay: socket.socket, permit: Permit
) -> None:
    binding = opened_tcp(POOL_PORT).binding
    caller, other = Endpoint(REMOTE_1, 50000), Endpoint(REMOTE_1, 50001)
    diverting.commit(opening(binding, permit))
    with (
        connected(network.wan, caller, binding.external) as calling,
        accepted(relay, binding.external, caller) as far,
    ):
        check_passes(calling, far)
    if permit is not ANYONE:
        check_silent(network.wan, other, binding.external)
    diverting.commit([Forbidden(binding, permit)])
    check_silent(network.wan, caller, binding.external)


def test_who_is_permitted_no_longer_is_cut_and_who_has_another_right_goes_on(
    backend: KernelBackend, peers: dict[str, Peer]
) -> None:
    """RFC 6887 §13.3: what no filter matches is dropped, packets of standing flows too."""
    binding, only = asked(), Permit(f"{REMOTE_2}/32")
    backend.commit(opening(binding, ANYONE))
    peers[PHONE_1].send(b"out", SERVER, 5060)
    peers[SERVER].expect(b"out")
    for remote in PORTS:
        peers[remote].send(b"in", EXTERNAL, POOL_PORT)
        peers[PHONE_1].expect(b"in")
        peers[PHONE_1].send(b"answer", remote, PORTS[remote])
        peers[remote].expect(b"answer")
    backend.commit([Forbidden(binding, ANYONE), Permitted(binding, only)])
    time.sleep(CUT)
    peers[REMOTE_1].send(b"cut", EXTERNAL, POOL_PORT)
    peers[PHONE_1].expect_nothing()
    for remote in (REMOTE_2, SERVER):
        peers[remote].send(b"goes on", EXTERNAL, POOL_PORT)
        peers[PHONE_1].expect(b"goes on")


def test_what_turns_into_signalling_is_captured_and_its_flows_are_not_cut(
    network: Network, backend: KernelBackend, peers: dict[str, Peer]
) -> None:
    binding, permit = asked(), Permit(f"{REMOTE_1}/32")
    sip = replace(binding, kind=Kind.SIP)
    flows = ("conntrack", "-L", "-p", "udp", "-o", "id", "--orig-dst", EXTERNAL)
    with capturing(network, SETTINGS) as captured:
        backend.commit(opening(binding, permit))
        peers[REMOTE_1].send(b"in", EXTERNAL, POOL_PORT)
        peers[PHONE_1].expect(b"in")
        peers[PHONE_1].send(b"back", REMOTE_1, PORTS[REMOTE_1])
        peers[REMOTE_1].expect(b"back")
        before = network.router.run(*flows).rpartition("id=")[2]
        backend.commit([Forbidden(binding, permit), Turned(sip, binding), Permitted(sip, permit)])
        time.sleep(CUT)
        assert network.router.run(*flows).rpartition("id=")[2] == before
        assert backend.listing() == [sip]
        peers[REMOTE_1].send(b"INVITE", EXTERNAL, POOL_PORT)
        peers[PHONE_1].send(b"REGISTER", REMOTE_1, PORTS[REMOTE_1])
    assert captured == [b"INVITE", b"REGISTER"]
    assert peers[PHONE_1].expect(b"INVITE") == (REMOTE_1, PORTS[REMOTE_1])
    assert peers[REMOTE_1].expect(b"REGISTER") == (EXTERNAL, POOL_PORT)


@pytest.fixture
def several(backend: KernelBackend) -> Iterator[list[tuple[Binding, list[str | Permit]]]]:
    """Yields what stands: bindings with what each names."""
    standing: list[tuple[Binding, list[str | Permit]]] = [
        (asked(), [Permit(f"{REMOTE_1}/32"), Permit("203.0.113.0/28", 9)]),
        (asked(4001, external=4001), [ANYONE]),
        (asked(4002, kind=Kind.SIP, external=4002), [ANYONE, REMOTE_2]),
        (opened_tcp(4003, port=4003, kind=Kind.ANY).binding, [SERVER]),
    ]
    for binding, names in standing:
        backend.commit(opening(binding))
        backend.commit(
            [
                Admitted(binding, name) if isinstance(name, str) else Permitted(binding, name)
                for name in names
            ]
        )
    yield standing


@pytest.mark.parametrize("how", ["flushed", "restarted"])
def test_A75_A33_permits_come_back(
    network: Network,
    backend: KernelBackend,
    peers: dict[str, Peer],
    several: list[tuple[Binding, list[str | Permit]]],
    how: str,
) -> None:
    before = permitted(network)
    if how == "flushed":
        network.router.run("nft", "flush", "ruleset")
        network.router.call(backend.install)
        assert backend.listing() == []
    else:
        backend = install(network)
        assert set(backend.listing()) == {binding for binding, _ in several}
    for _ in backend.reconcile(several):
        pass
    assert permitted(network) == before
    peers[REMOTE_1].send(b"in", EXTERNAL, POOL_PORT)
    peers[PHONE_1].expect(b"in")
    peers[REMOTE_2].send(b"in", EXTERNAL, POOL_PORT)
    peers[PHONE_1].expect_nothing()
    (binding, (first, _)), *_ = several
    assert isinstance(first, Permit)
    backend.commit([Forbidden(binding, first)])
    time.sleep(CUT)
    peers[REMOTE_1].send(b"no longer", EXTERNAL, POOL_PORT)
    peers[PHONE_1].expect_nothing()
    for _ in backend.reconcile([]):
        pass
    assert backend.listing() == []
    assert "elements" not in listed(network)


def test_refused_commit_leaves_the_permits_as_they_were(
    backend: KernelBackend, peers: dict[str, Peer]
) -> None:
    binding, permit = asked(), Permit(f"{REMOTE_1}/32")
    backend.commit([*opening(binding, permit), opened(PHONE_2, 4002)])
    clash = opened("10.0.0.22", 4002)
    with pytest.raises(CommitFailed):
        backend.commit([Forbidden(binding, permit), Permitted(binding, ANYONE), clash])
    for remote in PORTS:
        peers[remote].send(b"in", EXTERNAL, POOL_PORT)
    peers[PHONE_1].expect(b"in")
    peers[PHONE_1].expect_nothing()
    backend.commit([Forbidden(binding, permit), Closed(binding, (clash.pinhole,))])
    assert binding not in backend.listing()
