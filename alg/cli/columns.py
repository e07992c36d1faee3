"""What each kind of row shows in a table: its headings, and the cells below them.

A row is what the gateway sent, and may be of a newer gateway than this: what it lacks is a "-".
What is not printable is escaped: Call-IDs, names and the like were written by strangers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from alg.observe.printable import printable

Row = Mapping[str, object]


class Columns(NamedTuple):
    """A kind of row: what it is called, and what is shown of it.

    Where its `counts` are watched, a row is known again by its `identity`, and each count has a
    rate, such as "sent_rate" beside "sent". Where a row takes `lines` of its own, there are neither
    headings nor cells.
    """

    what: str
    headings: Sequence[str]
    cells: Callable[[Row], Sequence[str]]
    identity: tuple[str, ...] = ()
    counts: tuple[str, ...] = ()
    lines: Callable[[Row, int], Iterable[str]] | None = None


def _printable_values(row: Row) -> dict[str, str]:
    """Returns what a row says, as text; what it leaves open is left out."""
    return {
        key: value if type(value) is str and value.isprintable() else printable(str(value))
        for key, value in row.items()
        if value is not None
    }


def duration(seconds: object) -> str:
    """Renders seconds in at most four characters, rounded down: "299s", "60m", "24h", "41d"."""
    if not isinstance(seconds, int | float):
        return "-"
    whole = max(0, int(seconds))
    for unit, size in (("s", 1), ("m", 60), ("h", 3600)):
        if whole < 1000 * size:
            return f"{whole // size}{unit}"
    return f"{whole // 86400}d"


def amount(number: object) -> str:
    """Renders a number in at most five characters, rounded down: "9999", "12k", "34M"."""
    if not isinstance(number, int | float):
        return "-"
    for unit, size in (("", 1), ("k", 10**3), ("M", 10**6), ("G", 10**9)):
        if number < 10000 * size:
            return f"{int(number // size)}{unit}"
    return f"{int(number // 10**12)}T"


def _share(used: object, most: object) -> str:
    """Renders how much of a limit is used, rounded down: "7%"."""
    if not isinstance(used, int) or not isinstance(most, int) or most <= 0:
        return "-"
    return f"{100 * used // most}%"


def _mapping_cells(row: Row) -> tuple[str, ...]:
    text = _printable_values(row)
    remote, ends = text.get("remote", "-"), duration(row.get("expires_in"))
    return (*_mapped(text), remote, ends, _mapping_state(text))


def _counted_mapping_cells(row: Row) -> tuple[str, ...]:
    text = _printable_values(row)
    return (*_mapped(text), *(amount(row.get(key)) for key in _TRAFFIC), _mapping_state(text))


def _watched_mapping_cells(row: Row) -> tuple[str, ...]:
    """The rates are as wide as they may become, so that columns stay where they are."""
    text = _printable_values(row)
    rates = (f"{amount(row.get(f'{key}_rate')):>5}" for key in _TRAFFIC)
    return (*_mapped(text), *rates, _mapping_state(text))


def _mapped(text: Mapping[str, str]) -> tuple[str, str, str]:
    internal, external = text.get("internal", "-"), text.get("external", "-")
    return (
        f"{text.get('kind', '-')}/{text.get('transport', '-')}",
        internal,
        "same" if external == internal != "-" else external,
    )


def _mapping_state(text: Mapping[str, str]) -> str:
    """Beside the state stand who asked for the mapping, where somebody did, and the Call-ID."""
    source, state = text.get("source", "sip"), text.get("state", "-")
    states = (source if source != "sip" else "", state if state != "leased" else "")
    return " ".join(each for each in (*states, text.get("call_id", "")) if each)


def _lease_cells(row: Row) -> tuple[str, ...]:
    text = _printable_values(row)
    return (
        f"{text.get('kind', '-')}/{text.get('transport', '-')}",
        *(text.get(key, "-") for key in ("internal", "external", "remote")),
        duration(row.get("expires_in")),
        f"{text.get('source', '-')} {text.get('name', '')}".rstrip(),
    )


def _connection_cells(row: Row) -> tuple[str, ...]:
    """What was sent and got is the phone's."""
    text = _printable_values(row)
    return (
        *(text.get(key, "-") for key in ("phone", "server", "mapping")),
        duration(row.get("age")),
        *(text.get(key, "-") for key in ("from_phone", "to_phone", "state")),
    )


def _registration_cells(row: Row) -> tuple[str, ...]:
    text = _printable_values(row)
    return (
        *(text.get(key, "-") for key in ("phone", "registrar", "mapping")),
        duration(row.get("expires_in")),
        text.get("transport", "-"),
    )


def _user_cells(row: Row) -> tuple[str, ...]:
    return *_registration_cells(row), _printable_values(row).get("user", "-")


def _upstream_cells(row: Row) -> tuple[str, ...]:
    text = _printable_values(row)
    keys = ("public", "wire", "known_by", "nat", "ports", "granted", "state")
    return tuple(text.get(key, "-") for key in keys)


def _reason_cells(row: Row) -> tuple[str, ...]:
    text = _printable_values(row)
    return tuple(text.get(key, "-") for key in ("reason", "counted_by", "count"))


def _watched_reason_cells(row: Row) -> tuple[str, ...]:
    return *_reason_cells(row), amount(row.get("count_rate"))


def _limit_cells(row: Row) -> tuple[str, ...]:
    text = _printable_values(row)
    cells = (text.get(key, "-") for key in ("limit", "counts", "of", "used", "max"))
    return *cells, _share(row.get("used"), row.get("max"))


def _kernel_cells(row: Row) -> tuple[str, ...]:
    text = _printable_values(row)
    return tuple(text.get(key, "-") for key in ("item", "value", "max"))


_TRAFFIC = ("sent", "sent_bytes", "received", "received_bytes")

MAPPINGS = Columns(
    "mappings", ("kind", "internal", "external", "remote", "ends", "state"), _mapping_cells
)
COUNTED_MAPPINGS = Columns(
    "mappings",
    ("kind", "internal", "external", "sent", "bytes", "got", "bytes", "state"),
    _counted_mapping_cells,
)
WATCHED_MAPPINGS = Columns(
    "mappings",
    ("kind", "internal", "external", "sent/s", "  B/s", "got/s", "  B/s", "state"),
    _watched_mapping_cells,
    ("transport", "internal", "external"),
    _TRAFFIC,
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
REGISTRATIONS = Columns(
    "registrations", ("phone", "registrar", "mapping", "ends", "by"), _registration_cells
)
REGISTERED_USERS = Columns(
    "registrations", ("phone", "registrar", "mapping", "ends", "by", "user"), _user_cells
)
REASONS = Columns("reasons", ("reason", "counted by", "count"), _reason_cells)
WATCHED_REASONS = Columns(
    "reasons",
    ("reason", "counted by", "count", "now/s"),
    _watched_reason_cells,
    ("reason", "counted_by"),
    ("count",),
)
LIMITS = Columns("limits", ("limit", "counts", "of", "used", "max", "share"), _limit_cells)
KERNEL = Columns("kernel", ("item", "value", "max"), _kernel_cells)
