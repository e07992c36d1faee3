"""What an RTP packet costs through each box, and the first packet of a flow.

Figures are samples, one of each alternation: `media.BOX.NAME`. Of sipnat BOX is the number of its
mappings; `wire` is the generator alone, without a router.

    packets_per_second  as many as can be, both ways together
    ns_per_packet       processor time of everything, then (cpu.py)
    ns_of_router        the same, less that of the wire
    of_masquerade       masquerade's ns_per_packet as a share of it: 0.5 is twice the cost
    ns_first            processor time of the first packet of a flow
    percent_lost        of packets at a moderate rate

Every box stands on a stage of its own, all at the same time, and they take turns: so a gateway with
100,000 mappings is filled once. In each round a box gets flows that it has never seen, between
phones that all use one port and remotes that are all different. sipnat's flows are those of its
mappings: of two phones where there are ten.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import NamedTuple

from tests.bench.peers.box import Box
from tests.bench.peers.cpu import Meter
from tests.bench.peers.crowd import loaded, phone
from tests.bench.peers.rtpengine import Rtpengine
from tests.bench.peers.rtpload import Flow, RtpLoad
from tests.bench.peers.signalling import Figures, Say
from tests.bench.peers.stage import WIRE, Stage, Wire
from tests.bench.table import PER_HOST
from tests.lab.network import SERVER

MAPPINGS = (10, 1_000, 100_000)
FLOWS = 1_000
RATE = 4_000.0
"""Packets a second each way: eighty calls."""

SECONDS, QUICK_SECONDS, WARM_UP = 1.0, 0.4, 0.2
REMOTES = "198.18.0.0/15"
WIRE_NAME = "wire"


class Turn(NamedTuple):
    """What one round has found of one box."""

    packets: float
    cost: float
    first: float
    lost: float


class Contender:
    """A box on a stage, with the flows that go through it."""

    def __init__(self, name: str, place: Stage | Wire, box: Box | None, phones: int) -> None:
        self.name = name
        self._place, self._box, self._phones = place, box, phones
        self._relayed: list[Flow] = []
        if isinstance(box, Rtpengine):
            self._relayed = [box.relay(phone(number), remote(number)) for number in range(FLOWS)]

    def play(self, round_number: int, seconds: float) -> Turn:
        """Plays flows that are new in this round; raises RuntimeError where none comes through."""
        box = self._box.pids if self._box else ()
        place = self._place
        with RtpLoad(place.lan, place.wan, self._flows(round_number)) as load:
            meter = Meter(load.pids, box)
            _, opened = load.open()
            first = meter.lap().total / FLOWS
            if opened.received < FLOWS:
                raise RuntimeError(f"{self.name}: {opened.received} of {FLOWS} flows are open")
            load.run(WARM_UP)
            meter.lap()
            carried = sum(end.received for end in load.run(seconds))
            cost = meter.lap().total / carried
            steady = load.run(seconds, RATE)
        lost = 1 - sum(end.received for end in steady) / sum(end.sent for end in steady)
        return Turn(carried / seconds, cost * 1e9, first * 1e9, lost * 100)

    def _flows(self, round_number: int) -> list[Flow]:
        if self._relayed:
            return self._relayed
        remotes = map(remote, range(round_number * FLOWS, (round_number + 1) * FLOWS))
        return [
            Flow(phone(number % self._phones), each, each) for number, each in enumerate(remotes)
        ]


def remote(number: int) -> str:
    """Returns the address of a remote: each flow has one of its own, so that no ports clash."""
    return f"198.{18 + number // 62500}.{number // 250 % 250}.{number % 250 + 1}"


def measure(rounds: int, *, is_quick: bool, say: Say) -> Figures:
    """Measures all boxes so often, in turn; raises RuntimeError."""
    figures: Figures = defaultdict(list)
    with ExitStack() as stack:
        say("boxes for media, all side by side")
        contenders = set_up(stack, MAPPINGS)
        for number in range(rounds):
            say(f"media, {number + 1} of {rounds}")
            turns = {
                each.name: each.play(number, QUICK_SECONDS if is_quick else SECONDS)
                for each in contenders
            }
            for name, turn in turns.items():
                for what, value in figures_of(turn, turns).items():
                    figures[f"media.{name}.{what}"].append(value)
    return dict(figures)


def figures_of(turn: Turn, turns: Mapping[str, Turn]) -> Mapping[str, float]:
    """Returns what one turn says, beside those of the same round."""
    return {
        "packets_per_second": turn.packets,
        "ns_per_packet": turn.cost,
        "ns_of_router": turn.cost - turns[WIRE_NAME].cost,
        "of_masquerade": turns[Box.name].cost / turn.cost,
        "ns_first": turn.first,
        "percent_lost": turn.lost,
    }


def set_up(stack: ExitStack, mappings: Sequence[int]) -> list[Contender]:
    """Puts every box on a stage of its own."""

    def contender(name: str, make: Callable[[Stage], Box], phones: int = FLOWS) -> Contender:
        stage = stack.enter_context(Stage())
        stage.router.run("ip", "route", "add", REMOTES, "via", SERVER)
        stage.wan.run("ip", "route", "add", "local", REMOTES, "dev", "lo")
        return Contender(name, stage, stack.enter_context(make(stage)), phones)

    wire = stack.enter_context(Wire())
    wire.lan.run("ip", "route", "add", REMOTES, "via", WIRE[1])
    wire.wan.run("ip", "route", "add", "local", REMOTES, "dev", "lo")
    found = [Contender(WIRE_NAME, wire, None, FLOWS), contender(Box.name, Box)]
    for count in mappings:
        phones = min(count // PER_HOST, FLOWS)
        found.append(contender(f"{count}", functools.partial(loaded, mappings=count), phones))
    found.append(contender(Rtpengine.name, Rtpengine))
    return found
