"""What may be shown on a terminal of text that strangers wrote."""

from __future__ import annotations

from typing import NamedTuple


class Line(NamedTuple):
    """A line of text that is safe to show, and its style on a terminal."""

    text: str
    style: str = ""


def printable(text: str) -> str:
    """Escapes what could move a cursor, hide or reorder text; the rest stays as it is."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
