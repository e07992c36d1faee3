"""SIP over TCP through the real gateway: who connects to whom, and what both ends read."""

from __future__ import annotations

import socket
from contextlib import ExitStack, closing
from dataclasses import dataclass

from alg.sip.stream import PieceKind, SipStream
from nat_table.endpoint import Endpoint
from tests.lab.closable import Closable
from tests.lab.message import Message, parse
from tests.lab.network import PHONE_1, SERVER, Network
from tests.netns.connections import TIMEOUT, listening, tcp_socket

PHONE = Endpoint(PHONE_1, 45000)
CONTACT = Endpoint(PHONE_1, 5060)
PROXY = Endpoint(SERVER, 5060)


class Stream(Closable):
    """One end of a connection; reads whole messages."""

    def __init__(self, connected: socket.socket) -> None:
        self.tcp = connected
        self.tcp.settimeout(TIMEOUT)
        self.tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.peer = Endpoint(*connected.getpeername())
        self._stream = SipStream()
        self._messages: list[bytes] = []

    def close(self) -> None:
        self.tcp.close()

    def send(self, octets: bytes) -> None:
        self.tcp.sendall(octets)

    def expect(self) -> Message:
        """Returns the next message."""
        while not self._messages:
            octets = self.tcp.recv(65536)
            assert octets, "the stream has ended"
            pieces = self._stream.feed(octets)
            self._messages += (p.data for p in pieces if p.kind is PieceKind.MESSAGE)
            assert self._stream.fault is None, self._stream.fault
        message = parse(self._messages.pop(0), self.peer)
        assert message is not None
        return message

    def expect_octets(self, octets: bytes) -> None:
        """Checks that exactly these come next."""
        received = b""
        while len(received) < len(octets):
            part = self.tcp.recv(len(octets) - len(received))
            assert part, "the stream has ended"
            received += part
        assert received == octets

    def is_at_end(self) -> bool:
        """Tells whether the stream ends here; raises ConnectionResetError for a reset."""
        return self.tcp.recv(1) == b""


@dataclass
class Line(Closable):
    """Both ends of a relayed connection."""

    phone: Stream
    server: Stream

    def close(self) -> None:
        self.phone.close()
        self.server.close()

    def exchange(self, number: int = 1) -> tuple[Message, Message]:
        """Has the phone ask and the server answer; returns what arrived at either."""
        self.phone.send(request(Endpoint(*self.phone.tcp.getsockname()), number))
        asked = self.server.expect()
        self.server.send(answer(asked))
        return asked, self.phone.expect()


def connect(network: Network, source: Endpoint = PHONE, target: Endpoint = PROXY) -> Line:
    """Connects a phone with a server that begins to listen for it."""
    with ExitStack() as stack:
        listener = stack.enter_context(listening(network.wan, target))
        dialling = stack.enter_context(tcp_socket(network.lan, source))
        dialling.connect(target)
        accepted, _ = listener.accept()
        listener.close()
        stack.pop_all()
    return Line(Stream(dialling), Stream(accepted))


def register(network: Network, source: Endpoint = PHONE, contact: Endpoint = CONTACT) -> Endpoint:
    """Registers a Contact over a connection that is closed again; returns the mapping of it."""
    with connect(network, source) as line:
        line.phone.send(request(source, 1, "REGISTER", contact))
        asked = line.server.expect()
        line.server.send(answer(asked))
        line.phone.expect()
    uri = asked["Contact"].partition("@")[2].partition(">")[0].partition(";")[0]
    host, _, port = uri.partition(":")
    return Endpoint(host, int(port))


def call_in(network: Network, source: Endpoint, mapping: Endpoint, contact: Endpoint) -> Line:
    """Has somebody connect to a mapping, and its phone accept."""
    namespace = network.lan if source.address.startswith("10.") else network.wan
    with ExitStack() as stack:
        listener = stack.enter_context(listening(network.lan, contact))
        dialling = stack.enter_context(tcp_socket(namespace, source))
        dialling.connect(mapping)
        accepted, _ = listener.accept()
        stack.pop_all()
    with closing(listener):
        return Line(Stream(accepted), Stream(dialling))


def request(
    source: Endpoint,
    number: int = 1,
    method: str = "OPTIONS",
    contact: Endpoint | None = None,
    body: bytes = b"",
    uri: str = f"sip:{SERVER}",
) -> bytes:
    """Renders a request of whoever is at `source`."""
    content = "Content-Type: application/sdp\r\n" if body else ""
    head = (
        f"{method} {uri} SIP/2.0\r\nVia: SIP/2.0/TCP {source};branch=z9hG4bK{number};rport\r\n"
        f"From: <sip:p@{SERVER}>;tag={number}\r\nTo: <sip:p@{SERVER}>\r\n"
        f"Call-ID: {number}@{source.address}\r\nCSeq: {number} {method}\r\nMax-Forwards: 70\r\n"
        f"Contact: <sip:p@{contact or source};transport=tcp>\r\n{content}"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def answer(asked: Message, body: bytes = b"") -> bytes:
    """Renders a 200 with the headers that matter."""
    kept = ("Via", "From", "To", "Call-ID", "CSeq", "Contact")
    headers = "".join(f"{name}: {asked[name]}\r\n" for name in kept if asked[name])
    content = "Content-Type: application/sdp\r\n" if body else ""
    return (
        f"SIP/2.0 200 OK\r\n{headers}{content}Content-Length: {len(body)}\r\n\r\n".encode() + body
    )
