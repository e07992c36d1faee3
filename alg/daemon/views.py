"""What `sipnat show` asks for: mappings, connections, and why messages went as they did."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypedDict

from alg.daemon.connections import Connections
from alg.gateway import Gateway
from alg.io.clock import now
from alg.io.control import RequestRefused
from alg.upstream.grants import Grants
from alg.upstream.upstream import Upstream
from nat_table.snapshot import MappingRow, mapping_row
from nat_table.table import NatTable
from rules.backend import Backend

Row = Mapping[str, object]


class ReasonRow(TypedDict):
    """What the command line shows of a counter; these names never change."""

    reason: str
    count: int
    counted_by: str


class Views:
    """Answers `show` requests."""

    def __init__(
        self,
        gateway: Gateway,
        connections: Connections,
        backend: Backend,
        upstream: Upstream,
        grants: Grants,
    ) -> None:
        self._gateway = gateway
        self._backend = backend
        self._views: dict[str, Callable[[], Iterable[Row]]] = {
            "mappings": lambda: _mappings(gateway.table),
            "connections": connections.rows,
            "reasons": self._reasons,
            "upstream": lambda: [upstream.row(grants.count)],
        }

    def show(self, request: Row) -> Iterable[Row]:
        """Returns the rows of what is asked for; raises RequestRefused."""
        view = self._views.get(str(request.get("what")))
        if view is None:
            raise RequestRefused(f"there is nothing to show but {', '.join(self._views)}")
        return view()

    def _reasons(self) -> list[ReasonRow]:
        """Returns the counters of the engine and of the ruleset, those that are not 0 first."""
        rows: list[ReasonRow] = [
            {"reason": reason.value, "count": count, "counted_by": "gateway"}
            for reason, count in self._gateway.counters.items()
        ]
        rows += (
            {"reason": name.replace("_", "-"), "count": count, "counted_by": "kernel"}
            for name, count in sorted(self._backend.counters().items())
        )
        return sorted(rows, key=lambda row: row["count"] == 0)


def _mappings(table: NatTable) -> Iterator[MappingRow]:
    return (
        mapping_row(binding, pinholes, now())
        for binding in table.bindings()
        if (pinholes := table.pinholes(binding))
    )
