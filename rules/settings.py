"""What the kernel side must know: a plain value that the daemon fills from its configuration."""

from __future__ import annotations

from dataclasses import dataclass

from nat_table.behavior import Filtering


@dataclass(frozen=True, slots=True)
class Settings:
    """Interfaces, ports and marks; port ranges include both ends.

    Raises ValueError where there is no external address, or `mark_mask` has fewer than two bits.
    """

    internal_interfaces: tuple[str, ...]
    external_interface: str
    external_addresses: tuple[str, ...]
    """Where mappings may be; flows without one are fenced off the ports of the first."""

    sip_ports: tuple[int, ...] = (5060,)
    """Where SIP servers listen: UDP from internal hosts to these ports is captured."""

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
        if not self.mark_mask:
            own_mask = 0x07000000 << 3 * self.uplink & 0xFFFFFFFF
            object.__setattr__(self, "mark_mask", own_mask)
        if self.mark_mask.bit_count() < 2:
            raise ValueError(f"mark mask {self.mark_mask:#x} has fewer than two bits")

    @property
    def table(self) -> str:
        """Returns the name of our nft table, which is also the tag of our rules in others'."""
        return f"sipnat{self.uplink or ''}"

    @property
    def queue_mark(self) -> int:
        """Returns the mark bit of packets that go to the queue."""
        return self.mark_mask & -self.mark_mask

    @property
    def open_mark(self) -> int:
        """Returns the mark bit of flows of our mappings: what an admin's own rules may accept."""
        above = self.mark_mask & ~self.queue_mark
        return above & -above
