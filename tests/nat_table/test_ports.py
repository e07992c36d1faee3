"""Which port a phone gets, and when a port may be given to another."""

import itertools
import random
import tracemalloc
from collections import Counter
from collections.abc import Iterator

import pytest

from nat_table.behavior import Behavior
from nat_table.endpoint import Endpoint
from nat_table.ports import PortPool

PHONE = Endpoint("10.0.0.20", 4000)
PHONE_RTCP = Endpoint("10.0.0.20", 4001)
OTHER = Endpoint("10.0.0.21", 4000)
OTHER_RTCP = Endpoint("10.0.0.21", 4001)
THIRD = Endpoint("10.0.0.22", 4000)


def pool(low: int = 20000, high: int = 20999, seed: int = 1, **knobs: object) -> PortPool:
    return PortPool(Behavior(pool=(low, high), **knobs), random.Random(seed))  # type: ignore[arg-type]


def take_all(ports: PortPool, *owners: Endpoint, now: float = 0.0) -> Iterator[int]:
    while (port := ports.take(owners, now)) is not None:
        yield port


def test_the_phones_own_port_is_preserved_when_free() -> None:
    assert pool().take([PHONE], 0.0) == 4000


def test_a_taken_port_is_not_given_again() -> None:
    ports = pool()
    assert ports.take([PHONE], 0.0) == 4000
    other = ports.take([OTHER], 0.0)
    assert other is not None
    assert 20000 <= other <= 20999


def test_no_port_is_preserved_when_preservation_is_off() -> None:
    port = pool(preserve_ports=False).take([PHONE], 0.0)
    assert port is not None
    assert port >= 20000


@pytest.mark.parametrize("own", [1, 80, 1023, 61000, 65535, 5061])
def test_low_fenced_and_denied_ports_are_never_external(own: int) -> None:
    port = pool(denied_ports=frozenset({5061})).take([Endpoint("10.0.0.20", own)], 0.0)
    assert port is not None
    assert 20000 <= port <= 20999


def test_denied_ports_within_the_pool_are_left_out() -> None:
    ports = pool(20000, 20009, denied_ports=frozenset({20004, 20005}))
    assert sorted(take_all(ports, OTHER)) == [4000, 20000, 20002, 20006, 20008]


@pytest.mark.parametrize("own", [4000, 4001])
def test_parity_is_kept_to_the_last_port(own: int) -> None:
    ports = pool(20000, 20099, preserve_ports=False)
    given = list(take_all(ports, Endpoint("10.0.0.20", own)))
    assert sorted(given) == list(range(20000 + own % 2, 20100, 2))


def test_a37_an_odd_rtp_port_gets_an_odd_one_with_its_neighbour() -> None:
    ports = pool(20000, 20009, preserve_ports=False)
    odd = [Endpoint("10.0.0.20", 4001), Endpoint("10.0.0.20", 4002)]
    assert sorted(take_all(ports, *odd)) == [20001, 20003, 20005, 20007]


def test_a_pair_is_preserved_only_whole() -> None:
    ports = pool()
    ports.claim(4001, THIRD, 0.0)
    first = ports.take([PHONE, PHONE_RTCP], 0.0)
    assert first is not None
    assert first >= 20000
    assert first % 2 == 0
    assert ports.take([PHONE], 0.0) == 4000


def test_pairs_fill_the_pool_to_its_edges_and_no_further() -> None:
    ports = pool(20001, 20008, preserve_ports=False)
    assert sorted(take_all(ports, PHONE, PHONE_RTCP)) == [20002, 20004, 20006]


def test_a54_two_pairs_are_given_in_one_run() -> None:
    run = [Endpoint("10.0.0.20", port) for port in range(4000, 4004)]
    ports = pool(20000, 20007, preserve_ports=False)
    assert ports.take(run[:1], 0.0) is not None
    first = ports.take(run, 0.0)
    assert first is None or first % 2 == 0
    assert pool(20000, 20003, preserve_ports=False).take(run, 0.0) == 20000


def test_a84_ports_follow_no_sequence_and_no_start() -> None:
    firsts = {pool(seed=seed, preserve_ports=False).take([PHONE], 0.0) for seed in range(50)}
    assert len(firsts) > 40
    ports = pool(preserve_ports=False)
    given = [port for _ in range(50) if (port := ports.take([PHONE], 0.0)) is not None]
    gaps = {later - earlier for earlier, later in itertools.pairwise(given)}
    assert len(gaps) > 40


def test_a78_a_freed_port_is_kept_from_a_new_owner_for_120_seconds() -> None:
    ports = pool(20000, 20001)
    ports.take([PHONE], 0.0)
    ports.release(4000, PHONE, 10.0)
    assert ports.take([OTHER], 129.9) == 20000
    assert ports.take([THIRD], 129.9) is None
    assert ports.take([THIRD], 130.0) == 4000


