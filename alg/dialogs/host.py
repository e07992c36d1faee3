"""Numeric hosts in URIs and session descriptions: what can be reached by the address it spells."""

from __future__ import annotations

import functools
from ipaddress import IPv4Address


@functools.lru_cache(maxsize=4096)
def unicast_address(host: bytes) -> str | None:
    """Returns the IPv4 address that a host spells, None for a name, multicast, 0.0.0.0 and such."""
    try:
        address = IPv4Address(host.decode("ascii"))
    except ValueError:
        return None
    if address.is_unspecified or address.is_loopback or address.is_multicast:
        return None
    return str(address)
