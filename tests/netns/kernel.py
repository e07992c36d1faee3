"""The rules on a real kernel, without SIP: how a test installs them, maps ports, sends and expects.

The network is the lab's: phones on 10.0.0.0/24, a router that masquerades by a table of its own,
remotes on 203.0.113.0/24. The fixtures `backend` and `peers` are in conftest.py.
"""

from __future__ import annotations

import socket

import pytest

from nat_table.binding import Binding, Kind, Owner, Pinhole
from nat_table.changes import Closed, Opened
from nat_table.endpoint import Endpoint, Transport
from rules.backend import KernelBackend
from rules.settings import Settings
from tests.lab.network import EXTERNAL, EXTERNAL_INTERFACE, INTERNAL_INTERFACE, Network

SETTINGS = Settings((INTERNAL_INTERFACE,), EXTERNAL_INTERFACE, (EXTERNAL,))
POOL_PORT = 20000
POOL_PORT_ENTRY = f"dport={POOL_PORT}"
PINHOLE = Pinhole(Owner("call", "1@10.0.0.20"), 60.0)


def install(network: Network, settings: Settings = SETTINGS) -> KernelBackend:
    """Returns a backend whose rules stand on the network's router."""
    backend = network.router.call(lambda: KernelBackend(settings))
    network.router.call(backend.install)
    return backend


class Peer:
    """A UDP socket that sends and expects."""

    def __init__(self, udp: socket.socket) -> None:
        self.udp = udp
        udp.settimeout(1.0)

    def send(self, payload: bytes, address: str, port: int) -> None:
        self.udp.sendto(payload, (address, port))

    def expect(self, payload: bytes) -> Endpoint:
        received, source = self.udp.recvfrom(0xFFFF)
        assert received == payload, received
        return Endpoint(*source[:2])

    def expect_nothing(self) -> None:
        self.udp.settimeout(0.2)
        with pytest.raises(TimeoutError):
            self.udp.recv(2048)
        self.udp.settimeout(1.0)


def binding(internal: str, external: int, *, port: int = 4000, kind: Kind = Kind.RTP) -> Binding:
    return Binding(Transport.UDP, Endpoint(internal, port), Endpoint(EXTERNAL, external), kind, 0.0)


def opened(internal: str, external: int, *, port: int = 4000, kind: Kind = Kind.RTP) -> Opened:
    return Opened(binding(internal, external, port=port, kind=kind), PINHOLE)


def closed(change: Opened) -> Closed:
    return Closed(change.binding, (change.pinhole,))


def conntrack(network: Network) -> str:
    return network.router.run("conntrack", "-L", "-p", "udp")


def counted(backend: KernelBackend) -> dict[str, int]:
    """Returns the counters that have counted something."""
    return {name: packets for name, packets in backend.counters().items() if packets}
