"""Whole calls through a router whose other firewall drops what it forwards (A75)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.lab.gateway import Gateway
from tests.lab.network import Network
from tests.lab.site import SERVER_MEDIA_1, Site
from tests.netns.calls import check_audio, media_is_released
from tests.netns.firewalls import DOCKER, filter_rules

pytestmark = [pytest.mark.netns, pytest.mark.timeout(90)]


def check_calls(site: Site, gateway: Gateway) -> None:
    """Registers a phone, calls out and in, each with audio, and hangs up."""
    phone, server = site.phone_1, site.server
    site.register(phone)
    sent, arrived = site.call_out(phone)
    check_audio(site.talk(phone, arrived, SERVER_MEDIA_1))
    site.hang_up(phone, server, sent)
    assert media_is_released(gateway)


def test_a75_calls_pass_docker_and_its_rules_are_as_before_after_a_stop(network: Network) -> None:
    network.router.run("iptables-restore", text=DOCKER)
    before = filter_rules(network)
    with Gateway(network.router, install_accept="auto") as gateway, Site(network) as site:
        assert any("Docker" in line for line in gateway.log)
        check_calls(site, gateway)
        gateway.stop()
        assert filter_rules(network) == before


def test_a75_audio_goes_on_through_docker_while_the_gateway_is_down(network: Network) -> None:
    network.router.run("iptables-restore", text=DOCKER)
    before = filter_rules(network)
    with Gateway(network.router, install_accept="auto") as gateway, Site(network) as site:
        sent, arrived = site.call_out(site.phone_1)
        talk = site.talk(site.phone_1, arrived, SERVER_MEDIA_1)
        assert talk.flows_on()
        gateway.stop()
        assert talk.flows_on()
        gateway.start()
        site.hang_up(site.phone_1, site.server, sent)
        assert media_is_released(gateway)
        gateway.stop()
        assert filter_rules(network) == before


def test_a75_calls_pass_ufw_with_its_drop_policy(network: Network, ufw: Callable[..., str]) -> None:
    ufw("--force", "enable")
    assert "deny (routed)" in ufw("status", "verbose")
    with Gateway(network.router, install_accept="auto") as gateway, Site(network) as site:
        check_calls(site, gateway)


def test_a75_without_leave_no_rule_goes_into_another_firewall(network: Network) -> None:
    network.router.run("iptables-restore", text=DOCKER)
    before = filter_rules(network)
    with Gateway(network.router):
        assert filter_rules(network) == before
