"""A ladder as text of 80 columns: plain, so that it stands in a ticket or a mail as it is."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from alg.observe.ladder import Arrow, Ladder, Rung, Tone
from alg.observe.printable import Line

WIDTH = 80
FIRST, LAST = 12, 71
INSIDE = 11
"""Columns of the first and the last lane, and between the gateway's."""

_STYLES = {
    Tone.REWRITTEN: "bold green",
    Tone.UNCHANGED: "bold",
    Tone.REFUSED: "bold yellow",
    Tone.DROPPED: "bold red",
    Tone.MEDIA: "cyan",
    Tone.SILENT: "bold red",
    Tone.CHANGE: "yellow",
}


def render_ladder(ladder: Ladder) -> Iterator[Line]:
    """Yields the lines of a ladder."""
    columns = _columns(ladder)
    for line in textwrap.wrap(ladder.title, WIDTH):
        yield Line(line, "bold")
    for text in _heads(ladder, columns):
        yield Line(text, "bold")
    for rung in ladder.rungs:
        yield Line(_arrows(rung, ladder, columns).rstrip(), _STYLES[rung.tone])
        for text, style in _remarks(rung):
            for line in textwrap.wrap(text, WIDTH - FIRST - 2, subsequent_indent="  "):
                yield Line(_write(_lifelines(columns), FIRST + 2, line).rstrip(), style)


def _columns(ladder: Ladder) -> list[int]:
    """Returns where each lane stands."""
    step = (LAST - FIRST - INSIDE) / (len(ladder.lanes) - 2)
    inner = FIRST + step * ladder.inner
    return [
        round(FIRST + step * lane if lane <= ladder.inner else inner + INSIDE + step * behind)
        for lane, behind in enumerate(
            range(-ladder.inner - 1, len(ladder.lanes) - ladder.inner - 1)
        )
    ]


def _heads(ladder: Ladder, columns: list[int]) -> Iterator[str]:
    """Yields the names of the lanes, then their addresses; those too long for that stand above."""
    rooms = _rooms(ladder, columns)
    for lane, room in zip(ladder.lanes, rooms, strict=True):
        if len(lane.address) > room:
            yield f"{lane.name}: {lane.address}"
    for words in ([lane.name for lane in ladder.lanes], [lane.address for lane in ladder.lanes]):
        line = ""
        for word, column, room in zip(words, columns, rooms, strict=True):
            cut = word if len(word) <= room else word[: room - 1] + "~"
            line = _write(line, column - len(cut) // 2, cut)
        yield line.rstrip()


def _rooms(ladder: Ladder, columns: list[int]) -> list[int]:
    """Returns how wide the head of each lane may be, so that none touches the next."""
    rooms = []
    for column in columns:
        nearest = min(abs(column - each) for each in columns if each != column)
        rooms.append(min(nearest - 1, 2 * column, 2 * (WIDTH - 1 - column)))
    rooms[ladder.inner + 1] = 2 * INSIDE - len("internal") - 1
    return rooms


def _arrows(rung: Rung, ladder: Ladder, columns: list[int]) -> str:
    line = _lifelines(columns)
    if rung.time is not None:
        line = _write(line, 0, f"{rung.time:.3f}".rjust(8))
    if not rung.arrows:
        line = _write(line, FIRST + 2, rung.notes[0])
    for arrow in rung.arrows:
        is_stopped = rung.tone is Tone.DROPPED and ladder.is_inside(arrow)
        left, right = sorted((columns[arrow.start], columns[arrow.end]))
        line = _write(line, left + 1, _arrow(arrow, right - left - 1, rung.tone, is_stopped))
    return line


def _arrow(arrow: Arrow, width: int, tone: Tone, is_stopped: bool) -> str:
    is_media = tone in (Tone.MEDIA, Tone.SILENT)
    shaft = arrow.label(width - 3).center(width - 1, "=" if is_media else "-")
    if arrow.start < arrow.end:
        return shaft + ("x" if is_stopped else ">")
    return ("x" if is_stopped else "<") + shaft


def _remarks(rung: Rung) -> Iterator[tuple[str, str]]:
    """Yields the edited fields, and what else is to be said, each with its style."""
    if rung.edits:
        yield "* " + ", ".join(names for names, _ in rung.edits), "green"
    for note in rung.notes if rung.arrows else rung.notes[1:]:
        yield note, "bold red" if rung.tone is Tone.SILENT else "yellow"


def _lifelines(columns: list[int]) -> str:
    line = " " * WIDTH
    for column in columns:
        line = _write(line, column, "|")
    return line


def _write(line: str, column: int, text: str) -> str:
    """Returns the line with a text in it, cut where the line ends."""
    line = line.ljust(WIDTH)
    return (line[:column] + text + line[column + len(text) :])[:WIDTH]
