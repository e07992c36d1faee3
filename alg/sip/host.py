"""Numeric hosts in URIs and session descriptions: one spelling of each, and which can be reached.

IPv6 has many spellings of one address, SIP puts it into brackets and SDP does not. It is read into
the one that endpoints have: compressed, lower case, no brackets. A zone id means nothing to anyone
else, and an IPv4-mapped address is no address on any wire (RFC 5118 §4.9): both are nobody's.
"""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address
from typing import Final

_LONGEST: Final = 45  # characters; what is longer is no address, and not worth remembering
_MOST: Final = 4096  # hosts of each kind that are kept; phones and servers name the same ones
_unicast: Final[dict[bytes, str]] = {}  # empty where nobody can be sent to it
_compressed_hosts: Final[dict[bytes, bytes]] = {}


def canonical_host(host: bytes) -> bytes:
    """Returns a host of SIP in its one spelling; empty where what is in brackets is no address."""
    # Not [1:-1]: of one octet alone, compiled code does not make that slice.
    return _compressed(host[1:][:-1]) if host[:1] == b"[" else host


def canonical_address(text: bytes, family: int) -> bytes:
    """Returns an address of SDP in its one spelling; empty where it is not one of its family."""
    if family == 6:
        return _compressed(text)
    return b"" if b":" in text else text


def unicast_address(host: bytes) -> str | None:
    """Returns the address that a host in its one spelling is; None where nobody can be sent to it.

    That is a name, multicast, loopback, link-local IPv6, 0.0.0.0, :: and such.
    """
    if len(host) > _LONGEST:
        return None
    known = _unicast.get(host)
    if known is None:
        if len(_unicast) >= _MOST:
            _unicast.clear()
        known = _unicast[host] = _read_unicast(host) or ""
    return known or None


def _read_unicast(host: bytes) -> str | None:
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
    if len(text) > _LONGEST:
        return b""
    known = _compressed_hosts.get(text)
    if known is None:
        if len(_compressed_hosts) >= _MOST:
            _compressed_hosts.clear()
        known = _compressed_hosts[text] = _read_ipv6(text)
    return known


def _read_ipv6(text: bytes) -> bytes:
    try:
        address = IPv6Address(text.decode("ascii"))
    except ValueError:
        return b""
    if address.scope_id is not None or address.ipv4_mapped is not None:
        return b""
    return str(address).encode("ascii")
