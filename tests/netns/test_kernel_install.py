"""The rules come, stay and go on a real kernel, and what others keep there is left alone."""

from __future__ import annotations

import errno
import os
import re
import sys
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import pytest

from nat_table.binding import Kind
from nat_table.changes import Opened
from rules.backend import InstallFailed, KernelBackend
from rules.settings import Settings
from tests.lab.network import (
    EXTERNAL,
    EXTERNAL_INTERFACE,
    INTERNAL_INTERFACE,
    PHONE_1,
    PHONE_2,
    REMOTE_1,
    SERVER,
    Network,
)
from tests.netns import connections
from tests.netns.kernel import POOL_PORT, SETTINGS, Peer, conntrack, install, opened
from tests.netns.kernel6 import (
    LOCAL_1,
    NAT66,
    NPTV6,
    ROUTED,
    ROUTED_1,
    mapped,
    routed,
    translated,
)

pytestmark = pytest.mark.netns

MODES: dict[str, tuple[Settings, list[Opened]]] = {
    "off": (connections.SETTINGS, []),
    **{
        settings.mode6.value: (replace(settings, relay_port=connections.RELAY.port), [change])
        for settings, change in (
            (ROUTED, routed(ROUTED_1)),
            (NAT66, mapped(LOCAL_1, kind=Kind.SIP)),
            (NPTV6, translated(LOCAL_1)),
        )
    },
}


def test_A75_reinstall_keeps_mappings_and_flows(
    network: Network, backend: KernelBackend, peers: dict[str, Peer]
) -> None:
    backend.commit([opened(PHONE_1, 4000), opened(PHONE_2, POOL_PORT, kind=Kind.SIP)])
    before, ruleset = backend.listing(), network.ruleset()
    peers[PHONE_1].send(b"out", REMOTE_1, 7000)
    peers[REMOTE_1].expect(b"out")
    again = network.router.call(lambda: KernelBackend(SETTINGS))
    for _ in range(3):
        network.router.call(again.install)
        peers[REMOTE_1].send(b"back", EXTERNAL, 4000)
        peers[PHONE_1].expect(b"back")
    assert again.listing() == before
    assert {b.kind for b in before} == {Kind.RTP, Kind.SIP}
    assert lasting(network.ruleset()) == lasting(ruleset)


@pytest.mark.parametrize(("before", "after"), list(permutations(MODES, 2)))
def test_a75_another_mode_of_ipv6_starts_without_the_mappings_of_the_one_before(
    network: Network, before: str, after: str
) -> None:
    kept = opened(PHONE_1, 4000)
    settings, change = MODES[before]
    install(network, settings).commit([kept, *change])
    backend = install(network, MODES[after][0])
    assert [each for each in backend.listing() if ":" not in each.internal.address] == [
        replace(kept.binding, created_at=0.0)
    ]
    for _ in backend.reconcile([(kept.binding, ())]):
        pass
    assert len(backend.listing()) == 1


def lasting(ruleset: str) -> str:
    """Leaves out what the packets themselves have put in."""
    return re.sub(r"\t+elements = {[^}]*expires[^}]*}\n", "", ruleset)


def test_A75_table_of_another_version_is_replaced_with_its_mappings(
    network: Network, backend: KernelBackend
) -> None:
    backend.commit([opened(PHONE_1, 4000)])
    network.router.run("nft", "flush table inet sipnat; delete set inet sipnat strays;")
    network.router.run("nft", "add set inet sipnat strays { type ipv4_addr; }")
    network.router.call(backend.install)
    assert [b.external.port for b in backend.listing()] == [4000]
    assert "ipv4_addr . inet_service" in network.router.run(
        "nft", "list", "set", "inet", "sipnat", "strays"
    )


def test_half_a_mapping_is_made_whole_or_swept(network: Network, backend: KernelBackend) -> None:
    backend.commit([opened(PHONE_1, 4000), opened(PHONE_2, POOL_PORT)])
    network.router.run("nft", f"delete element inet sipnat outbound {{ udp . {PHONE_1} . 4000 }}")
    network.router.run(
        "nft", f"delete element inet sipnat inbound {{ udp . {EXTERNAL} . {POOL_PORT} }}"
    )
    again = install(network)
    standing = again.listing()
    assert [b.external.port for b in standing] == [4000]
    for _ in again.reconcile([(each, ()) for each in standing]):
        pass
    outbound = network.router.run("nft", "list", "map", "inet", "sipnat", "outbound")
    assert f"{PHONE_1} . 4000 : {EXTERNAL} . 4000" in outbound and PHONE_2 not in outbound
    bound = network.router.run("nft", "list", "set", "inet", "sipnat", "bound")
    assert "udp . 4000" in bound and f"{POOL_PORT}" not in bound


