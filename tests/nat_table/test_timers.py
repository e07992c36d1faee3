"""The timers as the table uses them: on time, and paid for by what stands, not by what was."""

import gc
import random
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

from nat_table.binding import Binding, Kind, Pinhole
from nat_table.endpoint import Endpoint, Transport
from nat_table.entry import Claim, Entry
from nat_table.table import NatTable
from nat_table.timers import Timers
from tests.nat_table.phones import CALL, FLOW, PHONE, REGISTRATION, RTP, SIP, bind, new_table

UDP = Transport.UDP


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
            table.bind_pair(rtp, rtcp, CALL, now=now + number, expires_at=now + number)
        table.expire(now + 1000.0)
        table.expire(now + 2000.0)
        table.take_changes()

    fill_and_empty(0.0)  # dictionaries keep the size they once grew to, that of all endpoints too
    with tracing():
        sizes = []
        for now in (5000.0, 10000.0, 15000.0):
            fill_and_empty(now)
            gc.collect()
            sizes.append(tracemalloc.get_traced_memory()[0])
        _, peak = tracemalloc.get_traced_memory()
    assert len(table) == 0
    assert sizes[-1] < sizes[0] + 5_000 < peak / 3


def test_a_limit_cuts_expiry_into_slices_that_lose_nothing(table: NatTable) -> None:
    for number in range(10):
        bind(table, Endpoint(PHONE, 4000 + number), expires_at=100.0 + number % 2)
    table.expire(100.5, limit=3)
    assert (len(table), table.next_deadline()) == (7, 100.0)
    table.expire(100.5, limit=3)
    assert (len(table), table.next_deadline()) == (5, 101.0)
    table.expire(100.5, limit=3)
    assert len(table) == 5


def test_of_thousands_that_come_move_and_go_the_first_is_known() -> None:
    """As many as come and go in a heap of a dozen storeys, against a plain set."""
    draw, timers = random.Random(1), Timers()
    entry = Entry(Binding(UDP, RTP, SIP, Kind.RTP, 0.0))
    standing: dict[int, Claim] = {}
    for step in range(30_000):
        number = draw.randrange(3000)
        claim, deadline = standing.get(number), float(draw.randrange(1000))
        if claim is None:
            standing[number] = Claim(entry, Pinhole(FLOW, deadline))
            timers.put(standing[number])
        elif draw.random() < (0.3 if step < 20_000 else 0.9):
            timers.drop(standing.pop(number))
        else:
            claim.pinhole = Pinhole(FLOW, deadline)
            if deadline < claim.due:
                timers.hasten(claim)
            else:
                timers.put_off(claim)
        if step % 10 == 0:
            first = timers.first()
            assert first is not None
            assert first.due == min(each.pinhole.expires_at for each in standing.values())
    for claim in sorted(standing.values(), key=lambda each: each.due):
        first = timers.first()
        assert first is not None
        assert first.due == claim.due
        timers.drop(first)
    assert timers.first() is None


def test_after_thousands_moved_to_later_no_step_is_long_and_none_is_lost() -> None:
    table = new_table()
    made = [bind(table, Endpoint(PHONE, 2000 + n), expires_at=100.0 + n) for n in range(900)]
    for number, binding in enumerate(made):
        table.refresh(binding, FLOW, 2000.0 + number)
    table.refresh(made[500], FLOW, 1500.0)
    asked = [table.next_deadline() or 0.0]
    while (deadline := table.next_deadline() or 0.0) != asked[-1]:
        asked.append(deadline)
    assert len(asked) > 10  # each looks at some of them only
    assert asked == sorted(asked) and asked[-1] == 1500.0  # never late, and right at last

    for number, binding in enumerate(made):
        table.refresh(binding, FLOW, 3000.0 + number)
    table.expire(2000.5, limit=50)
    assert len(table) == 900
    while (table.next_deadline() or 0.0) <= 3449.0:
        table.expire(3449.0, limit=50)
    assert len(table) == 450
    assert table.next_deadline() == 3450.0


def test_a_deadline_that_was_moved_to_later_is_put_back(table: NatTable) -> None:
    binding = bind(table, expires_at=300.0)
    table.take_changes()
    table.refresh(binding, FLOW, 900.0)
    assert table.next_deadline() == 900.0
    table.revert(table.take_changes())
    assert table.next_deadline() == 300.0
    table.expire(300.0)
    assert len(table) == 0
