"""Calls pass firewalls that drop what they forward, by the one rule that sipnat puts there."""

from __future__ import annotations

import fcntl
import re
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from nat_table.changes import Admitted
from nat_table.endpoint import Endpoint
from rules.accept import Acceptance
from rules.backend import KernelBackend
from rules.settings import Settings
from tests.lab.network import (
    EXTERNAL,
    EXTERNAL_INTERFACE,
    INTERNAL_INTERFACE,
    PHONE_1,
    PHONE_2,
    REMOTE_1,
    REMOTE_2,
    SERVER,
    Network,
)
from tests.netns.connections import (
    RELAY,
    accepted,
    check_passes,
    check_silent,
    connected,
    listening,
    opened_tcp,
    tcp_socket,
)
from tests.netns.connections import SETTINGS as RELAYING
from tests.netns.firewalls import DOCKER, FIREWALLD, FW4, filter_rules, fw4
from tests.netns.kernel import POOL_PORT, SETTINGS, Peer, install, opened

pytestmark = pytest.mark.netns

OTHER_MASK = Settings((INTERNAL_INTERFACE,), EXTERNAL_INTERFACE, (EXTERNAL,), mark_mask=0x70)


@pytest.fixture
def acceptance(network: Network, backend: KernelBackend) -> Acceptance:
    """Returns the acceptance on a router where phone 1 has a mapping and phone 2 has none."""
    backend.commit([opened(PHONE_1, 4000)])
    return Acceptance(SETTINGS)


def check_dropped(peers: dict[str, Peer]) -> None:
    peers[REMOTE_1].send(b"in", EXTERNAL, 4000)
    peers[PHONE_1].expect_nothing()


def check_only_the_mapping_passes(peers: dict[str, Peer], remote: str) -> None:
    """Begins a flow from a remote, goes on with it, and tries one without a mapping."""
    for _ in range(2):
        peers[remote].send(b"in", EXTERNAL, 4000)
        source = peers[PHONE_1].expect(b"in")
        peers[PHONE_1].send(b"back", *source)
        assert peers[remote].expect(b"back") == (EXTERNAL, 4000)
    peers[PHONE_2].send(b"unmapped", *source)
    peers[remote].expect_nothing()


def test_A75_calls_pass_a_router_with_docker(
    network: Network, acceptance: Acceptance, peers: dict[str, Peer]
) -> None:
    network.router.run("iptables-restore", text=DOCKER)
    before = filter_rules(network)
    check_dropped(peers)
    call = network.router.call
    assert call(acceptance.install) == ["Docker"]
    assert call(acceptance.install) == []
    check_only_the_mapping_passes(peers, REMOTE_1)
    call(acceptance.remove)
    assert filter_rules(network) == before
    check_dropped(peers)


def test_rule_of_a_crashed_run_with_another_mask_is_replaced_and_removed(
    network: Network, acceptance: Acceptance, peers: dict[str, Peer]
) -> None:
    call = network.router.call
    network.router.run("iptables-restore", text=DOCKER)
    network.router.run("nft", "-f", "-", text=FW4)
    before, ruleset = filter_rules(network), fw4(network)
    assert call(Acceptance(OTHER_MASK).install) == ["Docker", "OpenWrt fw4"]
    assert call(acceptance.install) == ["Docker", "OpenWrt fw4"]
    assert filter_rules(network).count("sipnat") == fw4(network).count("sipnat") == 1
    check_only_the_mapping_passes(peers, REMOTE_1)
    call(Acceptance(OTHER_MASK).remove)
    assert (filter_rules(network), fw4(network)) == (before, ruleset)


def test_A75_calls_pass_fw4_also_after_its_reload(
    network: Network, acceptance: Acceptance, peers: dict[str, Peer]
) -> None:
    network.router.run("nft", "-f", "-", text=FW4)
    before = fw4(network)
    check_dropped(peers)
    call = network.router.call
    assert call(acceptance.install) == ["OpenWrt fw4"]
    assert call(acceptance.install) == []
    check_only_the_mapping_passes(peers, REMOTE_1)
    network.router.run("nft", "-f", "-", text=f"delete table inet fw4\n{FW4}")
    assert call(acceptance.install) == ["OpenWrt fw4"]
    check_only_the_mapping_passes(peers, REMOTE_2)
    call(acceptance.remove)
    assert fw4(network) == before


