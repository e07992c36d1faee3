"""What a message costs sipnat however full its table is, and the longest that one has to wait.

The table has mappings from the start, which the store hands over, or those of open calls: of two
streams, with 4 mappings each, which phones have begun and not ended (as many as there is time for).
The rate is one and the same for all. The longest that a message takes is looked for in a trickle of
calls; the same through a wire says what the machine itself does.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from tests.bench.peers.box import Sipnat
from tests.bench.peers.cpu import memory
from tests.bench.peers.crowd import loaded
from tests.bench.peers.signalling import Figures, Say, own_cost, warm_up
from tests.bench.peers.sipload import play
from tests.bench.peers.stage import Stage, Wire

OPEN_CALLS, WIRE = "calls", "wire"
SIZES = (0, 1_000, 10_000, 100_000)
QUICK_SIZES = (0, 100_000)
MOST_CALLS = 20_000
KEPT_OPEN = ("--keep-open", "--streams", "2", "--cycle", "64")
SECONDS, QUICK_SECONDS = 3.0, 1.5
PATIENCE, QUICK_PATIENCE = 30.0, 8.0
"""Seconds for which open calls are begun at the most."""
TRICKLE = 100.0
"""Calls per second."""


def measure(alternations: int, sustained: float, *, is_quick: bool, say: Say) -> Figures:
    """Measures each size so often, at half of what sipnat sustains; raises RuntimeError.

    Figures are `flat.MAPPINGS.NAME`, `flat.calls.NAME` of the open calls, and what the same
    load does through a wire: `flat.wire.NAME`.
    """
    figures: Figures = defaultdict(list)
    sizes = QUICK_SIZES if is_quick else SIZES
    seconds, patience = (QUICK_SECONDS, QUICK_PATIENCE) if is_quick else (SECONDS, PATIENCE)
    rate = sustained / 2

    def note(of: object, found: Mapping[str, float]) -> None:
        for name, value in found.items():
            figures[f"flat.{of}.{name}"].append(value)

    for number in range(alternations):
        for size in sizes:
            say(f"sipnat with {size:,} mappings, {number + 1} of {alternations}")
            note(size, measure_size(size, rate, seconds))
        say(f"sipnat with open calls, {number + 1} of {alternations}")
        note(OPEN_CALLS, measure_calls(rate, seconds, patience))
        with Wire() as wire:
            bare = play(wire, [(rate, seconds)])[0].microseconds
            note(WIRE, {"us_per_message": bare, **_pause(wire, seconds)})
    return dict(figures)


def measure_size(mappings: int, rate: float, seconds: float) -> Mapping[str, float]:
    """Returns the figures with so many mappings from the store."""
    with Stage() as stage, loaded(stage, mappings) as box:
        warm_up(box, rate)
        return {**_cost(box, rate, seconds), **_pause(box, seconds)}


def measure_calls(rate: float, seconds: float, patience: float) -> Mapping[str, float]:
    """Returns the figures with open calls."""
    with Stage() as stage, Sipnat(stage) as box:
        warm_up(box, rate)
        fill = play(box, [(rate, min(patience, MOST_CALLS / rate))], *KEPT_OPEN)[0]
        return {**_cost(box, rate, seconds), **_pause(box, seconds), "calls": fill.good}


def _cost(box: Sipnat, rate: float, seconds: float) -> Mapping[str, float]:
    load = play(box, [(rate, seconds)])[0]
    resident = memory(box.pids) / 1e6
    return {"us_per_message": load.microseconds, **own_cost(load), "memory_mb": resident}


def _pause(place: Sipnat | Wire, seconds: float) -> Mapping[str, float]:
    return {"pause_ms": play(place, [(TRICKLE, seconds)], "--stamps")[0].latency(1.0)}
