"""Behind another NAT: who is on this side of it, and whether messages to others can be right.

The table has the public address. Hosts on the router's own links, such as a PBX between the two
NATs, never see it: to them the router is the address that it has on the wire. So that is what a
message to one of them names, and what one of theirs means.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Final

from alg.mappings import Mapped, Mappings
from alg.sdp.session import Media, SessionDescription
from nat_table.endpoint import endpoint_of

MAX_REMEMBERED: Final = 4096


class Outside:
    """Which address on the wire the public one stands for, and the `networks` of this side.

    With `is_hands_off` no address in a message to anybody else would be right.
    """

    __slots__ = ("_near", "is_hands_off", "networks", "public", "wire")

    def __init__(
        self,
        public: str = "",
        wire: str = "",
        networks: tuple[IPv4Network | IPv6Network, ...] = (),
        is_hands_off: bool = False,
    ) -> None:
        self.public = public
        self.wire = wire
        self.networks = networks
        self.is_hands_off = is_hands_off
        self._near: dict[str, bool] = {}

    def passes(self, remote: str) -> bool:
        """Whether all SIP with a remote is to pass as it is."""
        return self.is_hands_off and not self._is_near(remote)

    def seen_from(self, remote: str, mappings: Mappings) -> Mappings:
        """Returns what stands for what in a message to or from a remote."""
        if self.public == self.wire or not self._is_near(remote):
            return mappings
        return _OnWire(mappings, self.public.encode("ascii"), self.wire)

    def _is_near(self, address: str) -> bool:
        is_near = self._near.get(address)
        if is_near is None:
            if len(self._near) >= MAX_REMEMBERED:
                self._near.clear()
            parsed = ip_address(address)
            is_near = self._near[address] = any(parsed in network for network in self.networks)
        return is_near


class _OnWire(Mappings):
    """The mappings as hosts on the wire see them, around those of the table."""

    __slots__ = ("_host", "_mappings", "_public", "_wire")

    def __init__(self, mappings: Mappings, public: bytes, wire: str) -> None:
        super().__init__(mappings.transport)
        self._mappings = mappings
        self._public = public
        self._wire = wire
        self._host = wire.encode("ascii")

    def may_name(self, data: bytes, start: int, end: int) -> bool:
        """Whether an address that could be edited occurs in data[start:end]."""
        return data.find(self._host, start, end) >= 0 or self._mappings.may_name(data, start, end)

    def signalling(
        self, host: bytes, port: int, named: bytes, role: str, is_bare: bool
    ) -> Mapped | None:
        """Returns what stands for a signalling endpoint."""
        mapped = self._mappings.signalling(self._in_public(host), port, named, role, is_bare)
        if mapped is None:
            return None
        address, port_there = mapped.endpoint
        if address.encode("ascii") != self._public:
            return mapped
        return Mapped(endpoint_of(self._wire, port_there), mapped.is_bare)

    def contact(self, host: bytes, port: int, named: bytes, expires: int | None) -> None:
        """Takes note of a Contact."""
        self._mappings.contact(self._in_public(host), port, named, expires)

    def wildcard(self) -> None:
        """Takes note of "Contact: *"."""
        self._mappings.wildcard()

    def describe(self, session: SessionDescription) -> None:
        """Takes note of a session description, which names public addresses from then on."""
        for address in session.connections:
            address.host = self._in_public(address.host)
        for stream in session.media:
            if stream.rtcp is not None and stream.rtcp.address is not None:
                stream.rtcp.address.host = self._in_public(stream.rtcp.address.host)
        self._mappings.describe(session)

    def media(self, host: bytes, stream: Media, is_probed: bool) -> tuple[int, int] | None:
        """Returns the RTP and RTCP ports that stand for a stream's."""
        return self._mappings.media(host, stream, is_probed)

    def rtcp(self, host: bytes, port: int) -> int | None:
        """Returns the port that stands for an RTCP endpoint named apart from its stream."""
        return self._mappings.rtcp(host, port)

    def address(self, host: bytes) -> bytes | None:
        """Returns the address that stands for a host in a session description."""
        mapped = self._mappings.address(host)
        return self._host if mapped == self._public else mapped

    def _in_public(self, host: bytes) -> bytes:
        return self._public if host == self._host else host
