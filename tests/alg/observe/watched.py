"""A playbook whose messages are watched: each becomes a passage, as in the daemon."""

from __future__ import annotations

from alg.datagram import Datagram, Side
from alg.observe.passage import Occurrence, Passage
from alg.verdict import Outcome
from nat_table.endpoint import Endpoint, Transport
from tests.alg.playbook import Playbook, sip


class Watched(Playbook):
    """A playbook that keeps what a watcher would be told of: `events`."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[Passage | Occurrence] = []

    @property
    def passages(self) -> list[Passage]:
        """The messages alone."""
        return [event for event in self.events if isinstance(event, Passage)]

    def send(
        self,
        message: bytes | str,
        source: Endpoint,
        destination: Endpoint,
        came_from: Side,
        goes_to: Side,
        *,
        now: float | None = None,
        is_confirmed: bool = True,
        transport: Transport = Transport.UDP,
    ) -> Outcome:
        outcome = super().send(
            message,
            source,
            destination,
            came_from,
            goes_to,
            now=now,
            is_confirmed=is_confirmed,
            transport=transport,
        )
        payload = sip(message) if isinstance(message, str) else message
        datagram = Datagram(source, destination, payload, came_from, goes_to, transport)
        ends = (self.table.look_up_internal(transport, end) for end in (source, destination))
        external = [binding.external if binding else None for binding in ends]
        commit = 0.0002 if outcome.changes else 0.0
        self.events.append(Passage(self.now, 0.0005, commit, datagram, outcome, *external))
        return outcome

    def wait(self, seconds: float) -> None:
        told = len(self.changes)
        super().wait(seconds)
        if changes := tuple(self.changes[told:]):
            self.events.append(Occurrence(self.now, "expired", changes))
