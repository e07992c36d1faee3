"""How the table behaves, in the terms of RFC 4787 and RFC 6888.

Only what an administrator may turn is a field here. The rest is what the table *is*, and has no
switch: endpoint-independent mapping (RFC 4787 REQ-1), paired address pooling (REQ-2), no port
overloading (REQ-3), port parity (REQ-4), and the same behaviour under load as without (REQ-11).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Filtering(enum.Enum):
    """Which remotes may send to an external endpoint (RFC 4787 §5); enforced by the kernel."""

    ENDPOINT_INDEPENDENT = "endpoint-independent"
    """Any."""

    ADDRESS_DEPENDENT = "address-dependent"
    """Those whose address was signalled, and those the internal endpoint has sent to."""

    LATCH = "latch"
    """Whoever sends first, from the network of a signalled address if there is one (RFC 7362)."""


class Mode6(enum.Enum):
    """What becomes of IPv6 between the internal and the external side."""

    OFF = "off"
    """Nothing: IPv6 is not looked at."""

    PINHOLE = "pinhole"
    """Routed: addresses stay as they are, and a stateful firewall is opened."""

    NAT66 = "nat66"
    """Many internal addresses behind one external, as in IPv4."""

    NPTV6 = "nptv6"
    """One prefix in the place of another, ports stay (RFC 6296)."""


@dataclass(frozen=True, slots=True)
class Behavior:
    """The knobs of a `NatTable`; port ranges include both ends, timeouts are in seconds.

    Raises ValueError where the pool is empty, reaches below 1024, or touches the fence.
    """

    pool: tuple[int, int] = (16384, 24575)
    """Where ports are drawn from when the phone's own is not free (RFC 6056 §3.2)."""

    preserve_ports: bool = True
    """Whether the phone's own port is tried first: any from 1024 up (RFC 4787 §4.2.1, REQ-3b)."""

    fence: tuple[int, int] = (61000, 65535)
    """Where the ruleset sends masqueraded flows that clash with the table; never given out."""

    denied_ports: frozenset[int] = frozenset()
    """Never given out: the router's own services and whatever else must not be reached."""

    quarantine_timeout: float = 120.0
    """How long a freed port is kept from everyone but its last owner (RFC 6888 REQ-8)."""

    max_mappings: int = 65536
    """The most bindings at a time."""

    max_mappings_per_host: int = 1024
    """The most bindings at a time for one internal address (RFC 6888 REQ-4)."""

    max_new_per_second: int = 1000
    """The most bindings that one internal address may open within a second."""

    flow_timeout: float = 300.0
    """How long a binding outlives the last packet when nothing was signalled (RFC 4787 REQ-5)."""

    @property
    def max_leases(self) -> int:
        """The most bindings that clients may ask for, all together: what calls need is left."""
        low, high = self.pool
        return min(self.max_mappings, high - low + 1) // 2

    def __post_init__(self) -> None:
        low, high = self.pool
        if not 1024 <= low <= high <= 65535:
            raise ValueError(f"pool {low}-{high} is not a range within 1024-65535")
        if low <= self.fence[1] and self.fence[0] <= high:
            raise ValueError(f"pool {low}-{high} touches the fence {self.fence}")
