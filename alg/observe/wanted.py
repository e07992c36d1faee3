"""Which messages somebody wants to see: those of a call, of a phone, of a method."""

from __future__ import annotations

from dataclasses import dataclass

from alg.observe.heading import read_heading
from alg.observe.passage import Occurrence, Passage
from alg.observe.story import is_of_call, is_of_host
from nat_table.endpoint import Endpoint


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an event must be; None is anything, and port 0 any port of a host.

    Mere keepalives are never wanted.
    """

    call_id: str | None = None
    internal: Endpoint | None = None
    method: str | None = None

    def __call__(self, event: Passage | Occurrence) -> bool:
        """Tells whether an event is wanted."""
        if self.method is not None and not _has_method(event, self.method):
            return False
        if self.call_id is not None and not is_of_call(event, self.call_id):
            return False
        if self.internal is not None:
            address, port = self.internal
            if not is_of_host(event, address, port or None):
                return False
        return not (isinstance(event, Passage) and event.is_mere_keepalive)


def _has_method(event: Passage | Occurrence, method: str) -> bool:
    return isinstance(event, Passage) and read_heading(event.datagram.payload).method == method
