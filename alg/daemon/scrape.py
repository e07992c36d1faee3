"""What metrics say at the moment: gathered when somebody asks, in steps with time for packets.

Only messages are counted as they come (`alg.observe.metrics`); all else stands somewhere anyway.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator

from alg.config import Config
from alg.daemon.connections import Connections
from alg.daemon.ledger import Ledger
from alg.daemon.limits import LimitRow, limit_rows
from alg.gateway import Gateway
from alg.io.clock import now
from alg.observe.family import Described, Distribution, Family
from alg.observe.media_activity import MediaActivity
from alg.observe.metrics import Metrics
from alg.version import version
from nat_table.binding import Kind
from nat_table.endpoint import Transport
from nat_table.lease import Source, source_of
from nat_table.table import NatTable
from rules.backend import Backend
from rules.inspection import read_conntrack, read_queue

COUNTED_AT_ONCE = 1000


class Scrape:
    """Gathers what metrics say; `metrics` are told of messages while somebody may ask."""

    def __init__(
        self,
        config: Config,
        gateway: Gateway,
        ledger: Ledger,
        backend: Backend,
        connections: Connections,
        media: MediaActivity,
    ) -> None:
        self._config = config
        self._gateway = gateway
        self._ledger = ledger
        self._backend = backend
        self._connections = connections
        self._media = media
        self.metrics = Metrics()

    async def read(self) -> list[Described]:
        """Returns every metric, also those that have no value here."""
        mappings = await count_mappings(self._gateway.table)
        connections, most = len(self._connections), self._config.max_connections
        return [
            *self._of_gateway(),
            *_of_limits(limit_rows(self._gateway, connections, most, None, now())),
            Family(
                "mappings",
                "Mappings that stand, by what they carry and who has asked for them.",
                mappings,
                ("transport", "kind", "source"),
            ),
            *self._of_media(),
            *self._of_messages(),
            *self._of_kernel(),
        ]

    def _of_gateway(self) -> Iterator[Family]:
        gateway = self._gateway
        yield Family("build_info", "The version that runs.", {(version(),): 1}, ("version",))
        yield Family(
            "draining", "Whether it takes no new calls (sipnat drain).", {(): gateway.is_draining}
        )
        yield Family(
            "kernel_behind",
            "Whether the kernel lacks what the table says, to be mended before long.",
            {(): self._ledger.is_behind},
        )
        yield Family("calls", "Calls that have not ended.", {(): gateway.open_call_count})
        yield Family(
            "registrations", "Registrations that have state.", {(): gateway.registration_count}
        )

    def _of_media(self) -> Iterator[Family]:
        total = self._media.total
        yield Family(
            "media_packets_total",
            "Packets of media, of the calls that are watched.",
            {("outbound",): total.sent, ("inbound",): total.received},
            ("direction",),
        )
        yield Family(
            "media_bytes_total",
            "What these packets had, in bytes of IP.",
            {("outbound",): total.sent_bytes, ("inbound",): total.received_bytes},
            ("direction",),
        )
        yield Family(
            "media_one_way",
            "Streams of calls that should go both ways, and have one side silent.",
            {(): self._media.suspects},
        )

    def _of_messages(self) -> Iterator[Described]:
        metrics, counters = self.metrics, self._gateway.counters
        yield Family(
            "messages_total",
            "SIP messages, and what looked like some; kind is request, or the class of a response.",
            {
                (
                    each.method,
                    each.kind,
                    each.direction.value,
                    each.verdict.value,
                    each.reason.value,
                ): count
                for each, count in metrics.messages.items()
            },
            ("method", "kind", "direction", "verdict", "reason"),
        )
        yield Distribution(
            "message_duration_seconds",
            "From when a message was taken up until its verdict.",
            metrics.decisions,
        )
        yield Distribution(
            "commit_duration_seconds",
            "How long the kernel took for the mappings of a message.",
            metrics.commits,
        )
        yield Family(
            "reasons_total",
            "Messages, and TCP connections, by why they went as they did.",
            {(reason.value,): count for reason, count in counters.items()},
            ("reason",),
        )

    def _of_kernel(self) -> Iterator[Family]:
        packets = self._backend.counters()
        yield Family(
            "kernel_packets_total",
            "Packets that a rule has counted.",
            {(name.replace("_", "-"),): count for name, count in packets.items()},
            ("rule",),
        )
        queue = read_queue(self._config.queue_number)
        yield Family(
            "queue_packets",
            "Packets that wait in the netfilter queue.",
            {(): queue.waiting} if queue else {},
        )
        yield Family(
            "queue_dropped_total",
            "Packets that found the queue or its socket full; they have passed, or were dropped.",
            {("queue",): queue.refused, ("socket",): queue.undelivered} if queue else {},
            ("full",),
        )
        conntrack = read_conntrack()
        yield Family(
            "conntrack_flows",
            "Flows that this network namespace follows.",
            {(): conntrack.flows} if conntrack else {},
        )
        yield Family(
            "conntrack_flows_limit",
            "Flows that it can follow; more are dropped.",
            {(): conntrack.max_flows} if conntrack else {},
        )


def _of_limits(rows: Iterable[LimitRow]) -> Iterator[Family]:
    """Yields how much of each limit is used; of a host's by the host that is nearest to it."""
    used: dict[tuple[str, ...], float] = {}
    most: dict[tuple[str, ...], float] = {}
    for row in rows:
        of = row["of"] if row["limit"] == "ports" else None
        key = row["limit"], row["counts"], of or ""
        if key not in most:
            used[key], most[key] = row["used"], row["max"]
    labels = ("limit", "counts", "of")
    yield Family("limit_used", "How much of each limit is used, by whom most.", used, labels)
    yield Family("limit_max", "The limits: of all, of an address, of a host.", most, labels)


async def count_mappings(table: NatTable) -> dict[tuple[str, ...], float]:
    """Counts mappings by transport, kind and source, with the loop free now and then."""
    counts: Counter[tuple[Transport, Kind, Source]] = Counter()
    for number, binding in enumerate(table.bindings(), 1):
        source = source_of(table.pinholes(binding)) if table.is_leased(binding) else Source.SIP
        counts[binding.transport, binding.kind, source] += 1
        if not number % COUNTED_AT_ONCE:
            await asyncio.sleep(0)
    return {
        (transport.label, kind.value, source.value): count
        for (transport, kind, source), count in counts.items()
    }