def test_old_sip_flows_are_cut_at_start_but_mapped_ones_stay(
    network: Network, backend: KernelBackend, peers: dict[str, Peer]
) -> None:
    backend.commit([opened(PHONE_1, POOL_PORT, kind=Kind.SIP)])
    for phone in (PHONE_1, PHONE_2):
        peers[phone].send(b"REGISTER", SERVER, 5060)
        peers[SERVER].expect(b"REGISTER")
    network.router.call(backend.install)
    entries = conntrack(network)
    assert f"src={PHONE_1}" in entries and f"src={PHONE_2}" not in entries


def test_A75_admin_may_accept_by_the_mark(
    network: Network, backend: KernelBackend, peers: dict[str, Peer]
) -> None:
    network.router.run(
        "nft",
        "table inet admin { chain forward { type filter hook forward priority filter; policy drop;"
        f' iifname "{EXTERNAL_INTERFACE}" meta mark & {SETTINGS.open_mark:#x} != 0 accept; }}; }}',
    )
    backend.commit([opened(PHONE_1, 4000), opened(PHONE_2, POOL_PORT)])
    for phone, external in ((PHONE_1, 4000), (PHONE_2, POOL_PORT)):
        peers[REMOTE_1].send(b"in", EXTERNAL, external)
        peers[phone].expect(b"in")


def test_uninstall_leaves_nothing(network: Network, peers: dict[str, Peer]) -> None:
    sysctl = "net.ipv4.ip_local_reserved_ports"
    network.router.set_sysctl(sysctl, "8080,17000")

    def state() -> tuple[str, ...]:
        run = network.router.run
        return run("nft", "list", "ruleset"), run("iptables-save"), run("sysctl", sysctl)

    before = state()
    backend = install(network)
    network.router.call(backend.install)
    assert "8080,16384-24575" in state()[2]
    backend.commit([opened(PHONE_1, POOL_PORT)])
    peers[PHONE_1].send(b"out", REMOTE_1, 7000)
    assert peers[REMOTE_1].expect(b"out") == (EXTERNAL, POOL_PORT)
    network.router.call(backend.uninstall)
    assert state() == before
    peers[PHONE_1].send(b"out", REMOTE_1, 7000)
    assert peers[REMOTE_1].expect(b"out") == (EXTERNAL, 4000)


def test_where_sysctls_are_read_only_ports_reserved_before_are_enough(
    network: Network, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(path: Path, text: str) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    network.router.set_sysctl("net.ipv4.ip_local_reserved_ports", "16384-24575")
    before = network.ruleset()
    monkeypatch.setattr(Path, "write_text", refuse)
    backend = install(network)
    network.router.call(backend.uninstall)
    assert "ports of the pool" not in caplog.text
    assert network.ruleset() == before


def test_admins_mangle_rules_stay(network: Network) -> None:
    rule = ("-t", "mangle", "-A", "FORWARD", "-p", "udp", "-j", "ACCEPT")
    network.router.run("iptables", *rule)
    before = network.ruleset()
    backend = install(network)
    network.router.call(backend.uninstall)
    assert network.ruleset() == before


def test_failed_install_leaves_nothing(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    before = network.ruleset()
    bad = Settings((INTERNAL_INTERFACE,), EXTERNAL_INTERFACE, (EXTERNAL,), queue_number=1 << 20)
    backend = network.router.call(lambda: KernelBackend(bad))
    with pytest.raises(InstallFailed, match="refused"):
        network.router.call(backend.install)
    assert network.ruleset() == before


def test_install_without_privileges_says_so(network: Network) -> None:
    code = (
        "import os; os.setresuid(65534, 65534, 65534)\n"
        "from rules.backend import *; from rules.settings import Settings\n"
        "try: KernelBackend(Settings(('a',), 'b', ('192.0.2.1',))).install()\n"
        "except InstallFailed as failure: print(failure)\n"
    )
    said = network.router.run(sys.executable, "-c", code)
    assert said == "the kernel refused: sipnat needs CAP_NET_ADMIN (run it as root)\n"
