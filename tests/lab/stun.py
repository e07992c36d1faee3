"""STUN in the lab: a server that says what it sees, and a probe that asks it (RFC 8489)."""

from __future__ import annotations

import socket
import threading

from aioice import stun

from nat_table.endpoint import Endpoint
from tests.lab.closable import Closable
from tests.lab.namespace import Namespace

STUN_PORT = 3478
TIMEOUT = 2.0


class StunServer(Closable):
    """Answers Binding requests in a namespace with the source endpoint they came from."""

    def __init__(self, namespace: Namespace, address: str) -> None:
        self.endpoint = Endpoint(address, STUN_PORT)
        self._socket = namespace.udp_socket(address, STUN_PORT)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the server."""
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                data, source = self._socket.recvfrom(2048)
            except OSError:
                return
            request = stun.parse_message(data)
            answer = stun.Message(
                message_method=stun.Method.BINDING,
                message_class=stun.Class.RESPONSE,
                transaction_id=request.transaction_id,
            )
            answer.attributes["XOR-MAPPED-ADDRESS"] = source
            answer.add_fingerprint()
            self._socket.sendto(bytes(answer), source)


def probe(udp: socket.socket, server: Endpoint, timeout: float = TIMEOUT) -> Endpoint:
    """Asks the server how the socket looks from outside: its server-reflexive address."""
    request = stun.Message(message_method=stun.Method.BINDING, message_class=stun.Class.REQUEST)
    udp.settimeout(timeout)
    udp.sendto(bytes(request), server)
    answer = stun.parse_message(udp.recv(2048))
    return Endpoint(*answer.attributes["XOR-MAPPED-ADDRESS"])
