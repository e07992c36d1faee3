"""The table as plain data: for the store, and for the command line.

`snapshot` and `restore` are each other's inverse and carry all that a table knows of its bindings;
quarantine is not carried. `mapping_row` is the view for people: one line a binding.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypedDict

from nat_table.binding import Binding, Kind, Owner, Pinhole
from nat_table.endpoint import Transport, parse_endpoint, render_endpoint
from nat_table.table import NatTable

_STATES = {"call": "call", "registration": "registered"}  # by owner's scope, strongest first
_STRENGTH = {scope: -rank for rank, scope in enumerate(_STATES, start=-len(_STATES))}


class PinholeRow(TypedDict):
    """A `Pinhole`; `owner` is its scope, Call-ID and tag."""

    owner: list[str]
    expires_at: float
    remote: str | None


class BindingRow(TypedDict):
    """A `Binding` and its pinholes."""

    transport: str
    internal: str
    external: str
    kind: str
    created_at: float
    pinholes: list[PinholeRow]


class MappingRow(TypedDict):
    """What the command line shows of a binding; these names never change."""

    transport: str
    internal: str
    external: str
    kind: str
    remote: str | None
    call_id: str | None
    state: str
    expires_in: float


def snapshot(table: NatTable) -> list[BindingRow]:
    """Returns a row for every binding."""
    return [
        {
            "transport": binding.transport.label,
            "internal": render_endpoint(binding.internal),
            "external": render_endpoint(binding.external),
            "kind": binding.kind.value,
            "created_at": binding.created_at,
            "pinholes": [
                {
                    "owner": list(pinhole.owner),
                    "expires_at": pinhole.expires_at,
                    "remote": pinhole.remote and render_endpoint(pinhole.remote),
                }
                for pinhole in table.pinholes(binding)
            ],
        }
        for binding in table.bindings()
    ]


def restore(table: NatTable, rows: Iterable[BindingRow], now: float) -> None:
    """Adopts what `snapshot` returned; what is overdue by now leaves with the next `expire`.

    Raises ValueError at the first row that is malformed or collides; those before it stand.
    """
    for row in rows:
        try:
            binding = Binding(
                transport=Transport[row["transport"].upper()],
                internal=parse_endpoint(row["internal"]),
                external=parse_endpoint(row["external"]),
                kind=Kind(row["kind"]),
                created_at=row["created_at"],
            )
            pinholes = [
                Pinhole(
                    owner=Owner(*claim["owner"]),
                    expires_at=claim["expires_at"],
                    remote=parse_endpoint(claim["remote"]) if claim["remote"] else None,
                )
                for claim in row["pinholes"]
            ]
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"{row!r} is not a row of a snapshot") from error
        for pinhole in pinholes:
            table.adopt(binding, pinhole, now)


def mapping_row(binding: Binding, pinholes: Sequence[Pinhole], now: float) -> MappingRow:
    """Returns the row of a binding.

    The strongest owner speaks for it: a call before a registration before mere traffic, and among
    equals the one that stays longest. `expires_in` is when the last pinhole ends, to 0.1 s.
    """
    ranked = sorted(
        pinholes, key=lambda p: (_STRENGTH.get(p.owner.scope, 0), p.expires_at), reverse=True
    )
    owner = ranked[0].owner
    remote = next((pinhole.remote for pinhole in ranked if pinhole.remote), None)
    last_deadline = max(pinhole.expires_at for pinhole in pinholes)
    return {
        "transport": binding.transport.label,
        "internal": render_endpoint(binding.internal),
        "external": render_endpoint(binding.external),
        "kind": binding.kind.value,
        "remote": remote and render_endpoint(remote),
        "call_id": owner.call_id if owner.scope == "call" else None,
        "state": _STATES.get(owner.scope, "open"),
        "expires_in": round(max(0.0, last_deadline - now), 1),
    }
