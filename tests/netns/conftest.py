"""The lab as fixtures: each test gets a network of its own, so that tests may run in parallel."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from rules.backend import KernelBackend
from tests.lab.doctor import Doctor
from tests.lab.gateway import Gateway
from tests.lab.namespace import exit_on_signals
from tests.lab.network import (
    LAN_ROUTED6,
    LAN_UNIQUE_LOCAL6,
    PHONE_1,
    PHONE_2,
    REMOTE_1,
    REMOTE_2,
    SERVER,
    Network,
)
from tests.lab.packages import fetch_package
from tests.lab.setup import Setup
from tests.lab.site import Site
from tests.netns import connections
from tests.netns.firewalls import unpack_ufw
from tests.netns.kernel import Peer, install
from tests.netns.kernel6 import Bind

LANS6 = (LAN_ROUTED6, LAN_UNIQUE_LOCAL6)


@pytest.fixture(scope="session", autouse=True)
def clean_up_on_signals() -> None:
    exit_on_signals()


@pytest.fixture
def network() -> Iterator[Network]:
    """Yields a wired network behind plain masquerade, without the gateway."""
    with Network() as network:
        yield network


@pytest.fixture(params=["pinhole", "nat66", "nptv6"])
def mode(request: pytest.FixtureRequest) -> str:
    """Returns each mode of IPv6 in turn."""
    mode: str = request.param
    return mode


@pytest.fixture
def gateway(network: Network, request: pytest.FixtureRequest) -> Iterator[Gateway]:
    """Yields the gateway, ready, on the network's router; the mark `configured` gives it keys."""
    mark = request.node.get_closest_marker("configured")
    with Gateway(network.router, **(mark.kwargs if mark else {})) as gateway:
        yield gateway


@pytest.fixture
def site(network: Network, gateway: Gateway) -> Iterator[Site]:
    """Yields two registered-to-be phones and a server on either side of the gateway."""
    with Site(network) as site:
        yield site


@pytest.fixture
def backend(network: Network) -> KernelBackend:
    """Returns the kernel's backend, its rules installed on the network's router."""
    return install(network)


@pytest.fixture
def diverting(network: Network) -> KernelBackend:
    """Returns a backend as `backend` does, whose rules divert SIP over TCP to a relay."""
    return install(network, connections.SETTINGS)


@pytest.fixture
def relay(network: Network) -> Iterator[socket.socket]:
    """Yields a listener where the relay's would be."""
    with connections.listening(network.router, connections.RELAY, is_transparent=True) as listener:
        yield listener


@pytest.fixture
def peers(network: Network) -> Iterator[dict[str, Peer]]:
    """Yields the sockets of both phones (same port!) and of three remotes."""
    places = {
        PHONE_1: (network.lan, 4000),
        PHONE_2: (network.lan, 4000),
        SERVER: (network.wan, 5060),
        REMOTE_1: (network.wan, 7000),
        REMOTE_2: (network.wan, 7002),
    }
    made = {
        address: Peer(namespace.udp_socket(address, port))
        for address, (namespace, port) in places.items()
    }
    yield made
    for peer in made.values():
        peer.udp.close()


@pytest.fixture
def bind(network: Network) -> Iterator[Bind]:
    """Binds an address and a port, 4000 unless another is said, on either side of the network.

    What is bound already is returned again.
    """
    with ExitStack() as stack:
        made: dict[tuple[str, int], Peer] = {}

        def bind(address: str, port: int = 4000) -> Peer:
            if (address, port) not in made:
                side = network.lan if address.startswith(LANS6) else network.wan
                udp = stack.enter_context(side.udp_socket(address, port))
                made[address, port] = Peer(udp)
            return made[address, port]

        yield bind


@pytest.fixture
def doctor(network: Network) -> Iterator[Doctor]:
    """Yields a doctor on a router that has a way to the Internet, and nothing wrong."""
    network.router.run("ip", "route", "add", "default", "via", SERVER)
    with Doctor(network.router) as doctor:
        yield doctor


@pytest.fixture
def setup(network: Network) -> Iterator[Setup]:
    """Yields the command on a router that has a way to the Internet."""
    network.router.run("ip", "route", "add", "default", "via", SERVER)
    with Setup(network.router) as setup:
        yield setup


@pytest.fixture
def ufw(network: Network, tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., str]:
    """Returns the real ufw, on the network's router; skips where it cannot be had."""
    return unpack_ufw(network, fetch_package(request.config.cache, "ufw"), tmp_path / "ufw")
