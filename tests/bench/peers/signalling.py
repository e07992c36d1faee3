"""What signalling costs through each box, the boxes taking turns.

A turn looks for the rate that the box sustains (search.py). Processor time (cpu.py) is that of
everything at this rate, the generator included; less what the same load costs through a wire; and
that of the box's own processes. Latency is that of a message on its way, at half the rate, less
that through a wire. Then calls begin at twice the rate: goodput is the good ones as a share of it.
After that they begin at half the rate, and the box has recovered when all are good.

A box in the kernel has one processor for its work, that on which the generator is: a packet is
forwarded within the system call that sends it. So nobody can send twice of what it sustains.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping

from tests.bench.peers.box import BOXES, Box
from tests.bench.peers.cpu import memory
from tests.bench.peers.search import find_sustained, is_sustained
from tests.bench.peers.sipload import Load, play
from tests.bench.peers.stage import Stage, Wire

Figures = dict[str, list[float]]
"""The samples of each figure, one of each alternation: `signalling.BOX.NAME`."""
Say = Callable[[str], None]

SHARES = {"p50_ms": 0.5, "p99_ms": 0.99, "p999_ms": 0.999}
PHONES = 1000
FIRST_FACTOR, LATER_FACTOR = 2.0, 1.12
SECONDS, QUICK_SECONDS = 2.0, 0.7
WARM_UP = 4.0
PROBE, SETTLING_TIME = (20.0, 0.3), 15.0
OVERLOAD = 3.0
CALM = 0.01
"""Where fewer calls fail than this, a box is well again."""
STEP, STEPS = 0.25, 8


def measure(alternations: int, *, is_quick: bool, say: Say) -> Figures:
    """Measures the boxes in turn, so often; raises RuntimeError."""
    figures: Figures = defaultdict(list)
    rates: dict[str, float] = {}
    for number in range(alternations):
        for name, kind in BOXES.items():
            say(f"signalling through {name}, {number + 1} of {alternations}")
            seconds = QUICK_SECONDS if is_quick else SECONDS
            found = take_turn(kind, rates.get(name, 0.0), seconds)
            rates[name] = found["calls_per_second"]
            for figure, value in found.items():
                figures[f"signalling.{name}.{figure}"].append(value)
    return dict(figures)


def take_turn(kind: type[Box], known: float, seconds: float) -> Mapping[str, float]:
    """Returns the figures of one box; `known` is what it sustained the last time, or 0."""
    guess, factor = (known, LATER_FACTOR) if known else (kind.guess, FIRST_FACTOR)
    with Stage() as stage, kind(stage) as box:
        warm_up(box, guess / 2)
        best = find_sustained(lambda rate: attempt(box, rate, seconds), guess, factor)
        own = {**own_cost(best), "memory_mb": memory(box.pids) / 1e6} if box.pids else {}
    # What failed there has left calls behind that nobody ended.
    with Stage() as stage, kind(stage) as box:
        warm_up(box, best.rate / 2)
        half = play(box, [(best.rate / 2, seconds)], "--stamps")[0]
        after = overload(box, best.rate) if box.pids else {}
    with Wire() as wire:
        load = play(wire, [(best.rate, seconds)])[0]
        bare = play(wire, [(best.rate / 2, seconds)], "--stamps")[0]
    added = {
        name: max(0.0, half.latency(share) - bare.latency(share)) for name, share in SHARES.items()
    }
    return {
        "calls_per_second": best.rate,
        "us_per_message": best.microseconds,
        "us_of_box": best.microseconds - load.microseconds,
        **own,
        **added,
        **after,
    }


def attempt(place: Box | Wire, rate: float, seconds: float, *options: str) -> Load:
    """Plays one load; where that was too much, waits until all of it is through."""
    (load,) = play(place, [(rate, seconds)], *options)
    deadline = time.monotonic() + SETTLING_TIME
    while not is_sustained(load) and time.monotonic() < deadline:
        if is_sustained(play(place, [PROBE])[0]):
            break
    return load


def own_cost(load: Load) -> Mapping[str, float]:
    """Returns the microseconds of the box's own processes for a message, by mode."""
    each = 1e6 / max(load.messages, 1)
    return {"us_user": load.cpu.user * each, "us_system": load.cpu.system * each}


def warm_up(box: Box, rate: float) -> None:
    """Has each phone call once, if that takes no long time, so that its signalling is mapped."""
    play(box, [(rate, min(PHONES / rate, WARM_UP))])


def overload(box: Box, sustained: float) -> Mapping[str, float]:
    """Returns what becomes of twice the rate that a box sustains, and of half of it after that."""
    calm = (sustained / 2, STEP)
    loads = play(box, [calm, (sustained * 2, OVERLOAD), *[calm] * STEPS])
    ill = [number for number, load in enumerate(loads[2:], 1) if load.failed > CALM]
    return {
        "goodput": loads[1].good / OVERLOAD / sustained,
        "recovery_s": max(ill, default=0) * STEP,
    }
