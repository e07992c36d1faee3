"""What a run is held to: the goals, and the run that was committed as the baseline.

Absolute times tell of a machine, ratios within one run of the code. So goals are ratios where they
can be, and against the baseline nothing but ratios is checked, each with its tolerance.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.bench.peers.report import Report, Sample, aligned, cell, number

BASELINE = Path(__file__).parents[1] / "results" / "baseline.json"


@dataclass(frozen=True, slots=True)
class Goal:
    """A ceiling, or a floor, for a figure or its ratio to another."""

    name: str
    figure: str
    to: str
    """The other figure of a ratio; empty where the figure itself is bounded."""

    bound: float
    is_floor: bool = False
    tolerance: float = 0.0
    """By how much of the baseline's a ratio may be worse; 0 for what is not compared."""

    def measured(self, report: Report) -> Sample | None:
        """Returns what a run has found, None where it has not measured that."""
        sample, other = report.figures.get(self.figure), report.figures.get(self.to)
        if sample is None or not self.to:
            return sample
        return other and sample.over(other)

    def is_met(self, value: float) -> bool:
        """Tells whether a median keeps within the bound."""
        return value >= self.bound if self.is_floor else value <= self.bound

    def is_worse(self, value: float, before: float) -> bool:
        """Tells whether a median is worse than one before by more than the tolerance."""
        if self.is_floor:
            return value < before * (1 - self.tolerance)
        return value > before * (1 + self.tolerance)


def _signalling(box: str, figure: str = "us_per_message") -> str:
    return f"signalling.{box}.{figure}"


GOALS = (
    Goal(
        "CPU/message, sipnat to the kernel's helper",
        *(_signalling("sipnat"), _signalling("helper"), 2.0),
        tolerance=0.15,
    ),
    Goal(
        "CPU/message, Kamailio to sipnat",
        *(_signalling("kamailio"), _signalling("sipnat"), 2.5, True),
        tolerance=0.15,
    ),
    Goal(
        "calls/s, sipnat to the kernel's helper",
        *(_signalling("sipnat", "calls_per_second"), _signalling("helper", "calls_per_second")),
        *(0.5, True),
        tolerance=0.25,
    ),
    Goal("latency added at half the maximum, p99 ms", _signalling("sipnat", "p99_ms"), "", 1.0),
    Goal("goodput at twice the maximum", _signalling("sipnat", "goodput"), "", 0.8, True),
    Goal("well again after that, s", _signalling("sipnat", "recovery_s"), "", 1.0),
    *(
        Goal(
            f"CPU/message, {words} to none",
            *(f"flat.{size}.us_per_message", "flat.0.us_per_message", 1.2),
            tolerance=0.1,
        )
        for size, words in (("100000", "100,000 mappings"), ("calls", "20,000 calls"))
    ),
    *(
        Goal(f"longest wait, {words}, ms", f"flat.{size}.pause_ms", "", 20.0)
        for size, words in (("100000", "100,000 mappings"), ("calls", "20,000 calls"))
    ),
    *(
        Goal(
            f"CPU/packet, masquerade to sipnat, {int(count):,} mappings",
            *("media.masquerade.ns_per_packet", f"media.{count}.ns_per_packet", 0.97, True),
            tolerance=0.08,
        )
        for count in ("10", "1000", "100000")
    ),
    *(
        Goal(
            f"packets/s, sipnat to masquerade, {int(count):,} mappings",
            *(f"media.{count}.packets_per_second", "media.masquerade.packets_per_second"),
            *(0.97, True),
        )
        for count in ("10", "1000", "100000")
    ),
)


def as_text(report: Report) -> str:
    """Renders how a run stands to the goals."""
    rows = [["goals", "measured", "wanted", ""]]
    for goal in GOALS:
        if sample := goal.measured(report):
            wanted = f"{'at least' if goal.is_floor else 'at most'} {number(goal.bound)}"
            rows.append([goal.name, cell(sample), wanted, _word(goal.is_met(sample.median))])
    return "\n".join(aligned(rows)) if rows[1:] else ""


def regressions(report: Report, baseline: Report) -> Iterator[str]:
    """Yields a sentence for each ratio that is worse than the baseline's; both must have it."""
    for goal in GOALS:
        now, before = goal.measured(report), goal.measured(baseline)
        if not goal.tolerance or now is None or before is None:
            continue
        if goal.is_worse(now.median, before.median):
            yield (
                f"{goal.name}: {number(now.median)}, where the baseline of {baseline.date}"
                f" has {number(before.median)} and {goal.tolerance:.0%} are tolerated"
            )


def _word(is_met: bool) -> str:
    return "met" if is_met else "not met"
