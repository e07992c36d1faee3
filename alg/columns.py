"""What each kind of row shows in a table: its headings, and the cells below them.

A row is what the gateway sent, and may be of a newer gateway than this: what it lacks is a "-".
What is not printable is escaped: Call-IDs, names and the like were written by strangers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from alg.observe.printable import printable

Row = Mapping[str, object]


class Columns(NamedTuple):
    """A kind of row: what it is called, and what is shown of it."""

    what: str
    headings: Sequence[str]
    cells: Callable[[Row], Sequence[str]]


def _printable_values(row: Row) -> dict[str, str]:
    """Returns what a row says, as text; what it leaves open is left out."""
    return {key: printable(str(value)) for key, value in row.items() if value is not None}


def _duration(seconds: object) -> str:
    """Renders seconds in at most four characters, rounded down: "299s", "60m", "24h", "41d"."""
    if not isinstance(seconds, int | float):
        return "-"
    whole = max(0, int(seconds))
    for unit, size in (("s", 1), ("m", 60), ("h", 3600)):
        if whole < 1000 * size:
            return f"{whole // size}{unit}"
    return f"{whole // 86400}d"


def _mapping_cells(row: Row) -> tuple[str, ...]:
    """Beside the state stand who asked for the mapping, where somebody did, and the Call-ID."""
    text = _printable_values(row)
    source, state = text.get("source", "sip"), text.get("state", "-")
    states = (source if source != "sip" else "", state if state != "leased" else "")
    internal, external = text.get("internal", "-"), text.get("external", "-")
    return (
        f"{text.get('kind', '-')}/{text.get('transport', '-')}",
        internal,
        "same" if external == internal != "-" else external,
        text.get("remote", "-"),
        _duration(row.get("expires_in")),
        " ".join(each for each in (*states, text.get("call_id", "")) if each),
    )


def _lease_cells(row: Row) -> tuple[str, ...]:
    text = _printable_values(row)
    return (
        f"{text.get('kind', '-')}/{text.get('transport', '-')}",
        *(text.get(key, "-") for key in ("internal", "external", "remote")),
        _duration(row.get("expires_in")),
        f"{text.get('source', '-')} {text.get('name', '')}".rstrip(),
    )


def _connection_cells(row: Row) -> tuple[str, ...]:
    """What was sent and got is the phone's."""
    text = _printable_values(row)
    return (
        *(text.get(key, "-") for key in ("phone", "server", "mapping")),
        _duration(row.get("age")),
        *(text.get(key, "-") for key in ("from_phone", "to_phone", "state")),
    )


def _upstream_cells(row: Row) -> tuple[str, ...]:
    text = _printable_values(row)
    keys = ("public", "wire", "known_by", "nat", "ports", "granted", "state")
    return tuple(text.get(key, "-") for key in keys)


def _reason_cells(row: Row) -> tuple[str, ...]:
    text = _printable_values(row)
    return tuple(text.get(key, "-") for key in ("reason", "counted_by", "count"))


MAPPINGS = Columns(
    "mappings", ("kind", "internal", "external", "remote", "ends", "state"), _mapping_cells
)
LEASES = Columns(
    "mappings", ("kind", "internal", "external", "remote", "ends", "source"), _lease_cells
)
CONNECTIONS = Columns(
    "connections",
    ("phone", "server", "mapping", "age", "sent", "got", "state"),
    _connection_cells,
)
UPSTREAM = Columns(
    "upstream",
    ("public", "here", "known by", "nat above", "ports", "granted", "state"),
    _upstream_cells,
)
REASONS = Columns("reasons", ("reason", "counted by", "count"), _reason_cells)
