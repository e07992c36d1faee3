"""`./dev bench table`: what 100,000 mappings cost the table, in time, memory and pauses.

Bytes are those that Python allocates for the table (tracemalloc), keys and addresses included. A
call's work is a signalling mapping, two media pairs with their remotes, a refresh of each and the
end of all. A pause is the longest single operation; the cyclic garbage collector, which looks at
every object now and then, is counted apart.
"""

from __future__ import annotations

import gc
import random
import statistics
import time
import tracemalloc
from collections.abc import Callable, Iterator

from nat_table.behavior import Behavior
from nat_table.binding import Binding, Kind, Owner
from nat_table.endpoint import Endpoint, Transport
from nat_table.table import NatTable

MAPPINGS, PER_HOST = 100_000, 5
EXTERNAL = [f"203.0.113.{number}" for number in range(1, 5)]
LIFETIME = 300.0
SLICE = 500  # expiry at a time, so that packets are looked after in between
RUNS, CALLS = 9, 200


def new_table() -> NatTable:
    """Returns a table with room for all mappings and some more."""
    behavior = Behavior(pool=(1024, 60999), max_mappings=2 * MAPPINGS)
    return NatTable(EXTERNAL, behavior, random.Random(1))


def bind_call(
    table: NatTable, host: str, call_id: str, now: float, remotes: tuple[Endpoint, ...] = ()
) -> list[Binding]:
    """Binds what a phone with one call of two streams needs."""
    owner, until = Owner("call", call_id, "1"), now + LIFETIME
    sip = Endpoint(host, 5060)
    made = [table.bind(Transport.UDP, sip, Kind.SIP, owner, now=now, expires_at=until)]
    for port in (4000, 4002):
        rtp, rtcp = Endpoint(host, port), Endpoint(host, port + 1)
        made += table.bind_pair(rtp, rtcp, owner, now=now, expires_at=until)
    if remotes:
        for binding in made:
            table.refresh(binding, owner, until, remotes)
    return made


def hosts() -> Iterator[str]:
    """Yields the addresses of the phones."""
    for number in range(MAPPINGS // PER_HOST):
        yield f"10.{number // 62500}.{number // 250 % 250}.{number % 250}"


def fill(table: NatTable, step: float = 0.0, *, has_remotes: bool = False) -> list[Binding]:
    """Fills the table; a new phone comes every `step` seconds."""
    made: list[Binding] = []
    for number, host in enumerate(hosts()):
        remotes = (Endpoint(f"198.51.100.{number % 250}", 4000),) if has_remotes else ()
        made += bind_call(table, host, f"{number:032x}@{host}", number * step, remotes)
        table.take_changes()
    return made


def bytes_a_mapping(*, has_remotes: bool) -> float:
    """Returns what the table keeps of one mapping."""
    tracemalloc.start()
    table = new_table()
    before, _ = tracemalloc.get_traced_memory()
    fill(table, has_remotes=has_remotes)
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return (after - before) / len(table)


def one_call(table: NatTable, number: int, now: float) -> None:
    """Does a call's work from its beginning to its end."""
    owner = Owner("call", f"call{number}", "1")
    remotes = (Endpoint("198.51.100.1", 4000),)
    made = bind_call(table, f"10.9.{number // 250}.{number % 250}", owner.call_id, now, remotes)
    for binding in made:
        table.refresh(binding, owner, now + 2 * LIFETIME)
    table.next_deadline()
    for binding in made:
        table.close(binding, owner, now)
    table.take_changes()


def microseconds_a_call(tables: list[NatTable]) -> list[float]:
    """Returns the median for each table; they take turns, so that one noise is everybody's."""
    times: list[list[float]] = [[] for _ in tables]
    for run in range(RUNS):
        for table, taken in zip(tables, times, strict=True):
            now = 10.0 + run * 200.0  # quarantine is over
            table.expire(now)
            start = time.process_time()
            for number in range(CALLS):
                one_call(table, number, now)
            taken.append((time.process_time() - start) / CALLS * 1e6)
    return [statistics.median(taken) for taken in times]


def longest(operations: Iterator[Callable[[], object]]) -> float:
    """Returns the milliseconds of the slowest operation."""
    slowest = 0.0
    for operation in operations:
        start = time.process_time()
        operation()
        slowest = max(slowest, time.process_time() - start)
    return slowest * 1e3


def refreshing(table: NatTable, made: list[Binding]) -> Iterator[Callable[[], object]]:
    """Yields the refresh of every mapping, to and fro, and a look at the next deadline after it."""
    for lifetime in (600.0, 500.0, 900.0):
        for binding in made:
            (pinhole,) = table.pinholes(binding)
            until = lifetime + binding.created_at
            yield lambda: table.refresh(binding, pinhole.owner, until)  # noqa: B023
            yield table.next_deadline
            table.take_changes()


def expiring(table: NatTable, now: float) -> Iterator[Callable[[], object]]:
    """Yields the expiry of all mappings, and of their quarantine, slice by slice."""
    for moment in (now, now + 120.0):
        for _ in range(MAPPINGS // SLICE):
            yield lambda: table.expire(moment, SLICE)  # noqa: B023
            table.take_changes()


def pauses() -> tuple[float, float]:
    """Returns the longest pause while all is refreshed, and while all expires at once."""
    table = new_table()
    made = fill(table, 0.001)
    now = 1e6
    slowest = longest(refreshing(table, made)), longest(expiring(table, now))
    assert len(table) == 0
    return slowest


def main() -> None:
    """Prints the table."""
    loaded = new_table()
    start = time.process_time()
    fill(loaded)
    seconds = time.process_time() - start
    print(f"{MAPPINGS:,} mappings of {MAPPINGS // PER_HOST:,} phones")
    print(f"{'to fill the table':44}{seconds:9.2f} s")
    for has_remotes, what in ((False, "without remotes"), (True, "each with a remote")):
        size = bytes_a_mapping(has_remotes=has_remotes)
        print(f"{'a mapping, ' + what:44}{size:9.0f} bytes")
    # The deadlines of what is loaded lie behind the calls': nothing of it expires meanwhile.
    for binding in loaded.bindings():
        loaded.refresh(binding, loaded.pinholes(binding)[0].owner, 1e9)
    loaded.take_changes()
    alone, crowded = microseconds_a_call([new_table(), loaded])
    print(f"{'a call, the table empty':44}{alone:9.1f} us")
    print(f"{'a call, the table loaded':44}{crowded:9.1f} us, {crowded / alone:.2f} times")
    start = time.process_time()
    loaded.move(EXTERNAL[0], "203.0.113.9", 1e4)
    moved = (time.process_time() - start) * 1e3
    print(f"{'a move of one address in four':44}{moved:9.1f} ms")
    del loaded
    for has_collector in (False, True):
        gc.collect()
        if not has_collector:
            gc.disable()
        refresh, expiry = pauses()
        gc.enable()
        note = "" if has_collector else ", no collector"
        print(f"{'longest pause, refreshing' + note:44}{refresh:9.1f} ms")
        print(f"{f'longest pause, {SLICE} expiring at a time' + note:44}{expiry:9.1f} ms")
