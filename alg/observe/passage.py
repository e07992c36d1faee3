"""One message on its way through the gateway, for whoever watches: as it came, and as it left.

A passage refers to what the packet path has made anyway; what is shown of it is made when somebody
asks. The engine works in internal form on both sides, so the external endpoints that stood for the
internal ones are kept with it: `came` and `left` are what a capture on either side would show.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from alg.datagram import Datagram, Side
from alg.verdict import Direction, Outcome, Reason, Verdict
from nat_table.changes import Change
from nat_table.endpoint import Endpoint


class Sight(NamedTuple):
    """A message as a capture on one side of the gateway would show it."""

    side: Side
    source: Endpoint
    destination: Endpoint
    payload: bytes


class Passage(NamedTuple):
    """One message, and what became of it.

    `time` is when it came, in seconds since boot; `took` until its verdict and `commit` in the
    kernel, in seconds, the latter 0.0 where there was nothing to commit. `external_source` and
    `external_destination` stand for the ends that are internal, None where they are not mapped.
    """

    time: float
    took: float
    commit: float
    datagram: Datagram
    outcome: Outcome
    external_source: Endpoint | None
    external_destination: Endpoint | None

    @property
    def is_mere_keepalive(self) -> bool:
        """Whether it is a keepalive that changed nothing: they are many, and tell nothing."""
        return self.outcome.reason is Reason.KEEPALIVE and not self.outcome.changes

    @property
    def came(self) -> Sight:
        """The message as it came."""
        datagram, destination = self.datagram, self.datagram.destination
        if datagram.direction in (Direction.INBOUND, Direction.HAIRPIN):
            destination = self.external_destination or destination
        return Sight(datagram.came_from, datagram.source, destination, datagram.payload)

    @property
    def left(self) -> Sight | None:
        """The message as it left, None where it did not."""
        if self.outcome.verdict in (Verdict.DROPPED, Verdict.HELD):
            return None
        datagram, source = self.datagram, self.datagram.source
        if datagram.direction in (Direction.OUTBOUND, Direction.HAIRPIN):
            source = self.external_source or source
        return Sight(datagram.goes_to, source, datagram.destination, self.outcome.payload)


@dataclass(frozen=True, slots=True)
class Occurrence:
    """Changes of the table without a message; `what` says in a word what they were.

    "expired", "moved" (to another external address), "dropped", "requested" (by a client).
    """

    time: float
    what: str
    changes: tuple[Change, ...]