def test_a78_the_old_owner_may_have_its_port_back_at_once() -> None:
    ports = pool()
    ports.take([PHONE], 0.0)
    drawn = ports.take([OTHER], 0.0)
    assert drawn is not None
    ports.release(4000, PHONE, 10.0)
    ports.release(drawn, OTHER, 10.0)
    assert ports.take([OTHER], 10.0) == drawn
    assert ports.take([PHONE], 10.0) == 4000


def test_an_old_pair_comes_back_as_it_was() -> None:
    ports = pool()
    ports.take([PHONE, PHONE_RTCP], 0.0)
    first = ports.take([OTHER, OTHER_RTCP], 0.0)
    assert first is not None
    ports.release(first, OTHER, 10.0)
    ports.release(first + 1, OTHER_RTCP, 10.0)
    assert ports.take([OTHER, OTHER_RTCP], 10.0) == first


def test_a_port_freed_again_is_in_quarantine_from_the_second_time_on() -> None:
    ports = pool(20000, 20001)
    for released_at in (10.0, 60.0):
        assert ports.take([PHONE], released_at) == 4000
        ports.release(4000, PHONE, released_at)
    assert ports.take([OTHER], 130.0) == 20000
    assert ports.take([THIRD], 179.9) is None
    assert ports.take([THIRD], 180.0) == 4000


def test_a_port_that_comes_and_goes_is_held_once() -> None:
    ports = pool(20000, 20001)
    tracemalloc.start()
    for each in range(20_000):
        assert ports.take([PHONE], each / 2000) == 4000
        ports.release(4000, PHONE, each / 2000)
        ports.forget_outdated()
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size < 1_000_000
    assert ports.take([PHONE], 10.0) == 4000
    ports.release(4000, PHONE, 10.0)
    assert not ports.claim(4000, OTHER, 129.9)
    assert ports.claim(4000, OTHER, 130.0)


def test_a_pool_that_quarantine_alone_exhausts_refuses() -> None:
    ports = pool(20000, 20009, preserve_ports=False)
    for port in list(take_all(ports, PHONE)):
        ports.release(port, PHONE, 0.0)
    assert ports.take([OTHER], 119.0) is None
    assert len(list(take_all(ports, OTHER, now=120.0))) == 5


def test_undoing_puts_a_port_back_to_exactly_what_it_was() -> None:
    ports = pool(20000, 20001)
    ports.take([PHONE], 0.0)
    ports.release(4000, PHONE, 0.0)
    ports.take([PHONE], 50.0)
    ports.release(4000, PHONE, 50.0)

    ports.undo_release(4000)
    assert not ports.claim(4000, PHONE, 50.0)
    ports.undo_take(4000)
    assert not ports.claim(4000, OTHER, 119.9)
    assert ports.claim(4000, OTHER, 120.0)
    ports.undo_take(4000)
    assert ports.claim(4000, THIRD, 120.0)


def test_a_release_is_undone_even_after_its_quarantine() -> None:
    ports = pool(quarantine_timeout=0.0)
    ports.take([PHONE], 0.0)
    ports.release(4000, PHONE, 0.0)
    ports.end_quarantine(0.0)
    ports.undo_release(4000)
    assert not ports.claim(4000, PHONE, 0.0)


@pytest.mark.parametrize("own", [20000, 20001])
def test_the_last_hundredth_of_a_full_pool_is_found(own: int) -> None:
    ports = pool(1024, 60999, preserve_ports=False)
    owner = Endpoint("10.0.0.20", own)
    assert len(set(take_all(ports, owner))) == (60999 - 1024 + 1) // 2


@pytest.mark.parametrize("bad", [(1023, 2000), (3000, 2000), (1024, 65536), (60000, 61000)])
def test_a_senseless_pool_is_refused(bad: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="pool"):
        Behavior(pool=bad)


@pytest.mark.parametrize("taken", [0, 50, 80, 95])
@pytest.mark.parametrize("size", [1, 2], ids=["single", "pair"])
def test_a84_every_free_run_is_as_likely_as_any_other(taken: int, size: int) -> None:
    """Behind a long taken run too, where a search from a random place would mostly end."""
    ports = pool(20000, 20399, preserve_ports=False)
    for port in range(20000, 20000 + 4 * taken):
        assert ports.claim(port, THIRD, 0.0)
    places, owners = 200 - 2 * taken, [PHONE, PHONE_RTCP][:size]
    drawn: Counter[int] = Counter()
    for _ in range(50 * places):
        port = ports.take(owners, 0.0) or 0
        drawn[port] += 1
        for taken_port in range(port, port + size):
            ports.undo_take(taken_port)
    assert sorted(drawn) == list(range(20000 + 4 * taken, 20400, 2))
    chi_square = sum((count - 50) ** 2 / 50 for count in drawn.values())
    assert chi_square < places + 4 * (2 * places) ** 0.5  # four standard deviations
