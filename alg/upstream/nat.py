"""The kinds of NAT, in the words that RFC 3489 section 5 has given everybody."""

from __future__ import annotations

import enum
from dataclasses import dataclass


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
