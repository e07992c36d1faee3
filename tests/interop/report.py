"""The matrix as text and as Markdown: a row for each way to play, a column for each scenario."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from tests.interop.matrix import CANNOT, FAILED, OK, Result
from tests.interop.scenarios import SCENARIOS
from tests.interop.stage import GATEWAYS, Cell

NOT_PLAYED = "-"
WORDS = {
    "kamailio": "Kamailio",
    "nathelper": "with nathelper",
    "none": "no gateway",
    "helper": "kernel's helper",
    "routed": "routed, no NAT",
}
LETTERS = {"sipnat": "S", "none": "N", "helper": "H", "routed": "R"}


def as_text(results: Sequence[Result]) -> str:
    """Renders the matrix for a terminal."""
    rows = table(results)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
    totals = (f"{WORDS.get(name, name)}: {found}" for name, found in sums(results))
    return "\n".join((*lines, "", *totals))


def as_markdown(results: Sequence[Result]) -> str:
    """Renders the matrix for a README.

    A row is a phone with a server; a cell has a letter for each gateway that it works with.
    """
    states = {result.cell: result.state for result in results}
    columns = _columns(states)
    rows = [["phone", "server", "over", *columns]]
    for way in dict.fromkeys(replace(cell, scenario="", gateway="") for cell in states):
        row = [way.who, WORDS[way.server], way.transport.upper()]
        for scenario in columns:
            played = [replace(way, scenario=scenario, gateway=each) for each in GATEWAYS]
            found = [LETTERS[each.gateway] for each in played if states.get(each) == OK]
            other = next((states[each] for each in played if each in states), NOT_PLAYED)
            row.append(" ".join(found) or other)
        rows.append(row)
    legend = [["", "gateway", "cells that work"]]
    legend += [[LETTERS[name], WORDS.get(name, name), found] for name, found in sums(results)]
    why = (f"- {line}" for line in reasons(results))
    return "\n".join((*_pipes(legend), "", *_pipes(rows), "", *why))


def table(results: Sequence[Result]) -> list[list[str]]:
    """Returns the rows of the matrix, headings first."""
    states = {result.cell: result.state for result in results}
    columns = _columns(states)
    rows = [["phone", "server", "over", "gateway", *columns]]
    for way in dict.fromkeys(replace(cell, scenario="") for cell in states):
        cells = (replace(way, scenario=scenario) for scenario in columns)
        gateway = WORDS.get(way.gateway, way.gateway)
        words = (way.who, WORDS[way.server], way.transport.upper(), gateway)
        rows.append([*words, *(states.get(cell, NOT_PLAYED) for cell in cells)])
    return rows


def sums(results: Sequence[Result]) -> list[tuple[str, str]]:
    """Returns for each gateway how many cells work, of those that the phones can play."""
    found = []
    for gateway in GATEWAYS:
        states = Counter(each.state for each in results if each.cell.gateway == gateway)
        if played := states[OK] + states[FAILED]:
            found.append((gateway, f"{states[OK]} of {played}"))
    return found


def reasons(results: Sequence[Result]) -> list[str]:
    """Returns why a phone cannot play what it cannot, each reason once."""
    return list(
        dict.fromkeys(
            f"{each.cell.phone}, {each.cell.scenario}: {each.why}"
            for each in results
            if each.state == CANNOT
        )
    )


def faults(results: Sequence[Result]) -> list[Result]:
    """Returns the cells that fail through the gateway, and do not without any NAT."""
    ceiling = {each.cell for each in results if each.state == FAILED}
    return [
        each
        for each in results
        if each.state == FAILED
        and each.cell.gateway == "sipnat"
        and replace(each.cell, gateway="routed") not in ceiling
    ]


def _columns(cells: Iterable[Cell]) -> list[str]:
    played = {cell.scenario for cell in cells}
    return [name for name in SCENARIOS if name in played]


def _pipes(rows: Sequence[Sequence[str]]) -> list[str]:
    heading, *others = ("| " + " | ".join(row) + " |" for row in rows)
    return [heading, "|" + "---|" * len(rows[0]), *others]
