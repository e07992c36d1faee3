"""The story of a call, as rows: each message, what became of it and why, and what it opened.

A row is made when somebody asks for it. Everything in it that strangers wrote is text that must be
escaped before it is shown (`alg.observe.printable`).
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence

from alg.datagram import Side
from alg.observe.heading import read_heading
from alg.observe.passage import Occurrence, Passage
from alg.sip.span import Edit
from nat_table.binding import Binding, Kind, Owner, Pinhole
from nat_table.changes import Change, Closed, Opened, Refreshed
from nat_table.endpoint import Endpoint
from nat_table.snapshot import MappingRow, mapping_row

StoryRow = dict[str, object]

SOON = 10.0
"""A mapping that a message leaves no more than this many seconds is given up."""


def passage_row(passage: Passage, offset: float, number: int, *, is_full: bool) -> StoryRow:
    """Returns the row of a message; these names never change.

    `offset` makes times since boot times since 1970 (UTC). `ending` are the media mappings that the
    message leaves a few seconds. With `is_full` it has the message too, in base64.
    """
    datagram, outcome, time = passage.datagram, passage.outcome, passage.time
    came, left = passage.came, passage.left
    heading = read_heading(datagram.payload)
    row: StoryRow = {
        "event": "message",
        "number": number,
        "time": round(time + offset, 6),
        "direction": datagram.direction.value,
        "transport": datagram.transport.label,
        "source": str(came.source),
        "destination": str(came.destination),
        "left_source": str(left.source) if left else None,
        "left_destination": str(left.destination) if left else None,
        "method": heading.method or None,
        "status": heading.status or None,
        "call_id": heading.call_id or None,
        "cseq": heading.cseq,
        "verdict": outcome.verdict.value,
        "reason": outcome.reason.value,
        "detail": outcome.detail,
        "edits": _edit_rows(datagram.payload, outcome.edits),
        "steps": [step.value for step in outcome.steps],
        **_mapping_rows(outcome.changes, time),
        "took": _microseconds(passage.took),
        "commit": _microseconds(passage.commit) if passage.commit else None,
    }
    if is_full:
        row["before"] = base64.b64encode(datagram.payload).decode("ascii")
        row["after"] = base64.b64encode(left.payload).decode("ascii") if left else None
    return row


def occurrence_row(occurrence: Occurrence, offset: float) -> StoryRow:
    """Returns the row of changes that no message has brought; these names never change."""
    return {
        "event": "change",
        "time": round(occurrence.time + offset, 6),
        "what": occurrence.what,
        **_mapping_rows(occurrence.changes, occurrence.time),
    }


def is_of_call(event: Passage | Occurrence, call_id: str) -> bool:
    """Whether a message belongs to a call, or changes are of its mappings.

    A Call-ID that ends in "~", as tables cut it, stands for all that begin so.
    """
    if isinstance(event, Passage):
        return is_named(read_heading(event.datagram.payload).call_id, call_id)
    pinholes = (each for change in event.changes for each in _pinholes(change))
    return any(is_named(each.owner.call_id, call_id) for each in pinholes)


def is_of_host(event: Passage | Occurrence, address: str, port: int | None) -> bool:
    """Whether an internal host, or one port of it, has sent or got a message or had a mapping."""
    changes = event.outcome.changes if isinstance(event, Passage) else event.changes
    ends = [change.binding.internal for change in changes if isinstance(change, Opened | Closed)]
    if isinstance(event, Passage):
        ends += _internal_ends(event)
    return any(end.address == address and port in (None, end.port) for end in ends)


def is_named(call_id: str, wanted: str) -> bool:
    """Whether a Call-ID is the one that is wanted, which may be cut by a "~"."""
    return call_id == wanted or (wanted.endswith("~") and call_id.startswith(wanted[:-1]))


def _internal_ends(passage: Passage) -> list[Endpoint]:
    datagram = passage.datagram
    ends = ((datagram.came_from, datagram.source), (datagram.goes_to, datagram.destination))
    return [end for side, end in ends if side is Side.INTERNAL]


def _pinholes(change: Change) -> Sequence[Pinhole]:
    if isinstance(change, Opened):
        return (change.pinhole,)
    return change.pinholes if isinstance(change, Closed) else ()


def _mapping_rows(changes: Iterable[Change], now: float) -> dict[str, list[MappingRow]]:
    """Returns the mappings that changes have opened, closed, and left a few seconds."""
    opened: dict[Binding, dict[Owner, Pinhole]] = {}
    closed: dict[Binding, Sequence[Pinhole]] = {}
    ending: dict[Binding, Sequence[Pinhole]] = {}
    for change in changes:
        binding = change.binding
        if isinstance(change, Opened):
            opened[binding] = {change.pinhole.owner: change.pinhole}
        elif isinstance(change, Closed):
            ending.pop(binding, None)
            if opened.pop(binding, None) is None:
                closed[binding] = change.pinholes
        elif isinstance(change, Refreshed) and change.after is not None:
            if binding in opened:
                opened[binding][change.after.owner] = change.after
            elif _is_given_up(change, now):
                ending[binding] = (change.after,)
            else:
                ending.pop(binding, None)
    held = {binding: tuple(pinholes.values()) for binding, pinholes in opened.items()}
    return {
        "opened": _rows(held, now),
        "closed": _rows(closed, now),
        "ending": _rows(ending, now),
    }


def _is_given_up(change: Refreshed, now: float) -> bool:
    """Whether a mapping for media has been left a few seconds, and had more before."""
    before, after = change.before, change.after
    if change.binding.kind is Kind.SIP or before is None or after is None:
        return False
    return after.expires_at < before.expires_at and after.expires_at <= now + SOON


def _rows(mappings: Mapping[Binding, Sequence[Pinhole]], now: float) -> list[MappingRow]:
    return [mapping_row(binding, pinholes, now) for binding, pinholes in mappings.items()]


def _edit_rows(message: bytes, edits: Iterable[Edit]) -> list[dict[str, str]]:
    """Returns what was edited, a host and its port as one."""
    joined: list[Edit] = []
    for edit in sorted(edits):
        start, end, new, what = edit.fields()
        if joined and joined[-1].what == what and message[joined[-1].end : start] in (b"", b":"):
            first = joined.pop()
            start, new = first.start, first.new + message[first.end : start] + new
        joined.append(Edit(start, end, new, what))
    return [
        {
            "what": edit.what,
            "old": message[edit.start : edit.end].decode("latin-1"),
            "new": edit.new.decode("latin-1"),
        }
        for edit in joined
    ]


def _microseconds(seconds: float) -> int:
    return round(seconds * 1e6)
