"""Byte ranges and their replacements: the only code that changes message bytes.

A message is never written anew from a model of it. Readers report where something stands (`Span`),
the rewriter says what should stand there instead (`Edit`), and `apply_edits` copies everything
between the edits as it came. What nobody edits cannot be damaged.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Span(NamedTuple):
    """A byte range [start, end) of a message."""

    start: int
    end: int


class Edit(NamedTuple):
    """A byte range of a message, what replaces it, and the field it belongs to."""

    start: int
    end: int
    new: bytes
    what: str


def apply_edits(message: bytes, edits: Iterable[Edit]) -> bytes:
    """Returns the message with the edits applied; raises ValueError where two overlap."""
    pieces: list[bytes] = []
    position = 0
    for start, end, new, what in sorted(edits):
        if start < position:
            raise ValueError(f"the edit of {what} at byte {start} overlaps the one before")
        pieces.append(message[position:start])
        pieces.append(new)
        position = end
    pieces.append(message[position:])
    return b"".join(pieces)
