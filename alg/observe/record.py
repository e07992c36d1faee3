"""A passage or an occurrence as bytes: what a ring of them keeps.

As bytes it takes the room that it says it takes, and thousands of them cost the garbage collector
nothing. Of the changes those are kept that a story tells.
"""

from __future__ import annotations

import msgspec

from alg.datagram import Datagram, Side
from alg.observe.passage import Occurrence, Passage
from alg.sip.span import Edit, apply_edits
from alg.verdict import Outcome, Reason, Step, Verdict
from nat_table.binding import Binding, Pinhole
from nat_table.changes import Change, Closed, Opened, Refreshed
from nat_table.endpoint import Endpoint, Transport

_Kept = tuple[str, Binding, tuple[Pinhole | None, ...]]


class _Message(msgspec.Struct, array_like=True, tag="message", frozen=True):
    time: float
    took: float
    commit: float
    source: Endpoint
    destination: Endpoint
    payload: bytes
    came_from: Side
    goes_to: Side
    transport: Transport
    verdict: Verdict
    reason: Reason
    edits: list[tuple[int, int, bytes, str]]
    changes: list[_Kept]
    detail: str
    steps: tuple[Step, ...]
    external_source: Endpoint | None
    external_destination: Endpoint | None


class _Change(msgspec.Struct, array_like=True, tag="change", frozen=True):
    time: float
    what: str
    changes: list[_Kept]


_encoder = msgspec.msgpack.Encoder()
_buffer = bytearray()
_decode = msgspec.msgpack.Decoder(_Message | _Change).decode


def encode_passage(passage: Passage) -> bytes:
    """Encodes a message and what became of it."""
    datagram, outcome = passage.datagram, passage.outcome
    return _encode(
        _Message(
            passage.time,
            passage.took,
            passage.commit,
            datagram.source,
            datagram.destination,
            datagram.payload,
            datagram.came_from,
            datagram.goes_to,
            datagram.transport,
            outcome.verdict,
            outcome.reason,
            [edit.fields() for edit in outcome.edits],
            _kept(outcome.changes),
            outcome.detail,
            outcome.steps,
            passage.external_source,
            passage.external_destination,
        )
    )


def encode_occurrence(occurrence: Occurrence) -> bytes:
    """Encodes changes that no message has brought."""
    return _encode(_Change(occurrence.time, occurrence.what, _kept(occurrence.changes)))


def decode_record(encoded: bytes) -> Passage | Occurrence:
    """Decodes what was encoded, with those changes that open, close, and cut short."""
    record = _decode(encoded)
    changes = tuple(map(_change, record.changes))
    if isinstance(record, _Change):
        return Occurrence(record.time, record.what, changes)
    datagram = Datagram(
        record.source,
        record.destination,
        record.payload,
        record.came_from,
        record.goes_to,
        record.transport,
    )
    edits = [Edit(*fields) for fields in record.edits]
    return Passage(
        record.time,
        record.took,
        record.commit,
        datagram,
        Outcome(
            record.verdict,
            record.reason,
            apply_edits(record.payload, edits),
            tuple(edits),
            changes,
            record.detail,
            record.steps,
        ),
        record.external_source,
        record.external_destination,
    )


def _encode(record: _Message | _Change) -> bytes:
    """Encodes into a buffer and copies, because what msgspec returns has room to spare."""
    _encoder.encode_into(record, _buffer)
    return bytes(_buffer)


def _kept(changes: tuple[Change, ...]) -> list[_Kept]:
    """Returns what opens and closes mappings, or leaves them less time than they had.

    Nearly every message refreshes something, which is most of what there is to keep and tells
    nothing; but what is opened or cut short is followed to the end of the message.
    """
    kept: list[_Kept] = []
    followed: set[Binding] = set()
    for change in changes:
        if isinstance(change, Opened):
            followed.add(change.binding)
            kept.append(("opened", change.binding, (change.pinhole,)))
        elif isinstance(change, Refreshed):
            if change.binding in followed or _is_cut_short(change):
                followed.add(change.binding)
                kept.append(("refreshed", change.binding, (change.before, change.after)))
        elif isinstance(change, Closed):
            kept.append(("closed", change.binding, change.pinholes))
    return kept


def _is_cut_short(change: Refreshed) -> bool:
    before, after = change.before, change.after
    return before is not None and after is not None and after.expires_at < before.expires_at


def _change(kept: _Kept) -> Change:
    what, binding, pinholes = kept
    if what == "refreshed":
        before, after = pinholes
        return Refreshed(binding, before, after)
    standing = tuple(pinhole for pinhole in pinholes if pinhole is not None)
    return Opened(binding, standing[0]) if what == "opened" else Closed(binding, standing)
