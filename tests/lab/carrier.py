"""What carries an agent's messages: a UDP socket, or TCP connections.

Either sends octets to an endpoint and returns what has come, with the endpoint that it came from.
Over TCP that endpoint is the other end of a connection: what is sent to it goes back by the same
connection, and whoever has none is connected to (RFC 3261 §18.1.1, §18.2.2).
"""

from __future__ import annotations

import re
import selectors
import socket
from contextlib import suppress
from typing import ClassVar, Protocol

from nat_table.endpoint import Endpoint
from tests.lab.namespace import Namespace

TIMEOUT = 3.0
MAX_READ = 65535
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)

Received = list[tuple[bytes, Endpoint]]


class Carrier(Protocol):
    """One transport of one agent; `name` is what Via calls it."""

    name: ClassVar[str]
    is_reliable: ClassVar[bool]

    def send(self, raw: bytes, destination: Endpoint) -> None:
        """Sends one message; raises OSError where the other side cannot be connected to."""

    def receive(self, timeout: float) -> Received:
        """Returns the messages that have come with their sources, after `timeout` at the latest."""

    def hang_up(self) -> None:
        """Ends what connections there are, as a phone does that has lost its network."""

    def close(self) -> None:
        """Gives the sockets back."""


class UdpCarrier:
    """A datagram is a message."""

    name: ClassVar[str] = "UDP"
    is_reliable: ClassVar[bool] = False

    def __init__(self, namespace: Namespace, local: Endpoint) -> None:
        self._socket = namespace.udp_socket(*local)

    def send(self, raw: bytes, destination: Endpoint) -> None:
        """Sends a datagram."""
        self._socket.sendto(raw, destination)

    def receive(self, timeout: float) -> Received:
        """Waits for one datagram."""
        self._socket.settimeout(timeout)
        try:
            raw, source = self._socket.recvfrom(MAX_READ)
        except OSError:
            return []
        return [(raw, Endpoint(*source[:2]))]

    def hang_up(self) -> None:
        """Does nothing: there are no connections."""

    def close(self) -> None:
        """Closes the socket."""
        self._socket.close()


class TcpCarrier:
    """Listens at the agent's endpoint, and connects from any port of its address.

    `connections` are those that are open, by the other end; `keepalives` counts the line ends that
    came between messages (RFC 5626 §3.5.1).
    """

    name: ClassVar[str] = "TCP"
    is_reliable: ClassVar[bool] = True

    def __init__(self, namespace: Namespace, local: Endpoint) -> None:
        self.connections: dict[Endpoint, Connection] = {}
        self.keepalives = 0
        self._namespace = namespace
        self._local = local
        self._selector = selectors.DefaultSelector()
        self._listener = namespace.tcp_socket(*local)
        self._listener.listen()
        self._selector.register(self._listener, selectors.EVENT_READ, None)

    def send(self, raw: bytes, destination: Endpoint) -> None:
        """Sends by the connection to this end; one that is gone is made again."""
        standing = self.connections.get(destination)
        if standing is not None:
            with suppress(OSError):
                standing.tcp.sendall(raw)
                return
        self._connect(destination).tcp.sendall(raw)

    def receive(self, timeout: float) -> Received:
        """Accepts connections and reads from them."""
        received: Received = []
        for key, _ in self._selector.select(timeout):
            if key.data is None:
                tcp, _ = self._listener.accept()
                self._add(tcp)
                continue
            connection: Connection = key.data
            if not connection.read():
                self._remove(connection)
            received += ((raw, connection.peer) for raw in connection.messages())
            self.keepalives += connection.take_keepalives()
        return received

    def close(self) -> None:
        """Closes the listener and every connection."""
        for connection in list(self.connections.values()):
            self._remove(connection)
        self._selector.close()
        self._listener.close()

    def hang_up(self) -> None:
        """Ends every connection."""
        for connection in list(self.connections.values()):
            connection.tcp.shutdown(socket.SHUT_RDWR)

    def _connect(self, destination: Endpoint) -> Connection:
        tcp = self._namespace.tcp_socket(self._local.address)
        tcp.settimeout(TIMEOUT)
        try:
            tcp.connect(destination)
        except OSError:
            tcp.close()
            raise
        return self._add(tcp)

    def _add(self, tcp: socket.socket) -> Connection:
        tcp.settimeout(TIMEOUT)
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(tcp)
        self.connections[connection.peer] = connection
        self._selector.register(tcp, selectors.EVENT_READ, connection)
        return connection

    def _remove(self, connection: Connection) -> None:
        self._selector.unregister(connection.tcp)
        connection.tcp.close()
        if self.connections.get(connection.peer) is connection:
            del self.connections[connection.peer]


class Connection:
    """One connection, and what has come of a message that is not whole yet."""

    def __init__(self, tcp: socket.socket) -> None:
        self.tcp = tcp
        self.peer = Endpoint(*tcp.getpeername()[:2])
        self.local = Endpoint(*tcp.getsockname()[:2])
        self._held = b""
        self._keepalives = 0

    def read(self) -> bool:
        """Reads what has come; returns whether the other side goes on."""
        data = b""
        with suppress(OSError):
            data = self.tcp.recv(MAX_READ)
        self._held += data
        return bool(data)

    def messages(self) -> list[bytes]:
        """Returns the messages that are whole, by Content-Length (RFC 3261 §18.3)."""
        found: list[bytes] = []
        while True:
            while self._held.startswith(b"\r\n"):
                self._held = self._held[2:]
                self._keepalives += 1
            head, separator, _ = self._held.partition(b"\r\n\r\n")
            length = LENGTH.search(head)
            size = len(head) + len(separator) + (int(length[1]) if length else 0)
            if not separator or len(self._held) < size:
                return found
            found.append(self._held[:size])
            self._held = self._held[size:]

    def take_keepalives(self) -> int:
        """Returns how many line ends came since the last call."""
        taken, self._keepalives = self._keepalives, 0
        return taken


CARRIERS: dict[str, type[UdpCarrier] | type[TcpCarrier]] = {"udp": UdpCarrier, "tcp": TcpCarrier}
