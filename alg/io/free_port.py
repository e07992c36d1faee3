"""A port of a host that no socket has, as far as can be told from here."""

from __future__ import annotations

import errno
import secrets
import socket
from collections.abc import Container

from nat_table.endpoint import is_ipv6

LOWEST, HIGHEST = 49152, 65535
"""The dynamic ports (RFC 6335 §6)."""

_ATTEMPTS = 64


def free_port(
    host: str,
    kind: socket.SocketKind,
    *,
    is_even: bool,
    count: int = 1,
    taken: Container[int] = (),
) -> int | None:
    """Draws the first of so many ports in a row that are free and not `taken`.

    None where it finds none. On another host than this one every port is free.
    """
    for _ in range(_ATTEMPTS):
        first = LOWEST + 2 * secrets.randbelow((HIGHEST - LOWEST) // 2) + (not is_even)
        row = range(first, first + count)
        if all(port not in taken and _is_free(host, kind, port) for port in row):
            return first
    return None


def _is_free(host: str, kind: socket.SocketKind, port: int) -> bool:
    family = socket.AF_INET6 if is_ipv6(host) else socket.AF_INET
    with socket.socket(family, kind) as probe:
        try:
            probe.bind((host, port))
        except OSError as error:
            return error.errno == errno.EADDRNOTAVAIL
    return True
