"""A ladder as an SVG picture: one file with everything in it, for a ticket or a page.

There is no script, no style sheet and nothing to load: only shapes and text with attributes of
their own, so that no policy of a page stands in its way. All text is escaped.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from alg.observe.ladder import Arrow, Ladder, Rung, Tone

WIDTH = 960
FIRST, LAST = 130, 860
INSIDE = 130
"""Where the first and the last lane stand, and how far the gateway's are from each other."""

TOP = 112
"""Where the first rung begins."""

STEP, NOTE = 34, 17
"""What an arrow takes of the height, and a line of notes."""

NOTE_CHARACTERS = 104
MONO = "ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace"
SANS = "system-ui, 'DejaVu Sans', 'Segoe UI', Helvetica, Arial, sans-serif"
INK, DIM, RULE, BAND = "#1c2733", "#66737f", "#c3ccd5", "#f0f4f8"
COLOURS = {
    Tone.REWRITTEN: "#0b6bcb",
    Tone.UNCHANGED: "#5a6672",
    Tone.REFUSED: "#9a6700",
    Tone.DROPPED: "#c62f2f",
    Tone.MEDIA: "#1d8348",
    Tone.SILENT: "#c62f2f",
    Tone.CHANGE: "#9a6700",
}


def render_svg(ladder: Ladder) -> str:
    """Renders a ladder as a complete SVG document."""
    columns = _columns(ladder)
    body: list[str] = []
    height = TOP
    for rung in ladder.rungs:
        body += _rung(rung, ladder, columns, height)
        height += _height(rung)
    height += 16
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"'
            f' width="{WIDTH}" height="{height}" role="img">',
            f"<title>{escape(ladder.title)}</title>",
            f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
            _text(24, 34, ladder.title, 17, anchor="start", weight=600),
            *_lanes(ladder, columns, height),
            *body,
            "</svg>",
            "",
        )
    )


def _columns(ladder: Ladder) -> list[float]:
    """Returns where each lane stands."""
    step = (LAST - FIRST - INSIDE) / (len(ladder.lanes) - 2)
    return [
        FIRST + step * lane if lane <= ladder.inner else FIRST + step * (lane - 1) + INSIDE
        for lane in range(len(ladder.lanes))
    ]


def _lanes(ladder: Ladder, columns: list[float], height: float) -> Iterator[str]:
    inner, outer = columns[ladder.inner], columns[ladder.inner + 1]
    yield (
        f'<rect x="{inner:.1f}" y="{TOP - 12}" width="{outer - inner:.1f}"'
        f' height="{height - TOP}" fill="{BAND}"/>'
    )
    for lane, x in zip(ladder.lanes, columns, strict=True):
        yield (
            f'<line x1="{x:.1f}" y1="{TOP - 12}" x2="{x:.1f}" y2="{height - 12}"'
            f' stroke="{RULE}" stroke-width="1.5"/>'
        )
        yield _text(x, 66, lane.name, 13, weight=600)
        yield _text(x, 84, _cut(lane.address, 24), 11.5, fill=DIM, family=MONO)


def _height(rung: Rung) -> int:
    return (STEP if rung.arrows else 12) + NOTE * (len(rung.edits) + len(rung.notes))


def _rung(rung: Rung, ladder: Ladder, columns: list[float], top: float) -> Iterator[str]:
    colour = COLOURS[rung.tone]
    line = top + (22 if rung.arrows else 0)
    if rung.time is not None:
        beside = line + 4 if rung.arrows else line + NOTE
        yield _text(78, beside, f"{rung.time:.3f} s", 11.5, "end", fill=DIM, family=MONO)
    for arrow in rung.arrows:
        is_stopped = rung.tone is Tone.DROPPED and ladder.is_inside(arrow)
        yield from _arrow(arrow, columns, line, rung.tone, is_stopped)
    for names, change in rung.edits:
        line += NOTE
        yield _note(line, f"{names}: {change.replace(' -> ', ' → ')}", colour)
    for note in rung.notes:
        line += NOTE
        is_grave = rung.tone in (Tone.REFUSED, Tone.DROPPED, Tone.SILENT)
        yield _note(line, note.replace(" <-> ", " ↔ "), colour if is_grave else DIM)


def _arrow(
    arrow: Arrow, columns: list[float], y: float, tone: Tone, is_stopped: bool
) -> Iterator[str]:
    start, end = columns[arrow.start], columns[arrow.end]
    ahead = 1 if end > start else -1
    is_media = tone in (Tone.MEDIA, Tone.SILENT)
    size, width = (7, 3.5) if is_media else (5, 1.6)
    tip = end - 2 * ahead if not is_stopped else (start + end) / 2
    dashes = ' stroke-dasharray="7 5"' if tone is Tone.SILENT else ""
    yield (
        f'<line x1="{start:.1f}" y1="{y}" x2="{tip - ahead * size:.1f}" y2="{y}"'
        f' stroke="{COLOURS[tone]}" stroke-width="{width}"{dashes}/>'
    )
    if is_stopped:
        yield (
            f'<path d="M{tip - 5:.1f} {y - 5} l10 10 m0 -10 l-10 10" stroke="{COLOURS[tone]}"'
            ' stroke-width="2" fill="none"/>'
        )
    else:
        back = tip - ahead * size * 1.8
        yield (
            f'<polygon points="{tip:.1f},{y} {back:.1f},{y - size} {back:.1f},{y + size}"'
            f' fill="{COLOURS[tone]}"/>'
        )
    label = arrow.label(int(abs(end - start) / 8))
    yield _text((start + end) / 2, y - 7, label, 12.5, fill=COLOURS[tone])


def _note(y: float, text: str, colour: str) -> str:
    return _text(
        FIRST + 16, y, _cut(text, NOTE_CHARACTERS), 11.5, "start", fill=colour, family=MONO
    )


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _text(
    x: float,
    y: float,
    text: str,
    size: float,
    anchor: str = "middle",
    *,
    fill: str = INK,
    weight: int = 400,
    family: str = SANS,
) -> str:
    """Renders a text with a white rim, so that it can be read across a line."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{fill}"'
        f' font-weight="{weight}" font-family="{escape(family)}" stroke="#ffffff"'
        f' stroke-width="3" stroke-linejoin="round" paint-order="stroke">{escape(text)}</text>'
    )
