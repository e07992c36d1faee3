"""What the kernel's side is said to be: counted and read on a real kernel, whole and broken."""

from __future__ import annotations

import pytest

from nat_table.binding import Kind, Permit
from nat_table.changes import Admitted, Change, Permitted
from rules.backend import KernelBackend
from rules.elements import OF_BINDINGS, OF_REMOTES
from rules.iptables import IptablesChain
from rules.netlink import Netlink
from tests.lab.network import PHONE_1, PHONE_2, REMOTE_1, Network
from tests.netns.kernel import POOL_PORT, SETTINGS, Peer, binding, opened

pytestmark = [pytest.mark.netns, pytest.mark.timeout(60)]


def test_every_set_has_as_many_elements_as_are_counted(
    network: Network, backend: KernelBackend, peers: dict[str, Peer]
) -> None:
    signalling = binding(PHONE_1, POOL_PORT, kind=Kind.SIP)
    requested = binding(PHONE_2, POOL_PORT + 1, port=4002, kind=Kind.ANY)
    changes: list[Change] = [
        opened(PHONE_1, POOL_PORT, kind=Kind.SIP),
        Admitted(signalling, REMOTE_1),
        opened(PHONE_2, POOL_PORT + 1, port=4002, kind=Kind.ANY),
        Permitted(requested, Permit("198.51.100.0/24", 5060)),
        Permitted(requested, Permit("198.51.100.0/24", 5062)),
        *(opened(PHONE_2, POOL_PORT + port, port=port) for port in range(5000, 5300)),
    ]
    network.router.call(lambda: backend.commit(changes))
    peers[PHONE_2].send(b"hello", REMOTE_1, 7000)
    seen = network.router.call(backend.inspect)
    netlink = network.router.call(lambda: Netlink(SETTINGS.table))
    names = (*OF_BINDINGS, *OF_REMOTES, "contacted", "strays")
    found = {name: len(list(netlink.elements(name))) for name in names}
    netlink.close()
    assert {name: seen.elements[name] for name in names} == found
    assert (found["media"], found["permitted"], found["admitted"]) == (300, 2, 1)


def test_what_is_missing_is_said(network: Network, backend: KernelBackend) -> None:
    seen = network.router.call(backend.inspect)
    assert (seen.has_rules, seen.has_capture, seen.queue) == (True, True, None)
    assert seen.conntrack and seen.conntrack.max_flows > seen.conntrack.flows >= 0
    assert seen.counters["flooded"] == 0

    if not seen.is_native_queue:
        chain = IptablesChain("mangle", "FORWARD", "NFQUEUE", SETTINGS.table, "iptables")
        network.router.call(chain.clear)
        seen = network.router.call(backend.inspect)
        assert (seen.has_rules, seen.has_capture) == (True, False)

    network.router.run("nft", "flush", "ruleset")
    seen = network.router.call(backend.inspect)
    assert (seen.has_rules, seen.has_capture) == (False, False)
    assert sum(seen.elements.values()) == 0 and seen.counters == {}
