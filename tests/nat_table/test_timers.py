"""The timers as the table uses them: on time, and paid for by what stands, not by what was."""

import gc
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

from nat_table.endpoint import Endpoint
from nat_table.table import NatTable
from tests.nat_table.phones import CALL, FLOW, PHONE, REGISTRATION, RTP, bind


@contextmanager
def tracing() -> Iterator[None]:
    """Has Python count the bytes that are allocated meanwhile."""
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


def test_a_deadline_moved_to_and_fro_fires_when_it_says(table: NatTable) -> None:
    binding = bind(table, expires_at=300.0)
    for deadline in (100.0, 400.0, 50.0, 350.0):
        table.refresh(binding, FLOW, deadline)
        assert table.next_deadline() == deadline
    table.expire(349.0)
    assert len(table) == 1
    table.expire(350.0)
    assert len(table) == 0
    assert table.next_deadline() is None


def test_refreshing_costs_no_memory(table: NatTable) -> None:
    binding = bind(table)
    with tracing():
        for number in range(3000):
            table.refresh(binding, FLOW, 300.0 + number)  # later and later
            table.refresh(binding, CALL, 4000.0 - number)  # earlier and earlier
            table.refresh(binding, REGISTRATION, 5000.0 + number % 2)  # to and fro
            table.take_changes()
        size, _ = tracemalloc.get_traced_memory()
    assert size < 100_000
    assert table.next_deadline() == 1001.0


def test_calls_that_end_early_leave_no_timers_behind(table: NatTable) -> None:
    bind(table, expires_at=1e9)
    with tracing():
        for number in range(2000):
            rtp = bind(table, RTP, CALL, now=number, expires_at=1e6 + number)
            table.close(rtp, CALL, number)
            table.take_changes()
        size, _ = tracemalloc.get_traced_memory()
    assert size < 300_000


def test_an_emptied_table_is_as_small_as_a_new_one(table: NatTable) -> None:
    def fill_and_empty(now: float) -> None:
        for number in range(500):
            rtp, rtcp = Endpoint(PHONE, 4000 + 2 * number), Endpoint(PHONE, 4001 + 2 * number)
            table.bind_pair(rtp, rtcp, CALL, now=now, expires_at=now + number)
        table.expire(now + 1000.0)
        table.expire(now + 2000.0)
        table.take_changes()

    with tracing():
        sizes = []
        for now in (0.0, 5000.0, 10000.0):  # dictionaries keep the size that they once grew to
            fill_and_empty(now)
            gc.collect()
            sizes.append(tracemalloc.get_traced_memory()[0])
        _, peak = tracemalloc.get_traced_memory()
    assert len(table) == 0
    assert sizes[-1] < sizes[0] + 5_000 < peak / 3
