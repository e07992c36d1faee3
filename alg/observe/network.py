"""Where the gateway of `sipnat explain` stands: what is internal, what stands for it outside."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from alg.sip.host import unicast_address
from nat_table.endpoint import is_ipv6
from nat_table.prefix import ROUTED, PrefixTranslation


class Network:
    """The internal networks, and an external address for each family, or a prefix for IPv6.

    IPv6 that has neither is routed. Raises ValueError, one sentence, where one of them is none, is
    the second of its family, or is missing.
    """

    def __init__(self, internal: Sequence[str], external: Sequence[str]) -> None:
        if not internal:
            raise ValueError("internal is missing: give --internal")
        self._internal = [_network(cidr) for cidr in internal]
        self.translation: PrefixTranslation | None = ROUTED
        found: dict[int, str] = {}
        for text in external:
            version = 6 if is_ipv6(text) else 4
            if version in found:
                raise ValueError(f'--external is "{text}", allowed is one for each family')
            if version == 6:
                self.translation = self._translation(text) if "/" in text else None
            found[version] = text if "/" in text and version == 6 else _address(text)
        if 4 not in found and any(network.version == 4 for network in self._internal):
            raise ValueError("external is missing: give --external")
        self.external_addresses = tuple(each for each in found.values() if "/" not in each)

    def is_internal(self, address: str) -> bool:
        """Whether a host is internal; the router's own external addresses are not."""
        if self.is_external(address):
            return False
        parsed = ip_address(address)
        return any(parsed in network for network in self._internal)

    def is_external(self, address: str) -> bool:
        """Whether an address stands for internal hosts."""
        if address in self.external_addresses:
            return True
        translation = self.translation
        if translation is None or translation.is_identity:
            return False
        return translation.to_internal(address) is not None

    def is_routed(self, address: str) -> bool:
        """Whether packets to this address cross the router: to one host, of more than a link."""
        parsed = ip_address(address)
        is_near = parsed.version == 6 and parsed.is_link_local
        return not (is_near or parsed.is_multicast or address == "255.255.255.255")

    def _translation(self, external: str) -> PrefixTranslation:
        """Returns what puts this prefix into the place of the internal one of IPv6."""
        try:
            (prefix,) = (each for each in self._internal if isinstance(each, IPv6Network))
            return PrefixTranslation(prefix, IPv6Network(external, strict=False))
        except ValueError:
            raise ValueError(
                f'--external is "{external}", allowed is a prefix as long as that of the one '
                "IPv6 network in --internal, 64 bits at the most"
            ) from None


def _network(cidr: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(cidr, strict=False)
    except ValueError:
        raise ValueError(
            f'--internal is "{cidr}", allowed is a network such as 10.0.0.0/8'
        ) from None


def _address(text: str) -> str:
    address = unicast_address(text.encode())
    if address is None:
        raise ValueError(f'--external is "{text}", allowed is an address of one host')
    return address
