"""`--watch`: the same question every second, and each answer in the place of the one before.

On a terminal a frame fills the screen at the most; in the end the screen is as it was found, and
the last frame stands below. Anywhere else frames follow each other: tables with an empty line after
each, JSON as one array each. It ends with Ctrl-C.
"""

from __future__ import annotations

import shutil
import signal
import sys
from collections.abc import Iterable, Iterator

from alg.cli.app import ask_each
from alg.cli.columns import Columns, Row
from alg.cli.rates import Rates
from alg.cli.read_ahead import read_ahead
from alg.cli.tables import bold, print_rows, table_lines, write
from alg.io.clock import now, pause

INTERVAL = 1.0

_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
_HOME, _END_OF_LINE, _CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"


def watch(control: str, columns: Columns, values: Row, as_json: bool) -> None:
    """Shows rows and how fast their counts grow, for as long as it is let."""
    frames = _frames(control, columns, values)
    if as_json or not sys.stdout.isatty():
        for rows in frames:
            print_rows(rows, columns, as_json)
            if not as_json:
                write("")
    else:
        _redraw(frames, columns)


def _frames(control: str, columns: Columns, values: Row) -> Iterator[Iterable[Row]]:
    """Yields the rows of each moment; the gateway rests at least as long as an answer takes."""
    rates = Rates(columns.identity, columns.counts)
    while True:
        began = now()
        yield rates.add(read_ahead(ask_each(control, "show", values)), began)
        took = now() - began
        pause(max(INTERVAL - took, took))


def _redraw(frames: Iterable[Iterable[Row]], columns: Columns) -> None:
    """Draws each frame over the one before."""
    frame: list[str] = []
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    print(_ENTER, end="")
    try:
        for rows in frames:
            frame = _frame(list(rows), columns)
            drawn = f"{_END_OF_LINE}\n".join(frame)
            print(f"{_HOME}{drawn}{_END_OF_LINE}{_CLEAR_BELOW}", end="", flush=True)
    finally:
        print(_LEAVE, end="", flush=True)
        write("\n".join(frame))


def _frame(rows: list[Row], columns: Columns) -> list[str]:
    """Returns the lines of one screen; rows for which there is no room are counted."""
    width, height = shutil.get_terminal_size()
    if not rows:
        return [f"no {columns.what}"]
    room = max(1, height - 2)
    if columns.lines is not None:
        lines = [line for row in rows for line in columns.lines(row, width)]
        return lines if len(lines) <= room else [*lines[: room - 1], "and more"]
    shown = rows if len(rows) <= room else rows[: room - 1]
    table = table_lines(columns.headings, map(columns.cells, shown), width)
    heading, *lines = (line[:width] for block in table for line in block)
    left_out = len(rows) - len(shown)
    more = [f"and {left_out} more {columns.what}"] if left_out else []
    return [bold(heading), *lines, *more]
