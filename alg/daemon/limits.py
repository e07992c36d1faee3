"""How much of each limit is used: by all together, and by the hosts that are nearest to theirs.

A limit has the name of its key in the configuration, or one of its own where it has no key.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from typing import TypedDict

from alg.gateway import Gateway
from nat_table.hosts import MAX_FILTERS, MAX_FILTERS_PER_HOST

NEAREST = 3


class LimitRow(TypedDict):
    """What the command line shows of a limit; these names never change.

    `of` is whose it is: an internal host, an external address, or None where all share it, or no
    host has anything of it.
    """

    limit: str
    counts: str
    of: str | None
    used: int
    max: int


def limit_rows(
    gateway: Gateway, connections: int, max_connections: int, host: str | None, now: float
) -> Iterator[LimitRow]:
    """Yields each limit, for one host or for those nearest to it."""
    table, state = gateway.table, gateway.state
    hosts, behavior = table.hosts, table.hosts.behavior
    if host is None:
        yield _row("max_mappings", "mappings", None, len(table), behavior.max_mappings)
        for transport, space in table.spaces.items():
            for address, pool in space.pools.items():
                yield _row("ports", f"{transport.label} ports", address, *pool.usage())
        yield _row("leases", "mappings on request", None, hosts.leased, behavior.max_leases)
        yield _row("filters", "filters", None, sum(hosts.filters().values()), MAX_FILTERS)
        yield _row("max_connections", "connections", None, connections, max_connections)
    calls, unanswered = state.calls.quotas
    registrations, subscriptions = state.registrations.quota, state.subscriptions.quota
    for limit, counts, most, used in (
        ("max_mappings_per_host", "mappings", behavior.max_mappings_per_host, hosts.counts()),
        (
            "max_new_mappings_per_second",
            "new mappings",
            behavior.max_new_per_second,
            hosts.recent_counts(now),
        ),
        ("filters_per_host", "filters", MAX_FILTERS_PER_HOST, hosts.filters()),
        ("max_calls_per_host", calls.what, calls.limit, calls.counts()),
        ("max_unanswered_per_host", unanswered.what, unanswered.limit, unanswered.counts()),
        *(
            ("max_registrations_per_host", each.what, each.limit, each.counts())
            for each in (registrations, subscriptions)
        ),
    ):
        for name, count in _nearest(used, host):
            yield _row(limit, counts, name, count, most)


def _nearest(used: Mapping[str, int], host: str | None) -> list[tuple[str | None, int]]:
    """Returns who uses most, or the host alone; nobody, with 0, where there is none."""
    if host is not None:
        return [(host, used.get(host, 0))]
    most = heapq.nlargest(NEAREST, used.items(), key=lambda item: item[1])
    return [*most] or [(None, 0)]


def _row(limit: str, counts: str, of: str | None, used: int, most: int) -> LimitRow:
    return {"limit": limit, "counts": counts, "of": of, "used": used, "max": most}
