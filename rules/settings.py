"""What the kernel side must know: a plain value that the daemon fills from its configuration."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv6Network

from nat_table.behavior import Filtering, Mode6

_MASKS = (0x07000000, 0x38000000, 0x00E00000)
UPLINKS = range(len(_MASKS))
"""The numbers that gateways of one network namespace may have."""


def table_name(uplink: int) -> str:
    """Returns the name of an uplink's nft table, which is also the tag of its rules elsewhere."""
    return f"sipnat{uplink or ''}"


@dataclass(frozen=True, slots=True)
class Settings:
    """Interfaces, ports and marks; port ranges include both ends.

    Raises ValueError where an external address or the prefixes are missing, or `mark_mask` has
    fewer than three bits.
    """

    internal_interfaces: tuple[str, ...]
    external_interface: str
    external_addresses: tuple[str, ...]
    """Where mappings may be; flows without one are fenced off the ports of the first."""

    sip_ports: tuple[int, ...] = (5060,)
    """Where SIP servers listen: UDP from internal hosts to these ports is captured, TCP relayed."""

    pool: tuple[int, int] = (16384, 24575)
    """Where the table draws ports from; nothing else on the router may use them."""

    fence: tuple[int, int] = (61000, 65535)
    """Where masqueraded flows are sent that would take a port of ours."""

    signalling_filter: Filtering = Filtering.ADDRESS_DEPENDENT
    media_filter: Filtering = Filtering.ENDPOINT_INDEPENDENT

    servers: tuple[str, ...] = ()
    """Networks that may always send signalling, at any rate."""

    routed: tuple[str, ...] = ()
    """Networks behind the external interface that are reached without NAT."""

    mode6: Mode6 = Mode6.OFF
    external_addresses6: tuple[str, ...] = ()
    """Where mappings of IPv6 may be under NAT66."""

    prefixes6: tuple[IPv6Network, IPv6Network] | None = None
    """The internal prefix and the external one, under NPTv6."""

    has_other_npt: bool = False
    """Whether another NPTv6 than ours translates; then TCP over IPv6 cannot be relayed."""

    has_loopback6: bool = True
    """Whether the relay can be reached by IPv6, which somebody may have switched off for `lo`."""

    relay_port: int = 0
    """Where the relay for SIP over TCP listens on loopback; 0 where TCP is left alone."""

    tls_ports: tuple[int, ...] = (5061,)
    """Where SIP over TLS is counted, and left alone."""

    request_ports: tuple[tuple[str, int], ...] = ()
    """Where the router answers requests for mappings: protocols and ports."""

    flood_rate: int = 1000
    """How many packets of signalling a second one outside address may send."""

    queue_number: int = 5060
    is_fail_open: bool = True
    """Whether signalling passes unchanged while nobody listens to the queue."""

    uplink: int = 0
    """Which uplink of the router this is, from 0 to 2: each has a table, a mark and a tag."""

    mark_mask: int = 0
    """The bits of the packet mark and the conntrack mark that are ours; 0 for the uplink's own."""

    def __post_init__(self) -> None:
        if not self.external_addresses:
            raise ValueError("the kernel side needs an external address")
        if self.mode6 is Mode6.NAT66 and not self.external_addresses6:
            raise ValueError("NAT66 needs an external IPv6 address")
        if self.mode6 is Mode6.NPTV6 and not self.prefixes6:
            raise ValueError("NPTv6 needs both prefixes")
        if not self.mark_mask:
            object.__setattr__(self, "mark_mask", _MASKS[self.uplink])
        if self.mark_mask.bit_count() < 3:
            raise ValueError(f"mark mask {self.mark_mask:#x} has fewer than three bits")

    @property
    def table(self) -> str:
        """Returns the name of our nft table, which is also the tag of our rules in others'."""
        return table_name(self.uplink)

    @property
    def fence_address(self) -> str:
        """Returns the address that flows without a mapping are masqueraded to."""
        return self.external_addresses[0]

    @property
    def fence_address6(self) -> str:
        """Returns the same of IPv6; there is none where ports stay."""
        return self.external_addresses6[0] if self.mode6 is Mode6.NAT66 else ""

    @property
    def queue_mark(self) -> int:
        """Returns the mark bit of packets that go to the queue."""
        return self.mark_mask & -self.mark_mask

    @property
    def open_mark(self) -> int:
        """Returns the mark bit of flows of our mappings: what an admin's own rules may accept."""
        above = self.mark_mask & ~self.queue_mark
        return above & -above

    @property
    def relay_mark(self) -> int:
        """Returns the mark bit of packets for sockets of ours: the relay's, and of requests."""
        above = self.mark_mask & ~self.queue_mark & ~self.open_mark
        return above & -above

    @property
    def has_own_sockets(self) -> bool:
        """Whether packets for the router itself are marked, so that its firewall may know them."""
        return self.relay_port > 0 or bool(self.request_ports)

    @property
    def routing_table(self) -> int:
        """Returns the number of the routing table that leads them there."""
        return 50600 + self.uplink

    @property
    def is_relaying6(self) -> bool:
        """Whether SIP over TCP and IPv6 is relayed."""
        is_possible = self.has_loopback6 and not self.has_other_npt
        return self.relay_port > 0 and self.mode6 is not Mode6.OFF and is_possible
