"""The table as plain values: for the store, for a second router, and for the command line.

`snapshot` and `restore` are each other's inverse, a row a binding (`row_of`, `adopt_row`), and
carry all that a table knows of its bindings; quarantine is not carried. How a row becomes bytes is
for whoever keeps it. `mapping_row` is the view for people: one line a binding.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TypedDict

from nat_table.binding import Binding, Pinhole
from nat_table.endpoint import render_endpoint
from nat_table.lease import LEASE, NEVER, source_of
from nat_table.table import NatTable

Row = tuple[Binding, tuple[Pinhole, ...]]
"""A binding and its pinholes."""

# By owner's scope, strongest first.
_STATES = {
    "call": "call",
    "registration": "registered",
    "connection": "connected",
    LEASE: "leased",
}
_STRENGTH = {scope: -rank for rank, scope in enumerate(_STATES, start=-len(_STATES))}


class MappingRow(TypedDict):
    """What the command line shows of a binding; these names never change."""

    transport: str
    internal: str
    external: str
    kind: str
    remote: str | None
    call_id: str | None
    state: str
    source: str
    expires_in: float | None


def snapshot(table: NatTable) -> list[Row]:
    """Returns a row for every binding."""
    return [row_of(table, binding) for binding in table.bindings()]


def row_of(table: NatTable, binding: Binding) -> Row:
    """Returns the row of a binding."""
    return binding, table.pinholes(binding)


def restore(table: NatTable, rows: Iterable[Row], now: float) -> None:
    """Adopts what `snapshot` returned; what is overdue by now leaves with the next `expire`.

    Raises ValueError at the first row that collides or has no end; those before it stand.
    """
    for row in rows:
        adopt_row(table, row, now)


def adopt_row(table: NatTable, row: Row, now: float) -> None:
    """Adopts the binding of a row, with all its pinholes.

    Raises ValueError, nothing adopted, where it collides, has no pinhole, or one that never ends.
    """
    binding, pinholes = row
    if not pinholes or not all(math.isfinite(pinhole.expires_at) for pinhole in pinholes):
        raise ValueError(f"{binding.internal} has no pinhole, or one without an end")
    for pinhole in pinholes:
        table.adopt(binding, pinhole, now)


def mapping_row(binding: Binding, pinholes: Sequence[Pinhole], now: float) -> MappingRow:
    """Returns the row of a binding.

    The strongest owner speaks for it: a call before a registration before mere traffic, and among
    equals the one that stays longest. `expires_in` is when the last pinhole ends, to 0.1 s, or None
    where it never does.
    """
    ranked, last_deadline = pinholes, pinholes[0].expires_at
    if len(pinholes) > 1:  # most have one, and there may be very many rows
        ranked = sorted(pinholes, key=_rank, reverse=True)
        last_deadline = max(pinhole.expires_at for pinhole in pinholes)
    owner = ranked[0].owner
    remote = next((remote for pinhole in ranked for remote in pinhole.remotes), None)
    return {
        "transport": binding.transport.label,
        "internal": render_endpoint(binding.internal),
        "external": render_endpoint(binding.external),
        "kind": binding.kind.value,
        "remote": remote and render_endpoint(remote),
        "call_id": owner.call_id if owner.scope == "call" else None,
        "state": _STATES.get(owner.scope, "open"),
        "source": source_of(pinholes).value,
        "expires_in": seconds_left(last_deadline, now),
    }


def _rank(pinhole: Pinhole) -> tuple[int, float]:
    return _STRENGTH.get(pinhole.owner.scope, 0), pinhole.expires_at


def seconds_left(expires_at: float, now: float) -> float | None:
    """Returns the time until a deadline to 0.1 s, None where there is no end."""
    return None if expires_at >= NEVER else round(max(0.0, expires_at - now), 1)
