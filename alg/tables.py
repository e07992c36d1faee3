"""Rows as the commands print them: as the gateway sent them, or as a table of cells.

On a terminal tables are drawn by Rich; anywhere else the same cells come as plain aligned text.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence

from alg.columns import Columns, Row

WIDTH = 80
LEAST_STATE = 8
"""What the last column has in any case, so that it still tells: "call a8~"."""


def print_rows(rows: Sequence[Row], columns: Columns, as_json: bool) -> None:
    """Prints rows as JSON, or as a table of their cells."""
    what, headings, cells = columns
    if as_json:
        write("[" + ",\n ".join(json.dumps(row) for row in rows) + "]")
    elif not rows:
        write(f"no {what}")
    elif sys.stdout.isatty():
        _draw_table(headings, [cells(row) for row in rows])
    else:
        write("\n".join(_render_table(headings, map(cells, rows))))


def write(text: str) -> None:
    """Prints and flushes, so that a closed pipe shows here, where Typer ends silently on it."""
    print(text, flush=True)


def _render_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yields aligned lines; the last column is cut to what WIDTH leaves it, no other is."""
    table = [headings, *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)][:-1]
    room = max(LEAST_STATE, WIDTH - sum(widths) - len(widths))
    for *cells, last in table:
        shown = last if len(last) <= room else last[: room - 1] + "~"
        aligned = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        yield " ".join((*aligned, shown)).rstrip()


def _draw_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    *columns, last = zip(headings, *rows, strict=True)
    widths = [max(map(len, column)) for column in columns]
    for column, width in zip(columns, widths, strict=True):
        table.add_column(column[0], no_wrap=True, min_width=width)
    table.add_column(last[0], no_wrap=True, min_width=LEAST_STATE, overflow="ellipsis")
    for cells in rows:
        table.add_row(*map(Text, cells))
    console = Console()
    console.width = max(console.width, sum(widths) + len(widths) + LEAST_STATE)
    console.print(table)
