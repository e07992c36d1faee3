"""A firewall that keeps connections from the relay is noticed, and nothing else taken for one."""

from __future__ import annotations

from alg.daemon.diversion import Diversion


def looks(*counts: tuple[int, int]) -> list[bool]:
    """Returns what is said of each pair of connections diverted and answered."""
    diversion = Diversion()
    return [
        diversion.is_kept_away({"diverted": diverted, "answered": answered})
        for diverted, answered in counts
    ]


def test_answered_connections_arrive() -> None:
    assert looks((0, 0), (9, 9), (30, 20), (33, 20), (36, 21)) == [False, False, False, True, False]


def test_a_few_without_an_answer_yet_are_no_sign() -> None:
    assert looks((0, 0), (2, 0), (2, 0), (3, 0)) == [False, False, False, True]


def test_it_is_said_once_for_as_many() -> None:
    assert looks((0, 0), (5, 0), (5, 0), (7, 0), (8, 0)) == [False, True, False, False, True]


def test_counts_of_an_earlier_run_and_of_a_flushed_table_are_no_sign() -> None:
    assert looks((50, 0), (52, 0), (0, 0), (2, 0)) == [False] * 4


def test_without_a_relay_there_is_nothing_to_say() -> None:
    assert not any(Diversion().is_kept_away({}) for _ in range(3))
