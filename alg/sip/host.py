"""Numeric hosts in URIs and session descriptions: one spelling of each, and which can be reached.

IPv6 has many spellings of one address, SIP puts it into brackets and SDP does not. It is read into
the one that endpoints have: compressed, lower case, no brackets. A zone id means nothing to anyone
else, and an IPv4-mapped address is no address on any wire (RFC 5118 §4.9): both are nobody's.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv6Address, ip_address

_LONGEST = 45  # characters; what is longer is no address, and not worth remembering


def canonical_host(host: bytes) -> bytes:
    """Returns a host of SIP in its one spelling; empty where what is in brackets is no address."""
    return _compressed(host[1:-1]) if host[:1] == b"[" else host


def canonical_address(text: bytes, family: int) -> bytes:
    """Returns an address of SDP in its one spelling; empty where it is not one of its family."""
    if family == 6:
        return _compressed(text)
    return b"" if b":" in text else text


def unicast_address(host: bytes) -> str | None:
    """Returns the address that a host in its one spelling is; None where nobody can be sent to it.

    That is a name, multicast, loopback, link-local IPv6, 0.0.0.0, :: and such.
    """
    return _unicast(host) if len(host) <= _LONGEST else None


@lru_cache(4096)
def _unicast(host: bytes) -> str | None:
    try:
        address = ip_address(host.decode("ascii"))
    except ValueError:
        return None
    if address.is_unspecified or address.is_loopback or address.is_multicast:
        return None
    if address.version == 6 and address.is_link_local:
        return None
    return str(address)


def _compressed(text: bytes) -> bytes:
    return _compress(text) if len(text) <= _LONGEST else b""


@lru_cache(4096)
def _compress(text: bytes) -> bytes:
    try:
        address = IPv6Address(text.decode("ascii"))
    except ValueError:
        return b""
    if address.scope_id is not None or address.ipv4_mapped is not None:
        return b""
    return str(address).encode("ascii")
