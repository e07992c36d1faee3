"""`sipnat uninstall` leaves a kernel as if no gateway had ever run, whatever has run there."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.lab.gateway import SIPNAT, Gateway
from tests.lab.network import LAN_ROUTED6, LAN_UNIQUE_LOCAL6, Network
from tests.lab.site import SERVER_MEDIA_1, Site

pytestmark = [pytest.mark.netns, pytest.mark.timeout(90)]

DOCKER = """
*filter
:FORWARD ACCEPT [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A DOCKER-USER -j RETURN
COMMIT
"""
COUNTERS = re.compile(r" \[\d+:\d+]")
SYSCTL = "net.ipv4.ip_local_reserved_ports"
READ_ONLY = 'mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys; exec "$@"'


@pytest.fixture
def network(request: pytest.FixtureRequest) -> Iterator[Network]:
    """Yields a router with a firewall; the parameter is the IPv6 network of its phones."""
    with Network(lan6=getattr(request, "param", "")) as network:
        network.router.set_sysctl(SYSCTL, "8080")
        for program in ("iptables-restore", "ip6tables-restore"):
            network.router.run(program, text=DOCKER)
        yield network


def state(network: Network) -> list[str]:
    """Returns what a gateway might leave in the router's kernel."""
    commands = (
        "nft --stateless list ruleset",
        "iptables-save",
        "ip6tables-save",
        "ip -4 rule",
        "ip -6 rule",
        "ip -4 route show table all",
        f"sysctl {SYSCTL}",
    )
    texts = [network.router.run(*command.split()) for command in commands]
    lines = [line for text in texts for line in text.splitlines() if not line.startswith("#")]
    return [COUNTERS.sub("", line) for line in lines]


def uninstall(network: Network, *before: str) -> subprocess.CompletedProcess[str]:
    command = network.router.command(*before, SIPNAT, "uninstall")
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.parametrize(
    "network",
    ["", LAN_ROUTED6, LAN_UNIQUE_LOCAL6],
    ids=["ipv4", "routed", "nat66"],
    indirect=True,
)
@pytest.mark.parametrize("end", [Gateway.stop, Gateway.kill], ids=["stopped", "killed"])
def test_nothing_is_left_of_gateways_that_ran(
    network: Network, end: Callable[[Gateway], object]
) -> None:
    before = state(network)
    gateways = [
        Gateway(network.router, uplink=uplink, install_accept="auto", ports="18000-18999")
        for uplink in (0, 2)
    ]
    try:
        gateways[0].start()
        with Site(network) as site:
            _, offer = site.call_out(site.phone_1)
            talk = site.talk(site.phone_1, offer, SERVER_MEDIA_1)
            assert talk.flows_on()
            gateways[1].start()
            for gateway in gateways:
                end(gateway)
            assert len(state(network)) > len(before)
            done = uninstall(network)
            assert (done.returncode, done.stderr) == (0, "")
            assert state(network) == before
            assert "mark=33554432" not in network.router.run("conntrack", "-L")
    finally:
        for gateway in gateways:
            gateway.close()
    assert uninstall(network).returncode == 0, "a second time there is nothing to do"
    assert state(network) == before


def test_what_a_container_may_not_change_keeps_nothing_else_in_the_kernel(
    network: Network,
) -> None:
    before = state(network)
    with Gateway(network.router, ports="18000-18999"):
        pass
    done = uninstall(network, "unshare", "-m", "sh", "-c", READ_ONLY, "sh")
    assert done.returncode == 1
    assert "Read-only file system" in done.stderr
    assert state(network) == [*before[:-1], f"{SYSCTL} = 8080,18000-18999"]


def test_it_is_refused_while_a_gateway_runs(network: Network, gateway: Gateway) -> None:
    before = state(network)
    done = uninstall(network)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "sipnat: a sipnat is running, and would put its rules back: stop it first\n"
    )
    assert state(network) == before


def test_it_is_refused_without_root(network: Network) -> None:
    as_nobody = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
    done = uninstall(network, *as_nobody)
    assert done.returncode == 1
    assert done.stderr == "sipnat: root is needed to change the kernel's rules: try with sudo\n"
