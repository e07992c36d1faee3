"""Diverted packets reach the relay, however the router routes and whoever flushes its rules.

The relay's place is taken by a listener of the test's own.
"""

from __future__ import annotations

import socket
from dataclasses import replace

import pytest

from alg.config import Config
from alg.daemon.settings import kernel_settings
from nat_table.endpoint import Endpoint
from rules.backend import KernelBackend
from tests.lab.network import (
    EXTERNAL_INTERFACE,
    INTERNAL_INTERFACE,
    PHONE_1,
    SECOND_EXTERNAL,
    SECOND_INTERFACE,
    SECOND_SERVER,
    SERVER,
    Network,
)
from tests.netns.connections import (
    RELAY,
    SETTINGS,
    accepted,
    check_passes,
    connected,
    listening,
)
from tests.netns.kernel import install

pytestmark = pytest.mark.netns

SIP_SERVER = Endpoint(SERVER, 5060)
FROM_PHONE = Endpoint(PHONE_1, 40000)


def test_A69_kernel_that_cannot_divert_leaves_tcp_alone(
    network: Network, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = Config(internal=(INTERNAL_INTERFACE,), external=EXTERNAL_INTERFACE)

    def relay_port() -> int:
        return network.router.call(lambda: kernel_settings(config)).relay_port

    assert (relay_port(), caplog.text) == (config.relay_port, "")
    monkeypatch.setattr("alg.daemon.settings.has_transparent_proxy", lambda: False)
    assert relay_port() == 0
    assert "nft_tproxy" in caplog.text


def test_A93_each_uplink_has_a_relay_of_its_own(network: Network, relay: socket.socket) -> None:
    network.add_uplink()
    second = replace(
        SETTINGS,
        external_interface=SECOND_INTERFACE,
        external_addresses=(SECOND_EXTERNAL,),
        relay_port=RELAY.port + 1,
        uplink=1,
        mark_mask=0,
    )
    for settings in (SETTINGS, second):
        install(network, settings)
    here = Endpoint(RELAY.address, second.relay_port)
    with listening(network.router, here, is_transparent=True) as other_relay:
        for listener, target in ((relay, SIP_SERVER), (other_relay, Endpoint(SECOND_SERVER, 5060))):
            with (
                connected(network.lan, FROM_PHONE, target) as calling,
                accepted(listener, target, FROM_PHONE) as near,
            ):
                check_passes(calling, near)


def test_A75_connections_outlive_a_flush_of_the_ruleset(
    network: Network, diverting: KernelBackend, relay: socket.socket
) -> None:
    with (
        connected(network.lan, FROM_PHONE, SIP_SERVER) as calling,
        accepted(relay, SIP_SERVER, FROM_PHONE) as near,
    ):
        network.router.run("nft", "flush", "ruleset")
        calling.sendall(b"meanwhile")
        assert not network.router.call(lambda: diverting.is_installed(is_thorough=False))
        network.router.call(diverting.install)
        assert near.recv(64) == b"meanwhile"
        check_passes(calling, near)


def test_A93_router_with_a_table_for_its_phones_still_hands_them_to_the_relay(
    network: Network, diverting: KernelBackend, relay: socket.socket
) -> None:
    ip = network.router.run
    ip("ip", "route", "add", "default", "via", SERVER, "table", "100")
    ip("ip", "rule", "add", "from", "10.0.0.0/24", "lookup", "100", "priority", "100")
    with (
        connected(network.lan, FROM_PHONE, SIP_SERVER) as calling,
        accepted(relay, SIP_SERVER, FROM_PHONE) as near,
    ):
        check_passes(calling, near)


def test_A75_routing_is_restored_and_removed_with_the_rules(
    network: Network, diverting: KernelBackend
) -> None:
    call, run = network.router.call, network.router.run

    def is_installed() -> bool:
        return call(lambda: diverting.is_installed(is_thorough=True))

    def routing() -> str:
        return run("ip", "rule") + run("ip", "route", "show", "table", "all", "type", "local")

    before = routing()
    assert is_installed()
    call(diverting.install)
    assert routing() == before
    for interface in (INTERNAL_INTERFACE, EXTERNAL_INTERFACE):
        mark = f"{SETTINGS.relay_mark:#x}/{SETTINGS.relay_mark:#x}"
        run("ip", "rule", "del", "fwmark", mark, "iif", interface)
        assert not is_installed()
        call(diverting.install)
        assert is_installed()
    install(network, replace(SETTINGS, relay_port=0))
    assert "50600" not in routing()
    call(diverting.install)
    call(diverting.uninstall)
    assert "50600" not in routing() and "inet sipnat" not in network.ruleset()
