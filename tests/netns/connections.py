"""TCP in the lab: sockets of phones and servers, and a stand-in for the relay.

The stand-in accepts what is diverted and dials from any endpoint, by hand. So the tests prove the
rules without a relay.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from nat_table.binding import Binding, Kind
from nat_table.changes import Opened
from nat_table.endpoint import Endpoint, Transport
from rules.settings import Settings
from tests.lab.namespace import Namespace, address_family
from tests.lab.network import EXTERNAL, EXTERNAL_INTERFACE, INTERNAL_INTERFACE, PHONE_1
from tests.netns.kernel import PINHOLE

RELAY = Endpoint("127.0.0.1", 15060)
SETTINGS = Settings((INTERNAL_INTERFACE,), EXTERNAL_INTERFACE, (EXTERNAL,), relay_port=RELAY.port)
IP_TRANSPARENT = 19
TIMEOUT = 5.0
NOTHING_TIMEOUT = 0.5


def tcp_socket(
    namespace: Namespace, source: Endpoint, *, is_transparent: bool = False
) -> socket.socket:
    """Binds a TCP socket inside the namespace, a transparent one to anybody's endpoint."""

    def bind() -> socket.socket:
        tcp = socket.socket(address_family(source.address), socket.SOCK_STREAM)
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if is_transparent:
            tcp.setsockopt(socket.SOL_IP, IP_TRANSPARENT, 1)
        tcp.settimeout(TIMEOUT)
        tcp.bind(source)
        return tcp

    return namespace.call(bind)


@contextmanager
def listening(
    namespace: Namespace, where: Endpoint, *, is_transparent: bool = False
) -> Iterator[socket.socket]:
    """Yields a socket that listens inside the namespace."""
    with tcp_socket(namespace, where, is_transparent=is_transparent) as listener:
        listener.listen()
        listener.settimeout(TIMEOUT)
        yield listener


@contextmanager
def connected(
    namespace: Namespace, source: Endpoint, target: Endpoint, *, is_transparent: bool = False
) -> Iterator[socket.socket]:
    """Yields a connection from a given endpoint; raises TimeoutError or ConnectionRefusedError."""
    with tcp_socket(namespace, source, is_transparent=is_transparent) as tcp:
        tcp.connect(target)
        yield tcp


@contextmanager
def accepted(
    listener: socket.socket, target: Endpoint, source: Endpoint
) -> Iterator[socket.socket]:
    """Yields the connection that the listener has; it was made to `target` from `source`."""
    tcp, peer = listener.accept()
    with tcp:
        tcp.settimeout(TIMEOUT)
        assert (Endpoint(*tcp.getsockname()[:2]), Endpoint(*peer[:2])) == (target, source)
        yield tcp


def check_silent(namespace: Namespace, source: Endpoint, target: Endpoint) -> None:
    """Checks that a connection is neither accepted nor refused."""
    with tcp_socket(namespace, source) as tcp:
        tcp.settimeout(NOTHING_TIMEOUT)
        with pytest.raises(TimeoutError):
            tcp.connect(target)


def check_refused(namespace: Namespace, source: Endpoint, target: Endpoint) -> None:
    """Checks that a connection is refused at once, by a reset."""
    with tcp_socket(namespace, source) as tcp, pytest.raises(ConnectionRefusedError):
        tcp.connect(target)


def check_passes(one: socket.socket, other: socket.socket) -> None:
    """Checks that what either end of a connection says reaches the other."""
    for speaker, hearer in ((one, other), (other, one)):
        speaker.sendall(b"said")
        assert hearer.recv(64) == b"said"


def opened_tcp(
    external: int, *, internal: str = PHONE_1, port: int = 5060, kind: Kind = Kind.SIP
) -> Opened:
    """Returns the opening of a TCP mapping on the external address."""
    ends = Endpoint(internal, port), Endpoint(EXTERNAL, external)
    return Opened(Binding(Transport.TCP, *ends, kind, 0.0), PINHOLE)
