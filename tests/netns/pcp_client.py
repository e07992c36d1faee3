"""A PCP client in a namespace: it asks, and hears what it has not asked for."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress

from alg.port_manager import pcp
from alg.port_manager.pcp import Body, Opcode, Options, Request, Response
from nat_table.endpoint import UDP, Endpoint, is_ipv6
from tests.lab.closable import Closable
from tests.lab.namespace import Namespace

TIMEOUT = 2.0
SILENCE = 0.3
NONCE = bytes(range(12))


class PcpClient(Closable):
    """Asks the router from an address of its namespace."""

    def __init__(self, namespace: Namespace, address: str, router: str) -> None:
        self.address = address
        self._router = (router, pcp.SERVER_PORT)
        self._socket = namespace.udp_socket(address)

    def close(self) -> None:
        """Closes its socket."""
        self._socket.close()

    def send(self, data: bytes, timeout: float = TIMEOUT) -> bytes | None:
        """Sends octets; returns the answer, or None where none comes."""
        self._socket.settimeout(timeout)
        self._socket.sendto(data, self._router)
        try:
            answer, source = self._socket.recvfrom(2048)
        except TimeoutError:
            return None
        assert source[:2] == self._router
        return answer

    def allow_broadcast(self) -> None:
        """Has it able to ask everybody on the link."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)

    def connect_and_send(self, data: bytes) -> bytes:
        """Does as `send`, but hears of a port that nobody has: raises ConnectionRefusedError."""
        self._socket.settimeout(TIMEOUT)
        self._socket.connect(self._router)
        self._socket.send(data)
        return self._socket.recv(2048)

    def ask(self, request: Request) -> Response:
        """Sends a request and returns the response."""
        answer = self.send(pcp.encode_request(request))
        assert answer is not None, "there was no answer"
        return pcp.parse_response(answer)

    def map(
        self,
        port: int,
        *,
        lifetime: int = 600,
        protocol: int = UDP.value,
        external: int = 0,
        nonce: bytes = NONCE,
        options: Options = pcp.NO_OPTIONS,
    ) -> Response:
        """Asks for MAP of a port of its own."""
        body = Body(nonce, protocol, port, self._suggested(external))
        return self.ask(Request(Opcode.MAP, self.address, lifetime, body, options))

    def peer(self, port: int, peer: Endpoint, *, lifetime: int = 600) -> Response:
        """Asks for PEER of a port of its own."""
        body = Body(NONCE, UDP.value, port, self._suggested(0), peer)
        return self.ask(Request(Opcode.PEER, self.address, lifetime, body))

    def epoch(self) -> int:
        """Asks for the epoch alone."""
        return self.ask(Request(Opcode.ANNOUNCE, self.address)).epoch

    def _suggested(self, port: int) -> Endpoint:
        return Endpoint("::" if is_ipv6(self.address) else "0.0.0.0", port)


def external_of(response: Response) -> Endpoint:
    """Returns what a response assigns; fails where it refuses."""
    assert response.result is pcp.Result.SUCCESS, response
    assert response.body is not None
    return response.body.external


def listen_for_news(namespace: Namespace, address: str, interface: str) -> socket.socket:
    """Returns a socket that hears what clients are told at 224.0.0.1 or ff02::1, and at address."""
    news = namespace.udp_socket("::" if is_ipv6(address) else "0.0.0.0", pcp.CLIENT_PORT)
    index = namespace.call(lambda: socket.if_nametoindex(interface))
    if is_ipv6(address):
        group = socket.inet_pton(socket.AF_INET6, "ff02::1") + struct.pack("=I", index)
        news.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group)
    else:
        group = socket.inet_aton("224.0.0.1") + socket.inet_aton("0.0.0.0")
        group += struct.pack("=i", index)
        news.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
    return news


def heard(news: socket.socket, count: int, timeout: float = 5.0) -> list[bytes]:
    """Returns the next messages, as many as come in time."""
    news.settimeout(timeout)
    found: list[bytes] = []
    with suppress(TimeoutError):
        while len(found) < count:
            data, source = news.recvfrom(2048)
            assert source[1] == pcp.SERVER_PORT
            found.append(data)
    return found
