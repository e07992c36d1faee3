"""What a run of the benchmark has found, as values: on the terminal tables, in a file JSON.

A figure has a name of three parts, as `signalling.sipnat.us_per_message`: its table, what it is of,
and what it is. It was measured once in each alternation, in which everything takes its turn: so two
figures are compared alternation by alternation, and what the machine did meanwhile is in both.
"""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

import msgspec

TABLES = {
    "signalling": "signalling",
    "latency": "p99 ms at % of that rate",
    "flat": "with so many mappings",
    "media": "media",
}
WORDS = {
    "calls_per_second": "calls/s sustained",
    "us_per_message": "CPU us/message",
    "us_of_box": "less a wire's",
    "us_user": "its own, user",
    "us_system": "its own, system",
    "p50_ms": "latency added, p50 ms",
    "p99_ms": "p99 ms",
    "p999_ms": "p99.9 ms",
    "goodput": "goodput at twice that",
    "recovery_s": "well again after, s",
    "memory_mb": "memory, MB",
    "calls": "calls open",
    "pause_ms": "longest wait, ms",
    "packets_per_second": "packets/s",
    "ns_per_packet": "CPU ns/packet",
    "ns_of_router": "less the wire's",
    "of_masquerade": "masquerade's share of it",
    "ns_first": "CPU ns, first of a flow",
    "percent_lost": "% lost at 4,000/s each way",
}


@dataclass(frozen=True, slots=True)
class Sample:
    """Measurements of one thing, in the order in which they were made."""

    median: float
    low: float
    high: float
    runs: tuple[float, ...]

    @classmethod
    def of(cls, runs: Iterable[float]) -> Self:
        """Returns the sample of these measurements, at least one."""
        runs = tuple(runs)
        return cls(statistics.median(runs), min(runs), max(runs), runs)

    def over(self, other: Self) -> Self:
        """Returns this as a multiple of another; of equally many runs, run by run."""
        if len(self.runs) == len(other.runs):
            pairs = zip(self.runs, other.runs, strict=True)
            return self.of(mine / its for mine, its in pairs)
        return self.of(mine / other.median for mine in self.runs)


@dataclass(frozen=True, slots=True)
class Report:
    """All that a run has found, and on which machine; `date` is UTC."""

    date: str
    kernel: str
    python: str
    cpus: int
    figures: Mapping[str, Sample]

    @classmethod
    def here(cls, figures: Mapping[str, Iterable[float]]) -> Self:
        """Returns the report of figures that were measured on this machine, just now."""
        date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M")
        samples = {name: Sample.of(runs) for name, runs in figures.items()}
        cpus = os.cpu_count() or 1
        return cls(date, platform.release(), platform.python_version(), cpus, samples)

    def table(self, name: str) -> dict[str, dict[str, Sample]]:
        """Returns the figures of one table, by what they are of and what they are."""
        found: dict[str, dict[str, Sample]] = {}
        for figure, sample in self.figures.items():
            table, of, what = figure.split(".")
            if table == name:
                found.setdefault(of, {})[what] = sample
        return found


def encode(report: Report) -> bytes:
    """Encodes a report as JSON."""
    return msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n"


def decode(data: bytes) -> Report:
    """Decodes what `encode` made; raises msgspec.DecodeError."""
    return msgspec.json.decode(data, type=Report)


def as_text(report: Report) -> str:
    """Renders a report for a terminal: tables of median (lowest-highest)."""
    about = f"Linux {report.kernel}, Python {report.python}, {report.cpus} CPUs"
    parts = [f"{report.date} UTC, {about}"]
    for name, title in TABLES.items():
        if table := report.table(name):
            parts.append("\n".join(aligned(_rows(title, table))))
    return "\n\n".join(parts)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Renders rows as lines: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join((row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:]))) for row in rows
    ]


def cell(sample: Sample) -> str:
    """Renders a sample; one of a single run has no range."""
    if len(sample.runs) == 1:
        return number(sample.median)
    return f"{number(sample.median)} ({number(sample.low)}-{number(sample.high)})"


def size_or_name(of: str) -> str:
    """Renders what a figure is of: a box, or sipnat with so many mappings."""
    return f"sipnat, {int(of):,}" if of.isdecimal() else of


def number(value: float) -> str:
    """Renders a number with three digits, or all of those before its point."""
    size = abs(value)
    if size >= 99.95:
        return f"{value:,.0f}"
    return f"{value:.1f}" if size >= 9.995 else f"{value:.2f}"


def _rows(title: str, table: Mapping[str, Mapping[str, Sample]]) -> list[list[str]]:
    """Returns a row for each kind of figure, a column for each thing that has figures."""
    kinds = dict.fromkeys(kind for figures in table.values() for kind in figures)
    rows = [[title, *map(size_or_name, table)]]
    for kind in kinds:
        cells = (cell(of[kind]) if kind in of else "-" for of in table.values())
        rows.append([WORDS.get(kind, kind), *cells])
    return rows
