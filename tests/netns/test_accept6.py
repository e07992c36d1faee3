"""IPv6 calls pass firewalls that drop what they forward, by rules of their own there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rules.accept import Acceptance
from rules.backend import KernelBackend
from tests.lab.network import LAN_ROUTED6, REMOTE6_1, Network
from tests.lab.packages import fetch_package
from tests.netns.firewalls import DOCKER, FW4, fw4, unpack_ufw
from tests.netns.kernel import install
from tests.netns.kernel6 import ROUTED, ROUTED_1, ROUTED_2, Bind, routed

pytestmark = pytest.mark.netns

DOCKER6 = "".join(line for line in DOCKER.splitlines(True) if "192.0.2" not in line)


@pytest.fixture
def network() -> Iterator[Network]:
    with Network(lan6=LAN_ROUTED6) as network:
        yield network


@pytest.fixture
def backend(network: Network) -> KernelBackend:
    backend = install(network, ROUTED)
    backend.commit([routed(ROUTED_1)])
    return backend


def check_passes(bind: Bind, *, is_open: bool) -> None:
    """Checks that the mapped phone is reached from outside if it should be, and the other never."""
    phone, other, remote = bind(ROUTED_1), bind(ROUTED_2), bind(REMOTE6_1)
    for address in (ROUTED_1, ROUTED_2):
        remote.send(b"in", address, 4000)
    if is_open:
        phone.expect(b"in")
    phone.expect_nothing()
    other.expect_nothing()


@pytest.mark.usefixtures("backend")
def test_A75_calls_pass_a_router_with_docker(network: Network, bind: Bind) -> None:
    network.router.run("ip6tables-restore", text=DOCKER6)
    before = network.router.run("ip6tables", "-S")
    check_passes(bind, is_open=False)
    acceptance, call = Acceptance(ROUTED), network.router.call
    assert call(acceptance.install) == ["Docker (IPv6)"]
    assert call(acceptance.install) == []
    check_passes(bind, is_open=True)
    call(acceptance.remove)
    assert network.router.run("ip6tables", "-S") == before
    check_passes(bind, is_open=False)


@pytest.mark.usefixtures("backend")
def test_A75_calls_pass_fw4_by_the_rule_of_ipv4(network: Network, bind: Bind) -> None:
    network.router.run("nft", "-f", "-", text=FW4)
    before = fw4(network)
    check_passes(bind, is_open=False)
    acceptance, call = Acceptance(ROUTED), network.router.call
    assert call(acceptance.install) == ["OpenWrt fw4"]
    check_passes(bind, is_open=True)
    call(acceptance.remove)
    assert fw4(network) == before


@pytest.mark.usefixtures("backend")
def test_A75_calls_pass_real_ufw(
    network: Network, bind: Bind, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    package = fetch_package(request.config.cache, "ufw")
    ufw = unpack_ufw(network, package, tmp_path / "ufw", has_ipv6=True)
    ufw("--force", "enable")
    before = network.router.run("ip6tables", "-S")
    check_passes(bind, is_open=False)
    acceptance, call = Acceptance(ROUTED), network.router.call
    assert call(acceptance.install) == ["ufw", "ufw (IPv6)"]
    check_passes(bind, is_open=True)
    call(acceptance.remove)
    assert network.router.run("ip6tables", "-S") == before
