"""The generator of calls: what it counts as good, through a wire and through real boxes."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.bench.peers.box import BOXES, Box, Kamailio
from tests.bench.peers.sipload import Load, play
from tests.bench.peers.stage import Stage, Wire
from tests.lab.network import PHONE_1

pytestmark = pytest.mark.netns

PHASES = [(100.0, 0.5), (200.0, 0.5)]
PATIENT = ("--t1", "10")
"""However busy this machine is, what arrives is not late."""


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Stage() as stage:
        yield stage


def test_all_calls_through_a_wire_are_good() -> None:
    with Wire() as wire:
        loads = play(wire, PHASES, *PATIENT)
    started = sum(load.started for load in loads)
    assert 0 < started <= 150
    assert sum(load.good for load in loads) == started
    assert sum(load.messages for load in loads) == 6 * started
    assert sum(count for load in loads for _, count in load.latencies) == 6 * started
    assert all(load.cpu.total > 0 and load.latency(0.5) > 0 for load in loads)


def test_calls_that_are_kept_open_have_four_messages() -> None:
    with Wire() as wire:
        (load,) = play(wire, [(200.0, 0.5)], "--keep-open", *PATIENT)
    assert 0 < load.good == load.started
    assert load.messages == 4 * load.good


def test_an_address_that_is_still_private_is_wrong(stage: Stage) -> None:
    box = Box(stage)
    (load,) = play(box, [(100.0, 0.5)], *PATIENT)
    assert load.good == load.started
    for promise in "vcs":
        box.promises = promise
        (load,) = play(box, [(100.0, 0.5)], *PATIENT)
        assert (load.good, load.wrong) == (0, load.started), promise


def test_calls_that_get_no_answer_have_failed(stage: Stage) -> None:
    box = Box(stage)
    box.edge = "203.0.113.99"
    (load,) = play(box, [(100.0, 0.5)])
    assert (load.good, load.failed) == (0, 1.0)


@pytest.mark.parametrize("name", BOXES)
def test_every_box_lets_calls_through_and_keeps_its_promise(name: str) -> None:
    if name == Kamailio.name and subprocess.run(["which", name], capture_output=True).returncode:
        pytest.skip("kamailio is not installed")
    with Stage() as stage, BOXES[name](stage) as box:
        before, load = play(box, [(40.0, 1.0), (40.0, 1.0)], *PATIENT)
        assert bool(box.pids) == (name in ("sipnat", "kamailio"))
        assert load.cpu.total > 0
    assert before.failed + load.failed == 0, (before, load)


def test_a_generator_that_cannot_start_says_why(stage: Stage) -> None:
    box = Box(stage)
    with stage.lan.udp_socket(PHONE_1, 5060), pytest.raises(RuntimeError, match="already in use"):
        play(box, [(1.0, 0.1)])


def test_shares_of_latencies() -> None:
    nanoseconds = ((1_000_000, 98), (2_000_000, 1), (7_000_000, 1))
    with Wire() as wire:
        (load,) = play(wire, [(10.0, 0.1)])
    fields = {name: getattr(load, name) for name in Load.__slots__}
    load = Load(**{**fields, "latencies": nanoseconds})
    assert [load.latency(share) for share in (0.5, 0.98, 0.99, 1.0)] == [1.0, 1.0, 2.0, 7.0]
