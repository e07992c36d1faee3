"""Rows as the commands print them: as the gateway sent them, or as a table of cells.

Rows are printed as they come, in blocks: a hundred thousand are neither kept nor waited for. What
fails before the end of the first block has printed nothing. A column is as wide as its widest cell
so far, so that the first block decides for nearly all tables.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice

from alg.cli.columns import Columns, Row

WIDTH = 80
LEAST_STATE = 8
"""What the last column has in any case, so that it still tells: "call a8~"."""

BLOCK = 1000


def print_rows(rows: Iterable[Row], columns: Columns, as_json: bool) -> None:
    """Prints rows as JSON, or as a table of their cells."""
    if as_json:
        return print_json(rows)
    for block in _table_blocks(rows, columns):
        write(block)


def print_json(rows: Iterable[Row]) -> None:
    """Prints rows as an array of objects, each on a line of its own."""
    for block in _json_blocks(rows):
        write(block)


def table_lines(
    headings: Sequence[str], rows: Iterable[Sequence[str]], width: int
) -> Iterator[list[str]]:
    """Yields aligned lines, a block at a time, the headings before the first one.

    The last column is cut to what `width` leaves it, no other is.
    """
    unread = iter(rows)
    widths = [0] * (len(headings) - 1)
    block: list[Sequence[str]] = [headings, *islice(unread, BLOCK)]
    while block:
        widths = [
            max(before, *map(len, column))
            for before, column in zip(widths, zip(*block, strict=True), strict=False)
        ]
        room = max(LEAST_STATE, width - sum(widths) - len(widths))
        layout = "".join(f"{{:{width}}} " for width in widths) + "{}"
        yield [
            layout.format(*cells, last if len(last) <= room else last[: room - 1] + "~").rstrip()
            for *cells, last in block
        ]
        block = list(islice(unread, BLOCK))


def bold(line: str) -> str:
    """Returns a line as a terminal shows it in bold, where there is one that can."""
    if not sys.stdout.isatty() or os.environ.get("TERM") == "dumb":
        return line
    return f"\x1b[1m{line}\x1b[0m"


def write(text: str) -> None:
    """Prints and flushes, so that a closed pipe shows here, where Typer ends silently on it."""
    print(text, flush=True)


def _table_blocks(rows: Iterable[Row], columns: Columns) -> Iterator[str]:
    what, headings, cells = columns.what, columns.headings, columns.cells
    unread = iter(rows)
    first = next(unread, None)
    if first is None:
        yield f"no {what}"
        return
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDTH
    if columns.lines is not None:
        for row in chain((first,), unread):
            yield "\n".join(columns.lines(row, width))
        return
    table = map(cells, chain((first,), unread))
    blocks = table_lines(headings, table, width)
    heading, *lines = next(blocks)
    yield "\n".join((bold(heading), *lines))
    for lines in blocks:
        yield "\n".join(lines)


def _json_blocks(rows: Iterable[Row]) -> Iterator[str]:
    """Yields the array in parts; it ends with the last one only."""
    unread = iter(rows)
    block = list(islice(unread, BLOCK))
    opening = "["
    while block:
        following = list(islice(unread, BLOCK))
        lines = ",\n ".join(map(json.dumps, block))
        yield f"{opening}{lines}{',' if following else ']'}"
        opening, block = " ", following
    if opening == "[":
        yield "[]"
