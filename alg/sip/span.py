"""Byte ranges and their replacements: the only code that changes message bytes.

A message is never written anew from a model of it. Readers report where something stands (`Span`),
the rewriter says what should stand there instead (`Edit`), and `apply_edits` copies everything
between the edits as it came. What nobody edits cannot be damaged.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple


class Span(NamedTuple):
    """A byte range [start, end) of a message."""

    start: int
    end: int


class Edit:
    """A byte range of a message, what replaces it, and the field it belongs to.

    Edits are ordered by where they begin, an insertion before what begins at the same place.
    """

    __slots__ = ("end", "new", "start", "what")

    def __init__(self, start: int, end: int, new: bytes, what: str) -> None:
        self.start: Final = start
        self.end: Final = end
        self.new: Final = new
        self.what: Final = what

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Edit) and self.fields() == other.fields()

    def __hash__(self) -> int:
        return hash(self.fields())

    def __lt__(self, other: Edit) -> bool:
        return self.start < other.start or (self.start == other.start and self.end < other.end)

    def __repr__(self) -> str:
        return f"Edit{self.fields()}"

    def fields(self) -> tuple[int, int, bytes, str]:
        """Returns what it consists of, in the order in which it is made."""
        return self.start, self.end, self.new, self.what

    @property
    def growth(self) -> int:
        """How many bytes longer the message becomes."""
        return len(self.new) - (self.end - self.start)


def apply_edits(message: bytes, edits: Iterable[Edit]) -> bytes:
    """Returns the message with the edits applied; raises ValueError where two overlap."""
    return apply_ordered(message, sorted(edits))


def apply_ordered(message: bytes, edits: list[Edit]) -> bytes:
    """Returns the message with edits applied that are in order; raises ValueError too."""
    pieces: list[bytes] = []
    position = 0
    for edit in edits:
        start = edit.start
        if start < position:
            raise ValueError(f"the edit of {edit.what} at byte {start} overlaps the one before")
        pieces.append(message[position:start])
        pieces.append(edit.new)
        position = edit.end
    pieces.append(message[position:])
    return b"".join(pieces)
