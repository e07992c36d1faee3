"""The kinds of NAT, in the words that RFC 3489 section 5 has given everybody."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from ipaddress import IPv4Address


class NatType(enum.Enum):
    """What stands between this router and the Internet; the value is what is printed."""

    OPEN = "open"
    FULL_CONE = "full cone"
    RESTRICTED = "restricted cone"
    PORT_RESTRICTED = "port restricted cone"
    SYMMETRIC = "symmetric"
    BLOCKED = "blocked"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Nat:
    """A NAT as it was found; `address` is its public one, None where nobody has answered.

    UNKNOWN is one of which only the address and the ports are known.
    """

    type: NatType
    address: str | None = None
    keeps_ports: bool = False

    @property
    def ports(self) -> str:
        """Returns what becomes of port numbers, as it is printed."""
        return "kept" if self.keeps_ports else "changed"


def is_unicast(address: str) -> bool:
    """Whether a host on the Internet, or of a carrier's network, can have this IPv4 address."""
    if ":" in address:
        return False
    parsed = IPv4Address(address)
    is_special = parsed.is_multicast or parsed.is_unspecified or parsed.is_loopback
    return not (is_special or parsed.is_reserved)
