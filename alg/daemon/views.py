"""What `sipnat show` asks for: one view for each kind of row, and the filters that it heeds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import NamedTuple, NotRequired, TypedDict

from alg.daemon.connections import ConnectionRow, Connections
from alg.daemon.kernel_view import KernelView
from alg.daemon.ledger import Ledger
from alg.daemon.limits import LimitRow, limit_rows
from alg.daemon.mapping_view import MappingView
from alg.daemon.selection import FILTERS, Selection, parse_selection
from alg.gateway import Gateway
from alg.io.clock import now
from alg.io.control import Request, RequestRefused, Rows
from alg.upstream.grants import Grants
from alg.upstream.upstream import Upstream
from nat_table.endpoint import parse_endpoint
from nat_table.snapshot import seconds_left
from rules.backend import Backend

Answer = Rows | Awaitable[Rows]


class ReasonRow(TypedDict):
    """What the command line shows of a counter; these names never change."""

    reason: str
    count: int
    counted_by: str


class RegistrationRow(TypedDict):
    """What the command line shows of a registration; these names never change.

    `user` is there only where it is asked for.
    """

    phone: str
    registrar: str | None
    mapping: str
    transport: str
    call_id: str
    expires_in: float | None
    user: NotRequired[str]


class View(NamedTuple):
    """How rows of a kind are made of a request, and by which of its keys they can be chosen."""

    rows: Callable[[Request, Selection], Answer]
    filters: tuple[str, ...] = ()


class Views:
    """Answers `show` requests."""

    def __init__(
        self,
        gateway: Gateway,
        connections: Connections,
        backend: Backend,
        ledger: Ledger,
        upstream: Upstream,
        grants: Grants,
        max_connections: int,
    ) -> None:
        self._gateway = gateway
        self._connections = connections
        self._backend = backend
        self._max_connections = max_connections
        mappings = MappingView(gateway.table, backend)
        kernel = KernelView(gateway.table, ledger, backend)
        self._views = {
            "mappings": View(
                lambda request, selection: (
                    mappings.counted_rows(selection)
                    if request.get("counters")
                    else mappings.rows(selection)
                ),
                FILTERS,
            ),
            "connections": View(self._open_connections, ("internal",)),
            "registrations": View(self._registrations, ("internal", "call_id")),
            "reasons": View(lambda request, selection: self._reasons()),
            "limits": View(self._limits, ("internal",)),
            "kernel": View(lambda request, selection: kernel.rows()),
            "upstream": View(lambda request, selection: [upstream.row(grants.count)]),
        }

    def add(self, what: str, view: View) -> None:
        """Shows one more kind of row."""
        self._views[what] = view

    def show(self, request: Request) -> Answer:
        """Returns the rows of what is asked for; raises RequestRefused."""
        view = self._views.get(str(request.get("what")))
        if view is None:
            raise RequestRefused(f"there is nothing to show but {', '.join(self._views)}")
        return view.rows(request, parse_selection(request, view.filters))

    def _open_connections(
        self, request: Request, selection: Selection
    ) -> Iterator[ConnectionRow | None]:
        for row in self._connections.rows():
            yield row if selection.has(parse_endpoint(row["phone"])) else None

    def _registrations(
        self, request: Request, selection: Selection
    ) -> Iterator[RegistrationRow | None]:
        """Yields a row for each mapping that a registrar has granted something."""
        moment, has_users = now(), request.get("users") is True
        for key, registration in self._gateway.state.registrations.all():
            yield None
            call_id = key.call_id.decode("utf-8", "replace")
            if not selection.has_call(call_id):
                continue
            for binding, until in registration.granted.items():
                if until <= moment or not selection.has(binding.internal):
                    continue
                row: RegistrationRow = {
                    "phone": str(binding.internal),
                    "registrar": next((str(each) for each in registration.registrars), None),
                    "mapping": str(binding.external),
                    "transport": binding.transport.label,
                    "call_id": call_id,
                    "expires_in": seconds_left(until, moment),
                }
                if has_users:
                    row["user"] = registration.user
                yield row

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

    def _limits(self, request: Request, selection: Selection) -> Iterator[LimitRow]:
        used, most = len(self._connections), self._max_connections
        return limit_rows(self._gateway, used, most, selection.host, now())
