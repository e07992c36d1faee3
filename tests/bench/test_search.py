"""The search of the rate that a box sustains, on boxes that are a number."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from tests.bench.peers.search import RESOLUTION, find_sustained


@dataclass(frozen=True)
class Run:
    """A second of a rate at a box; beyond its limit each call takes longer, or all fail."""

    rate: float
    limit: float
    failed: float = 0.0
    behind: float = 0.0

    def latency(self, share: float) -> float:
        return 1e3 * share * max(0.0, self.rate / self.limit - 1)


@dataclass
class Box:
    limit: float
    rates: list[float] = field(default_factory=list)

    def play(self, rate: float) -> Run:
        self.rates.append(rate)
        return Run(rate, self.limit, failed=0.5 if rate > 2 * self.limit else 0.0)


@pytest.mark.parametrize("limit", [25, 150, 900, 1100, 30_000])
@pytest.mark.parametrize("factor", [2.0, 1.12])
def test_the_limit_is_found_from_above_and_from_below(limit: float, factor: float) -> None:
    box = Box(limit)
    found = find_sustained(box.play, 1000.0, factor).rate
    # A second that a tenth too much was asked of is not late enough yet.
    assert limit / RESOLUTION <= found <= limit * 1.11


def test_a_known_limit_takes_few_runs() -> None:
    box = Box(5000.0)
    find_sustained(box.play, 5200.0, 1.12)
    assert len(box.rates) <= 4


def test_who_begins_calls_too_late_has_not_tried_the_rate() -> None:
    def play(rate: float) -> Run:
        return Run(rate, 1e9, behind=0.2 if rate > 3000 else 0.0)

    assert 3000 / RESOLUTION <= find_sustained(play, 1000.0, 2.0).rate <= 3000


def test_a_box_through_which_nothing_passes_is_said_so() -> None:
    with pytest.raises(RuntimeError, match="not even 10 calls/s"):
        find_sustained(lambda rate: Run(rate, 1.0, failed=1.0), 1000.0, 2.0)
