"""What a run has found, as text and as JSON, and how it stands to the goals and to a baseline."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.bench.peers import baseline, report, whole
from tests.bench.peers.baseline import GOALS, Goal
from tests.bench.peers.report import Report, Sample, number

FIGURES = {
    "signalling.helper.us_per_message": Sample.of([10.0, 20.0, 30.0]),
    "signalling.sipnat.us_per_message": Sample.of([30.0, 40.0, 45.0]),
    "signalling.sipnat.memory_mb": Sample.of([61.5]),
    "media.1000.ns_per_packet": Sample.of([32_000.0, 31_000.0]),
}
REPORT = Report("2026-01-02 03:04", "6.1.0", "3.11.2", 2, FIGURES)
OWN_COST = "signalling.sipnat.us_per_message"


def test_sample_is_its_median_and_its_ends() -> None:
    sample = Sample.of(iter([3.0, 1.0, 10.0]))
    assert (sample.median, sample.low, sample.high) == (3.0, 1.0, 10.0)
    assert Sample.of([1.0, 2.0]).median == 1.5


def test_ratio_is_taken_run_by_run() -> None:
    slow_machine_in_the_second = Sample.of([2.0, 20.0, 2.0]), Sample.of([1.0, 10.0, 1.0])
    assert Sample.over(*slow_machine_in_the_second).runs == (2.0, 2.0, 2.0)
    assert Sample.of([4.0, 8.0]).over(Sample.of([1.0, 2.0, 9.0])).runs == (2.0, 4.0)


def test_text_has_a_table_for_each_section() -> None:
    assert report.as_text(REPORT) == (
        "2026-01-02 03:04 UTC, Linux 6.1.0, Python 3.11.2, 2 CPUs\n"
        "\n"
        "signalling                helper            sipnat\n"
        "CPU us/message  20.0 (10.0-30.0)  40.0 (30.0-45.0)\n"
        "memory, MB                     -              61.5\n"
        "\n"
        "media                   sipnat, 1,000\n"
        "CPU ns/packet  31,500 (31,000-32,000)"
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0.00"), (9.994, "9.99"), (9.996, "10.0"), (99.96, "100"), (-12345.6, "-12,346")],
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_json_comes_back() -> None:
    assert report.decode(report.encode(REPORT)) == REPORT


def test_goals_are_told() -> None:
    assert baseline.as_text(REPORT) == (
        "goals                                               measured        wanted     \n"
        "CPU/message, sipnat to the kernel's helper  2.00 (1.50-3.00)  at most 2.00  met"
    )
    assert baseline.as_text(replace(REPORT, figures={})) == ""


@pytest.mark.parametrize(("runs", "is_worse"), [([30.0, 45.0, 45.0], False), ([90.0], True)])
def test_regression_is_a_ratio_beyond_its_tolerance(runs: list[float], is_worse: bool) -> None:
    now = replace(REPORT, figures={**FIGURES, OWN_COST: Sample.of(runs)})
    sentences = list(baseline.regressions(now, REPORT))
    assert sentences == is_worse * [
        "CPU/message, sipnat to the kernel's helper: 4.50, where the baseline of 2026-01-02 03:04"
        " has 2.00 and 15% are tolerated"
    ]


def test_machine_that_is_slower_in_all_is_no_regression() -> None:
    slower = {name: Sample.of(10 * run for run in sample.runs) for name, sample in FIGURES.items()}
    assert not list(baseline.regressions(replace(REPORT, figures=slower), REPORT))


def test_floor_is_worse_below() -> None:
    goal = Goal("calls", "a.b.c", "d.e.f", 2.5, True, tolerance=0.2)
    assert goal.is_met(2.5) and not goal.is_met(2.4)
    assert goal.is_worse(0.7, 1.0) and not goal.is_worse(0.9, 1.0) and not goal.is_worse(9.0, 1.0)


def test_what_one_of_both_has_not_measured_is_not_compared() -> None:
    without = replace(REPORT, figures={OWN_COST: Sample.of([99.0])})
    assert not list(baseline.regressions(without, REPORT))
    assert not list(baseline.regressions(REPORT, without))


def test_goals_name_figures_that_are_measured() -> None:
    kinds = {each.rpartition(".")[2] for goal in GOALS for each in (goal.figure, goal.to) if each}
    assert kinds <= set(report.WORDS)


@pytest.mark.parametrize("is_worse", [False, True])
def test_check_ends_with_1_where_something_is_worse(
    is_worse: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "baseline.json"
    path.write_bytes(report.encode(REPORT))
    monkeypatch.setattr(baseline, "BASELINE", path)
    now = replace(REPORT, figures={**FIGURES, OWN_COST: Sample.of([99.0 if is_worse else 9.0])})
    assert whole.check(now) == is_worse
    assert capsys.readouterr().err.count("bench: ") == is_worse
