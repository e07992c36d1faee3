"""A call as lines of text: who talks to whom, a line for each mapping of its media, what is wrong.

Parts that do not fit into a line go on in the next one. Only what is longer than a line is cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from alg.cli.columns import Columns, Row, amount, duration
from alg.observe.printable import printable

_INDENT, _DEEPER = "  ", "      "


def call_lines(row: Row, width: int) -> Iterator[str]:
    """Yields the lines of a row of `show calls`, safe to print."""
    arrow = "<-" if row.get("direction") == "inbound" else "->"
    parties = f"{_text(row, 'phone')} {arrow} {_text(row, 'remote')}"
    users = [f"{key} {_text(row, key)}" for key in ("from", "to") if key in row]
    yield from _wrap((parties, _state(row), *users, f"call {_text(row, 'call_id')}"), "", width)
    for stream in _list(row, "streams"):
        if isinstance(stream, Mapping):
            yield from _wrap(_stream(stream), _INDENT, width)
    for warning in _list(row, "warnings"):
        yield from _wrap(("!", printable(str(warning))), _INDENT, width)


CALLS = Columns("calls", (), lambda row: (), lines=call_lines)


def _state(row: Row) -> str:
    """Renders "up 42s", "ringing 3s", "ended after 3m": since it was answered, if it was."""
    state, up = _text(row, "state"), row.get("up")
    seconds = row.get("age") if up is None else up
    return f"{state}{' after' if state == 'ended' else ''} {duration(seconds)}"


def _stream(stream: Row) -> Sequence[str]:
    """Returns the parts of a line; what carries the media itself is called by its type."""
    kind, media = _text(stream, "kind"), stream.get("media")
    name = printable(str(media)) if media and kind != "rtcp" else kind
    places = [_text(stream, key) for key in ("internal", "external", "remote")]
    if places[0] == places[1]:
        places[1] = "same"
    sent, got = (amount(stream.get(key)) for key in ("sent", "received"))
    return name, *places, f"sent {sent} got {got}"


def _wrap(parts: Iterable[str], indent: str, width: int) -> Iterator[str]:
    """Yields the parts with a space between them, in as many lines as they need."""
    line = ""
    for part in parts:
        if line and len(line) + 1 + len(part) > width:
            yield line
            line, indent = "", _DEEPER
        line = f"{line} {part}" if line else indent + part
        if len(line) > width:
            line = line[: width - 1] + "~"
    yield line


def _text(row: Row, key: str) -> str:
    value = row.get(key)
    return "-" if value is None else printable(str(value))


def _list(row: Row, key: str) -> Sequence[object]:
    value = row.get(key)
    return value if isinstance(value, list) else ()
