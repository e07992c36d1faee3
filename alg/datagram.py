"""A UDP payload on its way through the router: between which endpoints, and which way."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from alg.verdict import Direction
from nat_table.endpoint import Endpoint, Transport


class Side(enum.Enum):
    """Which side of the NAT an interface or address is on."""

    INTERNAL = "internal"
    EXTERNAL = "external"
    OTHER = "other"


_DIRECTIONS: dict[tuple[Side, Side], Direction] = {
    (Side.INTERNAL, Side.EXTERNAL): Direction.OUTBOUND,
    (Side.EXTERNAL, Side.INTERNAL): Direction.INBOUND,
    (Side.INTERNAL, Side.INTERNAL): Direction.HAIRPIN,
}


@dataclass(frozen=True, slots=True)
class Datagram:
    """A UDP payload, its endpoints in internal form, and the sides it comes from and goes to.

    A message framed out of a TCP stream is one too, with that `transport`.
    """

    source: Endpoint
    destination: Endpoint
    payload: bytes
    came_from: Side = Side.INTERNAL
    goes_to: Side = Side.EXTERNAL
    transport: Transport = Transport.UDP

    @property
    def direction(self) -> Direction:
        """Which way the datagram crosses the NAT, by the sides it comes from and goes to."""
        return _DIRECTIONS.get((self.came_from, self.goes_to), Direction.NONE)