def test_a93_each_uplink_has_a_rule_and_removes_only_its_own(network: Network) -> None:
    network.router.run("iptables-restore", text=DOCKER)
    network.router.run("nft", "-f", "-", text=FW4)
    before, ruleset = filter_rules(network), fw4(network)
    call = network.router.call
    first = Acceptance(SETTINGS)
    second = Acceptance(replace(SETTINGS, uplink=1, mark_mask=0))
    for _ in range(2):
        call(first.install)
        call(second.install)
    for text in (filter_rules(network), fw4(network)):
        assert len(re.findall(r"\bsipnat\b", text)) == len(re.findall(r"\bsipnat1\b", text)) == 1
    call(first.remove)
    assert "sipnat1" in filter_rules(network) and "sipnat1" in fw4(network)
    call(second.remove)
    assert (filter_rules(network), fw4(network)) == (before, ruleset)


def check_relay_is_reached(network: Network, relay: socket.socket, phone_port: int) -> None:
    """Connects both ways to what listens in the relay's place, and to a port of the router."""
    server, caller = Endpoint(SERVER, 5060), Endpoint(SERVER, phone_port)
    phone, contact = Endpoint(PHONE_1, phone_port), Endpoint(EXTERNAL, POOL_PORT)
    for namespace, source, target in ((network.lan, phone, server), (network.wan, caller, contact)):
        with (
            connected(namespace, source, target) as calling,
            accepted(relay, target, source) as called,
        ):
            check_passes(calling, called)


@pytest.mark.parametrize(
    ("text", "table", "names"),
    [
        (FW4, "fw4", ["OpenWrt fw4", "OpenWrt fw4 (input)"]),
        (FIREWALLD, "firewalld", ["firewalld", "firewalld (input)"]),
    ],
    ids=["fw4", "firewalld"],
)
def test_A69_relay_is_reached_by_a_rule_in(
    network: Network, text: str, table: str, names: list[str]
) -> None:
    backend = install(network, RELAYING)
    backend.commit([mapping := opened_tcp(POOL_PORT), Admitted(mapping.binding, SERVER)])
    network.router.run("nft", "-f", "-", text=text)
    before, call = fw4(network, table), network.router.call
    acceptance = Acceptance(RELAYING)
    with listening(network.router, RELAY, is_transparent=True) as relay:
        with pytest.raises(OSError), tcp_socket(network.lan, Endpoint(PHONE_1, 40000)) as calling:
            calling.connect((SERVER, 5060))
        assert call(acceptance.install) == names
        assert call(acceptance.install) == []
        check_relay_is_reached(network, relay, 40001)
    call(acceptance.remove)
    assert fw4(network, table) == before


def test_A69_relay_is_reached_on_a_router_with_real_ufw(
    network: Network, ufw: Callable[..., str]
) -> None:
    backend = install(network, RELAYING)
    backend.commit([mapping := opened_tcp(POOL_PORT), Admitted(mapping.binding, SERVER)])
    ufw("--force", "enable")
    before, call = filter_rules(network), network.router.call
    acceptance = Acceptance(RELAYING)
    with listening(network.router, RELAY, is_transparent=True) as relay:
        check_silent(network.lan, Endpoint(PHONE_1, 40000), Endpoint(SERVER, 5060))
        assert call(acceptance.install) == ["ufw", "ufw (input)"]
        check_relay_is_reached(network, relay, 40001)
    call(acceptance.remove)
    assert filter_rules(network) == before


def test_where_no_firewall_stands_nothing_is_left(network: Network) -> None:
    before = network.ruleset()
    assert network.router.call(Acceptance(SETTINGS).install) == []
    network.router.call(Acceptance(SETTINGS).remove)
    assert network.ruleset() == before


def test_A75_calls_pass_real_ufw_also_after_its_reload(
    network: Network, acceptance: Acceptance, peers: dict[str, Peer], ufw: Callable[..., str]
) -> None:
    ufw("--force", "enable")
    assert "deny (routed)" in ufw("status", "verbose")
    before = filter_rules(network)
    check_dropped(peers)
    call = network.router.call
    assert call(acceptance.install) == ["ufw"]
    assert call(acceptance.install) == []
    check_only_the_mapping_passes(peers, REMOTE_1)
    ufw("reload")
    assert filter_rules(network) == before
    assert call(acceptance.install) == ["ufw"]
    check_only_the_mapping_passes(peers, REMOTE_2)
    call(acceptance.remove)
    assert filter_rules(network) == before


def test_a_lock_that_somebody_keeps_holds_nothing_up_for_long(
    network: Network,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    lock, iptables = tmp_path / "xtables.lock", tmp_path / "iptables"
    iptables.symlink_to("/usr/sbin/xtables-legacy-multi")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("XTABLES_LOCKFILE", str(lock))
    network.router.run("iptables", "--new-chain", "DOCKER-USER")
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert network.router.call(Acceptance(SETTINGS).install) == []
    assert "Docker takes no rule that accepts calls" in caplog.text
    assert "lock" in caplog.text
    assert network.router.call(Acceptance(SETTINGS).install) == ["Docker"]
