"""An explanation for people (lines, coloured on a terminal) and for programs (one JSON object).

Only lines that change are shown of a message, as they were (-) and as they left (+). They follow
from the edits themselves, so that what is shown is what was done.
"""

from __future__ import annotations

import base64
import datetime
import json
from collections.abc import Iterator

from alg.observe.explain import Explainer, Explanation
from alg.observe.printable import Line, printable
from alg.observe.words import shown
from alg.sip.grammar import SIP_PREFIX
from alg.sip.span import Edit, Span, apply_edits
from alg.verdict import Direction, Verdict
from nat_table.snapshot import MappingRow

SHOWN_BYTES = 32

_STYLES = {Verdict.REWRITTEN: "bold green", Verdict.UNCHANGED: "bold", Verdict.DROPPED: "bold red"}


def render_lines(explanation: Explanation) -> Iterator[Line]:
    """Yields the lines of one message's block; an empty one ends it."""
    passage = explanation.passage
    outcome, datagram = passage.outcome, passage.datagram
    verdict, reason = outcome.verdict.value, outcome.reason.value
    why = "" if reason == verdict else f" ({reason})"
    detail = f": {printable(outcome.detail)}" if outcome.detail else ""
    yield Line(
        f"{explanation.index}  {_clock(passage.time)}  {datagram.direction.value}  "
        f"{verdict}{why}{detail}",
        _STYLES[outcome.verdict],
    )
    yield Line(f"    {datagram.transport.label} {explanation.source} -> {explanation.destination}")
    yield Line(f"    {_first_line(datagram.payload)}")
    for sign, line in changed_lines(datagram.payload, outcome.edits):
        yield Line(f"    {sign} {_text(line)}", "red" if sign == "-" else "green")
    for what, rows in (
        ("expired", explanation.expired),
        ("closed", explanation.closed),
        ("opened", explanation.opened),
    ):
        for row in rows:
            yield Line(f"    {what} {_mapping(row)}", "cyan")
    yield Line("")


def render_summary(explainer: Explainer) -> str:
    """Renders the last line: how many messages, what is still open, what was not shown."""
    verdicts = explainer.verdicts
    counts = [f"{verdicts[verdict]} {verdict.value}" for verdict in Verdict if verdicts[verdict]]
    total = _number(sum(verdicts.values()), "message")
    parts = [f"{total}: {', '.join(counts)}" if counts else total]
    parts.append(f"{_number(len(explainer.table), 'mapping')} open at the end")
    if explainer.skipped:
        skipped = sorted(explainer.skipped.items())
        parts.append("not shown: " + ", ".join(f"{what} ({count})" for what, count in skipped))
    return "; ".join(parts)


def as_json_line(explanation: Explanation) -> str:
    """Renders the object that `--json` prints; its names never change.

    A hairpin counts as outbound: that is how the message left the one who wrote it. `closed` has
    what the message closed and what has expired since the one before.
    """
    outcome, datagram = explanation.passage.outcome, explanation.passage.datagram
    before = datagram.payload
    is_hairpin = datagram.direction is Direction.HAIRPIN
    row = {
        "index": explanation.index,
        "direction": (Direction.OUTBOUND if is_hairpin else datagram.direction).value,
        "verdict": outcome.verdict.value,
        "reason": outcome.reason.value,
        "before": base64.b64encode(before).decode("ascii"),
        "after": base64.b64encode(outcome.payload).decode("ascii"),
        "edits": [
            {
                "start": edit.start,
                "end": edit.end,
                "old": before[edit.start : edit.end].decode("latin-1"),
                "new": edit.new.decode("latin-1"),
                "what": edit.what,
            }
            for edit in outcome.edits
        ],
        "opened": list(explanation.opened),
        "closed": [*explanation.expired, *explanation.closed],
    }
    return json.dumps(row)


def changed_lines(before: bytes, edits: tuple[Edit, ...]) -> Iterator[tuple[str, bytes]]:
    """Yields ("-", a line as it was) and ("+", as it left) for the lines that edits touch."""
    for span, inside in _touched(before, edits):
        moved = [Edit(e.start - span.start, e.end - span.start, e.new, e.what) for e in inside]
        part = before[span.start : span.end]
        old = part.splitlines()
        new = apply_edits(part, moved).splitlines()
        while old and new and old[0] == new[0]:
            del old[0], new[0]
        while old and new and old[-1] == new[-1]:
            del old[-1], new[-1]
        yield from (("-", line) for line in old)
        yield from (("+", line) for line in new)


def _touched(before: bytes, edits: tuple[Edit, ...]) -> Iterator[tuple[Span, list[Edit]]]:
    """Yields the whole lines that edits stand in, each with its edits."""
    span: Span | None = None
    inside: list[Edit] = []
    for edit in sorted(edits):
        start = before.rfind(b"\n", 0, edit.start) + 1
        end = before.find(b"\n", edit.end) + 1 or len(before)
        if span is not None and start < span.end:
            span = Span(span.start, max(span.end, end))
            inside.append(edit)
            continue
        if span is not None:
            yield span, inside
        span, inside = Span(start, end), [edit]
    if span is not None:
        yield span, inside


def _first_line(message: bytes) -> str:
    """Renders the start line; of what is not SIP the size, and how it begins."""
    begin = message.lstrip(b"\r\n")
    if SIP_PREFIX.match(begin):
        return _text(begin.splitlines()[0])
    size = _number(len(message), "byte")
    return f"{size}: {ascii(message[:SHOWN_BYTES])[2:-1]}" if message else size


def _mapping(row: MappingRow) -> str:
    call = f"  call {shown(row['call_id'])}" if row["call_id"] else ""
    return f"{row['kind']}/{row['transport']} {row['internal']} <-> {row['external']}{call}"


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _text(line: bytes) -> str:
    return printable(line.decode("utf-8", "backslashreplace"))


def _clock(seconds: float) -> str:
    """Renders the time of day (UTC) to a millisecond; captures with absurd times exist."""
    try:
        moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    except (OverflowError, ValueError, OSError):
        return f"{seconds:.3f}"
    return moment.time().isoformat("milliseconds")
