"""How long a message takes through each box, from one that is nearly idle to one nearly full.

Figures are samples, one of each alternation: `latency.BOX.PERCENT` is the p99 in milliseconds, of a
message one way, at this share of the rate that the box has sustained in this run.
"""

from __future__ import annotations

import statistics
from collections import defaultdict

from tests.bench.peers.box import BOXES
from tests.bench.peers.signalling import Figures, Say, warm_up
from tests.bench.peers.sipload import play
from tests.bench.peers.stage import Stage

PERCENT = (10, 25, 50, 75, 90)
SECONDS, QUICK_SECONDS = 1.0, 0.4


def measure(alternations: int, found: Figures, *, is_quick: bool, say: Say) -> Figures:
    """Plays each share through each box so often; `found` says what they sustain."""
    figures: Figures = defaultdict(list)
    seconds = QUICK_SECONDS if is_quick else SECONDS
    for number in range(alternations):
        say(f"latency against rate, {number + 1} of {alternations}")
        for name, kind in BOXES.items():
            most = statistics.median(found[f"signalling.{name}.calls_per_second"])
            phases = [(most * percent / 100, seconds) for percent in PERCENT]
            with Stage() as stage, kind(stage) as box:
                warm_up(box, most / 2)
                loads = play(box, phases, "--stamps")
            for percent, load in zip(PERCENT, loads, strict=True):
                figures[f"latency.{name}.{percent}"].append(load.latency(0.99))
    return dict(figures)
