"""Plays cells, a few at a time, each within its time; what fails says why in one line.

A worker is a process: what it plays has a processor to itself as far as there is one, and a cell
that hangs is ended by an alarm.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from tests.interop.scenarios import SCENARIOS
from tests.interop.stage import GATEWAYS, KINDS, SERVERS, TRANSPORTS, Cell, CellFailed, Stage
from tests.lab.gateway import GatewayFailed
from tests.lab.namespace import remove_stale
from tests.phones.phone import PhoneFailed

CELL_TIMEOUT = 180
WORKERS = min(3, (os.cpu_count() or 1) + 1)
OK, FAILED, CANNOT = "ok", "fail", "n/a"

QUICK = {
    *(("udp", "LAN-to-LAN"), ("udp", "hold"), ("udp", "transfer")),
    ("tcp", "incoming"),
}
"""What `./dev test` plays with each phone: through the gateway, with a server without NAT help."""

MIXED = ("baresip", "linphone", "pjsua")
MIXED_SCENARIOS = ("outgoing", "incoming", "LAN-to-LAN", "hold", "transfer", "ICE", "SRTP")


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a cell: OK, FAILED or CANNOT, and why not OK."""

    cell: Cell
    state: str
    why: str = ""
    seconds: float = 0.0


def all_cells() -> list[Cell]:
    """Returns the whole matrix."""
    return [
        Cell(phone, server, transport, scenario, gateway)
        for phone in KINDS
        for server in SERVERS
        for transport in TRANSPORTS
        for scenario in SCENARIOS
        for gateway in GATEWAYS
    ]


def quick_cells() -> list[Cell]:
    """Returns the part of the matrix that is played with every test run."""
    return [
        cell
        for cell in all_cells()
        if cell.gateway == "sipnat"
        and cell.server == "kamailio"
        and (cell.transport, cell.scenario) in QUICK
        and cell.scenario not in KINDS[cell.phone].cannot
    ]


def mixed_cells() -> list[Cell]:
    """Returns the calls between phones of two kinds, through the gateway and without any NAT."""
    return [
        Cell(phone, "kamailio", "udp", scenario, gateway, peer)
        for phone, peer in itertools.permutations(MIXED, 2)
        for scenario in MIXED_SCENARIOS
        for gateway in ("sipnat", "routed")
    ]


def play(cell: Cell, keep: Path | None = None) -> Result:
    """Plays a cell; keeps its logs and captures in a folder of its own under `keep`."""
    for kind in cell.kinds:
        if not kind.is_installed():
            return Result(cell, CANNOT, f"{kind.kind} is not installed on this machine")
    if why := KINDS[cell.phone].cannot.get(cell.scenario):
        return Result(cell, CANNOT, why)
    folder = keep and keep / str(cell).replace(":", "").replace(" ", "-")
    started = time.monotonic()
    try:
        with Stage(cell, keep=folder) as stage:
            SCENARIOS[cell.scenario](stage)
            stage.check_gateway()
    except (CellFailed, PhoneFailed, GatewayFailed, RuntimeError) as error:
        return Result(cell, FAILED, str(error), time.monotonic() - started)
    except Exception as error:  # one cell's surprise must not end the matrix
        return Result(cell, FAILED, f"{type(error).__name__}: {error}", time.monotonic() - started)
    return Result(cell, OK, "", time.monotonic() - started)


def play_all(cells: Iterable[Cell], workers: int, keep: Path | None) -> Iterator[Result]:
    """Plays cells as workers come free, and yields what came of each as it is known."""
    remove_stale()
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        try:
            for done in as_completed([pool.submit(_play_in_time, cell, keep) for cell in cells]):
                yield done.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _play_in_time(cell: Cell, keep: Path | None) -> Result:
    signal.signal(signal.SIGALRM, _give_up)
    signal.alarm(CELL_TIMEOUT)
    try:
        return play(cell, keep)
    finally:
        signal.alarm(0)


def _give_up(number: int, frame: FrameType | None) -> None:
    raise CellFailed(f"not over within {CELL_TIMEOUT} s")
