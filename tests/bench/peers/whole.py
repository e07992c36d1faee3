"""`./dev bench`: sipnat beside what users would run instead, in one run in which all take turns."""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.bench.peers import baseline, flatness, media, plot, report, signalling, sweep
from tests.bench.peers.report import Report
from tests.bench.peers.signalling import Figures
from tests.lab.namespace import exit_on_signals

ALTERNATIONS, QUICK_ALTERNATIONS = 5, 1
PARTS = ("signalling", "flat", "media")
GUESS = 300.0
"""Calls a second that a table is filled and measured at where nobody has searched the rate."""


def main(arguments: Sequence[str]) -> int:
    """Measures, prints the tables and returns the exit status."""
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short turn each")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="write plots there, as SVG")
    parser.add_argument(
        "--check",
        action="store_true",
        help="end with 1 if a ratio is worse than in tests/bench/results/baseline.json",
    )
    parser.add_argument(
        "--only", choices=PARTS, action="append", default=[], help="leave out the other parts"
    )
    given = parser.parse_args(arguments)
    if given.check and not baseline.BASELINE.exists():
        parser.error("there is no baseline: make one by --json tests/bench/results/baseline.json")
    for folder in filter(None, (given.plots, given.json and given.json.absolute().parent)):
        folder.mkdir(parents=True, exist_ok=True)
    exit_on_signals()
    result = Report.here(measure(given.only or PARTS, is_quick=given.quick))
    print(report.as_text(result), baseline.as_text(result), sep="\n\n")
    if given.json:
        given.json.write_bytes(report.encode(result))
    if given.plots:
        for name, picture in plot.plots(result).items():
            (given.plots / name).write_text(picture)
    return check(result) if given.check else 0


def measure(parts: Sequence[str], *, is_quick: bool) -> Figures:
    """Returns the figures of these parts."""
    figures: Figures = {}
    times = QUICK_ALTERNATIONS if is_quick else ALTERNATIONS
    if "signalling" in parts:
        figures |= signalling.measure(times, is_quick=is_quick, say=say)
        figures |= sweep.measure(times, figures, is_quick=is_quick, say=say)
    if "flat" in parts:
        rates = figures.get("signalling.sipnat.calls_per_second", [GUESS])
        figures |= flatness.measure(times, statistics.median(rates), is_quick=is_quick, say=say)
    if "media" in parts:
        figures |= media.measure(times, is_quick=is_quick, say=say)
    return figures


def check(result: Report) -> int:
    """Says what is worse than the baseline; returns the exit status."""
    worse = list(baseline.regressions(result, report.decode(baseline.BASELINE.read_bytes())))
    for sentence in worse:
        print(f"bench: {sentence}", file=sys.stderr)
    return 1 if worse else 0


def say(what: str) -> None:
    """Says what is being done."""
    print(f"==> {what}", file=sys.stderr, flush=True)
