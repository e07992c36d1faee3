"""Sockets that speak in the name of somebody else's address (IP_TRANSPARENT, ip(7))."""

from __future__ import annotations

import socket

from nat_table.endpoint import is_ipv6

_IPV6_TRANSPARENT = 75  # linux/in6.h


def transparent_socket(address: str, kind: socket.SocketKind, protocol: int = 0) -> socket.socket:
    """Returns a socket of the address's family that may be bound to, or send from, any address."""
    family = socket.AF_INET6 if is_ipv6(address) else socket.AF_INET
    made = socket.socket(family, kind, protocol)
    try:
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, _IPV6_TRANSPARENT, 1)
        else:
            made.setsockopt(socket.SOL_IP, socket.IP_TRANSPARENT, 1)
    except OSError:
        made.close()
        raise
    return made
