"""Plots of a report, as SVG: CPU per message against the size of the table, latency against rate.

A point is a median, its bar reaches from the lowest to the highest measurement. As in a ladder
(alg/observe/ladder_svg.py) there is nothing to load: shapes and text with attributes of their own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape

from tests.bench.peers.report import Report, Sample, number

WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 76, 600, 56, 362
FONT = "system-ui, 'DejaVu Sans', 'Segoe UI', Helvetica, Arial, sans-serif"
INK, DIM, GRID = "#1c2733", "#66737f", "#dfe5ea"
COLOURS = ("#0b6bcb", "#c62f2f", "#1d8348", "#9a6700", "#7a3fb0", "#5a6672")
TICKS = 6

LINES = {"everything": "us_per_message", "gateway, user": "us_user", "gateway, system": "us_system"}

Points = Sequence[tuple[float, Sample]]
"""x, and a sample of y."""


def plots(report: Report) -> dict[str, str]:
    """Returns the plots that a report has figures for, by file name."""
    found = {}
    if table := report.table("flat"):
        found["table.svg"] = _against_size(table)
    if table := report.table("latency"):
        rates = report.table("signalling")
        lines = {
            box: [
                (int(percent) / 100 * rates[box]["calls_per_second"].median, sample)
                for percent, sample in samples.items()
            ]
            for box, samples in table.items()
        }
        labels = "calls per second", "milliseconds"
        found["latency.svg"] = line_plot("Latency of a message, p99, by the rate", labels, lines)
    return found


def _against_size(table: Mapping[str, Mapping[str, Sample]]) -> str:
    """Renders sizes, which are 0 and powers of ten, evenly spaced."""
    sizes = sorted((of for of in table if of.isdecimal()), key=int)
    lines = {
        name: [(float(place), table[size][what]) for place, size in enumerate(sizes)]
        for name, what in LINES.items()
    }
    ticks = {float(place): f"{int(size):,}" for place, size in enumerate(sizes)}
    labels = "mappings", "microseconds"
    return line_plot("CPU per message, by the size of the table", labels, lines, ticks)


def line_plot(
    title: str,
    labels: tuple[str, str],
    lines: Mapping[str, Points],
    ticks: Mapping[float, str] | None = None,
) -> str:
    """Renders lines over common axes that begin at 0; `ticks` names places on the x axis."""
    points = [point for line in lines.values() for point in line]
    right = max(x for x, _ in points) or 1.0
    top = max(sample.high for _, sample in points) or 1.0
    ticks = ticks or {x: f"{x:,.0f}" for x in _steps(right)}
    margin = 0.04 * right

    def across(x: float) -> float:
        return LEFT + (x + margin) / (right + 2 * margin) * (RIGHT - LEFT)

    def up(y: float) -> float:
        return BOTTOM - y / (top * 1.05) * (BOTTOM - TOP)

    body = [_text(LEFT, 28, title, 16, "start", INK)]
    body.append(_text((LEFT + RIGHT) / 2, HEIGHT - 14, labels[0], 13))
    body.append(_text(LEFT - 52, TOP - 14, labels[1], 13, "start"))
    for y in _steps(top):
        body.append(_line((LEFT, up(y)), (RIGHT, up(y)), GRID))
        body.append(_text(LEFT - 8, up(y) + 4, number(y), 12, "end"))
    for x, word in ticks.items():
        body.append(_line((across(x), BOTTOM), (across(x), BOTTOM + 5), DIM))
        body.append(_text(across(x), BOTTOM + 20, word, 12))
    body.append(_line((LEFT, BOTTOM), (RIGHT, BOTTOM), DIM))
    for place, (name, line) in enumerate(lines.items()):
        colour = COLOURS[place % len(COLOURS)]
        path = " ".join(f"{across(x):.1f},{up(sample.median):.1f}" for x, sample in line)
        body.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2.5"/>')
        for x, sample in line:
            low, high = up(sample.low), up(sample.high)
            body.append(_line((across(x), low), (across(x), high), colour))
            body.append(
                f'<circle cx="{across(x):.1f}" cy="{up(sample.median):.1f}" r="4" fill="{colour}"/>'
            )
        y = TOP + 10 + 22 * place
        body.append(_line((RIGHT + 14, y), (RIGHT + 36, y), colour, 3))
        body.append(_text(RIGHT + 42, y + 4, name, 13, "start", INK))
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"'
            f' width="{WIDTH}" height="{HEIGHT}" role="img" font-family="{escape(FONT)}">',
            f"<title>{escape(title)}</title>",
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
            *body,
            "</svg>",
            "",
        )
    )


def _steps(end: float) -> Iterator[float]:
    """Yields round values from 0 to an end, about six of them."""
    unit = 10 ** math.floor(math.log10(end / TICKS))
    step = next(unit * each for each in (1, 2, 5, 10) if unit * each * TICKS >= end)
    for place in range(math.floor(end / step) + 1):
        yield place * step


def _line(
    start: tuple[float, float], end: tuple[float, float], colour: str, width: float = 1
) -> str:
    return (
        f'<line x1="{start[0]:.1f}" y1="{start[1]:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}"'
        f' stroke="{colour}" stroke-width="{width}"/>'
    )


def _text(
    x: float, y: float, text: str, size: float, anchor: str = "middle", colour: str = DIM
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}"'
        f' fill="{colour}">{escape(text)}</text>'
    )
