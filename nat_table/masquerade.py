"""What the kernel does for sockets without a mapping, as far as it binds those that get one."""

from __future__ import annotations

from collections.abc import Callable

from nat_table.endpoint import Endpoint
from nat_table.table import NatTable

Masqueraded = Callable[[Endpoint], Endpoint | None]
"""Returns the external endpoint that an unmapped UDP socket has, if it has just one."""


def seen_port(table: NatTable, masqueraded: Masqueraded, internal: Endpoint) -> int | None:
    """Returns the port by which an unmapped UDP socket is seen by remotes already.

    That is what a STUN server has told its owner (RFC 8489), so a mapping is to keep it.
    """
    host = table.external_address(internal.address)
    if host in (None, internal.address):
        return None
    seen = masqueraded(internal)
    return seen.port if seen is not None and seen.address == host else None
