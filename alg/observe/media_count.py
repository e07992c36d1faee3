"""Media in a capture: how many packets each mapping has passed, by whose call it is.

A capture from both sides of the NAT has each packet twice, with the internal endpoint and with the
external one. Both are counted by themselves, and what counts is the larger number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from alg.observe.capture import Arrival
from alg.observe.entry import StreamEntry
from nat_table.binding import Binding, Kind
from nat_table.endpoint import Endpoint
from nat_table.table import NatTable


@dataclass(slots=True)
class _Count:
    """Packets by whether the phone has sent them, and by whether the endpoint was the internal."""

    call_id: str
    remote: Endpoint | None = None
    packets: Counter[tuple[bool, bool]] = field(default_factory=Counter)


class MediaCount:
    """Counts packets by the mappings of a table."""

    def __init__(self, table: NatTable) -> None:
        self._table = table
        self._counts: dict[Binding, _Count] = {}

    def see(self, arrival: Arrival) -> None:
        """Counts a packet, if it is of a mapping for media."""
        ends = ((arrival.source, arrival.destination), (arrival.destination, arrival.source))
        for is_sent, (end, other) in zip((True, False), ends, strict=True):
            for is_internal, look_up in (
                (True, self._table.look_up_internal),
                (False, self._table.look_up_external),
            ):
                binding = look_up(arrival.transport, end)
                if binding is not None and binding.kind is not Kind.SIP:
                    count = self._count(binding)
                    count.remote = other
                    count.packets[is_sent, is_internal] += 1
                    break

    def streams(self, call_id: str) -> Iterator[StreamEntry]:
        """Yields the streams of a call."""
        for binding, count in self._counts.items():
            if count.call_id == call_id:
                packets = count.packets
                yield StreamEntry(
                    binding.kind.value,
                    str(binding.internal),
                    str(binding.external),
                    str(count.remote) if count.remote else None,
                    None,
                    max(packets[True, True], packets[True, False]),
                    max(packets[False, True], packets[False, False]),
                )

    def _count(self, binding: Binding) -> _Count:
        if binding not in self._counts:
            owners = (pinhole.owner for pinhole in self._table.pinholes(binding))
            call_id = next((owner.call_id for owner in owners if owner.scope == "call"), "")
            self._counts[binding] = _Count(call_id)
        return self._counts[binding]
