"""A packet of a call, as a firewall sees it: no packet is sent, its way is only followed."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

ANYWHERE, ANYWHERE6 = "198.41.0.4", "2001:503:ba3e::2:30"
"""An address that stands for the Internet, a.root-servers.net: no list of bogons has it."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What rules ask of a packet; `what` names it in a sentence."""

    what: str
    source: IPv4Address | IPv6Address
    destination: IPv4Address | IPv6Address
    source_port: int
    destination_port: int
    in_interface: str
    out_interface: str = ""
    """Empty where it is for the router itself."""

    protocol: str = "udp"
    state: str = "new"
    status: frozenset[str] = frozenset()
    mark: int = 0
    connection_mark: int = 0

    @property
    def families(self) -> tuple[str, str]:
        """Returns the families of nft tables that see it."""
        return "inet", f"ip{'6' if self.source.version == 6 else ''}"

    @property
    def is_signalling(self) -> bool:
        """Whether it is SIP, not media."""
        return self.what.endswith("SIP")
