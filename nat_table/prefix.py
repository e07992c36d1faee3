"""One IPv6 prefix in the place of another, address by address (RFC 6296).

The translation has no state: the host keeps its ports, and one word of the address is changed so
that the sum over the pseudo-header stays as it was (checksum neutral, RFC 6296 §3.1). A prefix in
the place of itself is the identity, which is how a routed network without NAT is kept in the table.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network

_ONES = 0xFFFF  # the other zero of ones' complement: never written, for it could not be read back
_ALL_ONES_IDENTIFIER = (1 << 64) - 1
_SUBNET = 64  # how far the word of bits 48-63 stands from the right
_IDENTIFIER_WORDS = (48, 32, 16, 0)


class PrefixTranslation:
    """Between an internal and an external prefix of the same length, 64 bits at the most.

    Raises ValueError where the lengths differ or are longer.
    """

    __slots__ = ("_numbers", "external", "internal")

    def __init__(self, internal: IPv6Network, external: IPv6Network) -> None:
        if internal.prefixlen != external.prefixlen:
            raise ValueError(f"{internal} and {external} are not of one length")
        if internal.prefixlen > 64:
            raise ValueError(f"{internal} is longer than 64 bits")
        self.internal = internal
        self.external = external
        self._numbers = int(internal.network_address), int(external.network_address)

    @property
    def is_identity(self) -> bool:
        """Whether addresses stay as they are."""
        return self.internal == self.external

    def to_external(self, address: str) -> str | None:
        """Returns the external address of an internal one; None where it has none.

        That is outside the prefix, and for what could not be mapped back: an interface identifier
        of all ones (RFC 6296 §3.7), and subnet ffff of a prefix of 48 bits or less.
        """
        internal, external = self._numbers
        return _mapped(address, internal, external, self.internal.prefixlen)

    def to_internal(self, address: str) -> str | None:
        """Returns the internal address behind an external one."""
        internal, external = self._numbers
        return _mapped(address, external, internal, self.internal.prefixlen)


ROUTED = PrefixTranslation(IPv6Network("::/0"), IPv6Network("::/0"))
"""Every address in the place of itself."""


@lru_cache(4096)
def _mapped(address: str, old: int, new: int, length: int) -> str | None:
    """Returns what an address under one prefix is under another of this length."""
    try:
        number = int(IPv6Address(address))
    except ValueError:
        return None
    kept = number & (1 << 128 - length) - 1
    if number - kept != old:
        return None
    if old == new:
        return address
    if kept & _ALL_ONES_IDENTIFIER == _ALL_ONES_IDENTIFIER:
        return None
    words = (_SUBNET,) if length <= 48 else _IDENTIFIER_WORDS
    shift = next((each for each in words if kept >> each & _ONES != _ONES), None)
    if shift is None:
        return None
    word = kept >> shift & _ONES
    # 2^16 is 1 modulo 65,535: the sum of a prefix's words is its number, and what is left of a
    # division never comes to 65,535 itself.
    kept += (word + old - new) % _ONES - word << shift
    return str(IPv6Address(new + kept))
