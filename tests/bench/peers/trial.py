"""`./dev bench trial`: one load through one box, to see what a change to the gateway has brought.

What the generator itself has cost is what the same load costs through `--box wire`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tests.bench.peers.box import BOXES, Box
from tests.bench.peers.cpu import memory
from tests.bench.peers.search import find_sustained
from tests.bench.peers.signalling import FIRST_FACTOR, attempt
from tests.bench.peers.sipload import Load, play
from tests.bench.peers.stage import Stage, Wire
from tests.lab.namespace import exit_on_signals

WIRE = "wire"
WARM_UP = 1.0
GUESS = 1_000.0
SHARES = (0.5, 0.99, 0.999, 1.0)


def main(arguments: Sequence[str]) -> None:
    """Plays the load and prints what became of it."""
    parser = argparse.ArgumentParser(prog="./dev bench trial", description=__doc__)
    parser.add_argument("--box", choices=(*BOXES, WIRE), default="sipnat")
    parser.add_argument(
        "--rate", type=float, help="calls per second; without it, the most that is sustained"
    )
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument(
        "--load", default="", metavar="OPTIONS", help='options of sipload.c, as "--hold 5 --stamps"'
    )
    given = parser.parse_args(arguments)
    exit_on_signals()
    with _place(given.box) as place:
        load = _load(place, given.rate, given.seconds, given.load.split())
        resident = memory(place.pids)
    each = 1e6 / max(load.messages, 1)
    latencies = ", ".join(f"p{share * 100:g} {load.latency(share):.3f}" for share in SHARES)
    print(
        f"{given.box} at {load.rate:,.0f} calls/s for {load.seconds:g} s\n"
        f"calls    {load.started} begun, {load.good} good, {load.failed:.2%} failed "
        f"({load.late} late, {load.wrong} wrong, {load.refused} refused)\n"
        f"CPU      {load.microseconds:.1f} us/message, of these the box's processes "
        f"{load.cpu.user * each:.1f} user + {load.cpu.system * each:.1f} system\n"
        f"latency  {latencies} ms\n"
        f"a call began {load.behind * 1e3:.1f} ms late at the worst; memory {resident / 1e6:.0f} MB"
    )


def _load(place: Box | Wire, rate: float | None, seconds: float, options: Sequence[str]) -> Load:
    if rate is None:
        return find_sustained(
            lambda rate: attempt(place, rate, seconds, *options), GUESS, FIRST_FACTOR
        )
    return play(place, [(rate, WARM_UP), (rate, seconds)], *options)[1]


@contextmanager
def _place(name: str) -> Iterator[Box | Wire]:
    if name == WIRE:
        with Wire() as wire:
            yield wire
    else:
        with Stage() as stage, BOXES[name](stage) as box:
            yield box
