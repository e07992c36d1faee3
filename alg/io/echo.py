"""The SIP echo on the wire: the server that answers, and the question to one."""

from __future__ import annotations

import contextlib
import secrets
import socket

from alg.io.clock import now
from alg.observe.echo import (
    MAX_MESSAGE,
    Echo,
    answer,
    read_answer,
    render_acknowledgement,
    render_request,
)
from nat_table.endpoint import Endpoint, is_ipv6

_PATIENCE = (0.5, 1.0, 2.0)
"""Seconds that each of three questions is given, as SIP repeats them (RFC 3261 §17.1.1.2)."""


class EchoServer:
    """Answers at one UDP socket; raises OSError where it cannot be had."""

    def __init__(self, where: Endpoint) -> None:
        family = socket.AF_INET6 if is_ipv6(where.address) else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        self._socket.bind(where)

    def serve(self) -> None:
        """Answers until it is interrupted."""
        with self._socket:
            while True:
                with contextlib.suppress(OSError):  # whoever asked may be gone
                    request, source = self._socket.recvfrom(MAX_MESSAGE)
                    if response := answer(request, Endpoint(*source[:2])):
                        self._socket.sendto(response, source)


def ask_echo(server: Endpoint, address: str, device: str) -> tuple[bytes, Echo | None]:
    """Returns the INVITE as sent from an address of this router, and what the server tells of it.

    That is None where it does not answer. Raises OSError where nothing can be sent.
    """
    token = secrets.token_hex(8)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        with contextlib.suppress(PermissionError):
            asking.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        asking.bind((address, 0))
        source = Endpoint(*asking.getsockname())
        request = render_request(source, str(server), token)
        for patience in _PATIENCE:
            asking.sendto(request, server)
            until = now() + patience
            while (left := until - now()) > 0:
                asking.settimeout(left)
                try:
                    response, _ = asking.recvfrom(MAX_MESSAGE)
                except TimeoutError:
                    break
                if echo := read_answer(response, token):
                    asking.sendto(render_acknowledgement(source, str(server), token), server)
                    return request, echo
    return request, None
