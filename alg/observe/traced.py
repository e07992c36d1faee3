"""A row of a trace as text: one line of 80 columns, or with the message as it came and as it left.

The phone stands on the left, whoever sent. Long addresses lose their beginning, and what is behind
the outcome its end.
"""

from __future__ import annotations

import base64
import datetime
import difflib
from collections.abc import Iterator, Mapping, Sequence

from alg.observe.printable import Line, printable

Row = Mapping[str, object]

WIDTH = 80
MAX_ENDPOINT = 21
MAX_WHAT = 13

_STYLES = {"rewritten": "green", "dropped": "bold red", "held": "yellow"}


class TraceLines:
    """Renders rows to lines of safe text, each with its style; columns grow with what they meet."""

    def __init__(self, *, is_full: bool) -> None:
        self._is_full = is_full
        self._widths = [14, 17, 10]

    def render(self, row: Row) -> Iterator[Line]:
        """Yields the lines of a row, none of one that tells nothing."""
        event = row.get("event")
        if event == "message":
            yield Line(self._message(row), _STYLES.get(str(row.get("verdict")), ""))
            if self._is_full:
                yield from _whole(row)
        elif event == "change":
            counts = ((what, _list(row, what)) for what in ("opened", "closed"))
            told = ", ".join(f"{len(rows)} {what}" for what, rows in counts if rows)
            text = f"{_clock(row)} {_text(row, 'what')}: {told or 'nothing closed'}"
            yield Line(_cut(text), "dim")
        elif event == "lost":
            text = f"... {row.get('count')} more are not shown, because they came too fast"
            yield Line(text, "yellow")

    def _message(self, row: Row) -> str:
        cells = [*map(_shortened, _ends(row)), _what(row)]
        self._widths = [max(pair) for pair in zip(self._widths, map(len, cells), strict=True)]
        phone, remote, what = (
            cell.ljust(width) for cell, width in zip(cells, self._widths, strict=True)
        )
        arrow = "<-" if row.get("direction") == "inbound" else "->"
        return _cut(f"{_clock(row)} {phone} {arrow} {remote} {what} {_outcome(row)}").rstrip()


def _ends(row: Row) -> tuple[str, str]:
    """Returns the phone and the other end; of a hairpin, who sent and who got it."""
    source, arrived = _text(row, "source"), _text(row, "destination")
    left = _text(row, "left_destination") or arrived
    direction = row.get("direction")
    if direction == "inbound":
        return left, source
    return source, left if direction == "hairpin" else arrived


def _what(row: Row) -> str:
    method, status = _text(row, "method") or "not SIP", row.get("status")
    what = f"{status} {method}" if status else method
    return what if len(what) <= MAX_WHAT else what[: MAX_WHAT - 1] + "~"


def _outcome(row: Row) -> str:
    verdict, reason = _text(row, "verdict"), _text(row, "reason")
    told = verdict if reason in (verdict, "nothing-to-change") else reason
    counts = (("+", len(_list(row, "opened"))), ("-", len(_list(row, "closed"))))
    return " ".join(
        (
            f"{told} {verdict}" if verdict in ("dropped", "held") else told,
            *(f"{sign}{count}" for sign, count in counts if count),
            _text(row, "call_id"),
        )
    )


def _whole(row: Row) -> Iterator[Line]:
    """Yields a message line by line: as it came (-), as it left (+), and what stayed."""
    if detail := _text(row, "detail"):
        yield Line(f"    {detail}")
    before = _lines(row.get("before"))
    after = _lines(row.get("after")) if row.get("left_source") is not None else before
    matcher = difflib.SequenceMatcher(None, before, after)
    for what, start, end, new_start, new_end in matcher.get_opcodes():
        if what == "equal":
            yield from (Line(f"      {line}".rstrip(), "dim") for line in before[start:end])
            continue
        yield from (Line(f"    - {line}", "red") for line in before[start:end])
        yield from (Line(f"    + {line}", "green") for line in after[new_start:new_end])
    yield Line("")


def _lines(encoded: object) -> Sequence[str]:
    message = base64.b64decode(str(encoded)) if encoded else b""
    return [printable(line.decode("utf-8", "backslashreplace")) for line in message.splitlines()]


def _list(row: Row, key: str) -> Sequence[object]:
    value = row.get(key)
    return value if isinstance(value, list) else ()


def _text(row: Row, key: str) -> str:
    value = row.get(key)
    return "" if value is None else printable(str(value))


def _shortened(endpoint: str) -> str:
    return endpoint if len(endpoint) <= MAX_ENDPOINT else "~" + endpoint[1 - MAX_ENDPOINT :]


def _cut(line: str) -> str:
    return line if len(line) <= WIDTH else line[: WIDTH - 1] + "~"


def _clock(row: Row) -> str:
    """Renders the time of day (UTC) to a millisecond."""
    time = row.get("time")
    seconds = time if isinstance(time, int | float) else 0
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.time().isoformat("milliseconds")
