"""Deadlines: due keys come once, in order, and moving a deadline costs no heap entry."""

from __future__ import annotations

import random

from alg.dialogs.deadlines import Deadlines


def due(deadlines: Deadlines[str], now: float) -> list[str]:
    return list(deadlines.pop_due(now))


def test_a_key_is_due_once() -> None:
    deadlines: Deadlines[str] = Deadlines()
    deadlines.put("a", 10.0)
    assert due(deadlines, 9.9) == []
    assert due(deadlines, 10.0) == ["a"]
    assert due(deadlines, 99.0) == []
    assert len(deadlines) == 0


def test_a_deadline_that_moves_later_fires_later() -> None:
    deadlines: Deadlines[str] = Deadlines()
    deadlines.put("a", 10.0)
    deadlines.put("a", 20.0)
    assert due(deadlines, 15.0) == []
    assert due(deadlines, 20.0) == ["a"]


def test_a_deadline_that_moves_earlier_fires_earlier() -> None:
    deadlines: Deadlines[str] = Deadlines()
    deadlines.put("a", 20.0)
    deadlines.put("a", 10.0)
    assert due(deadlines, 10.0) == ["a"]
    assert due(deadlines, 20.0) == []


def test_a_discarded_key_is_never_due() -> None:
    deadlines: Deadlines[str] = Deadlines()
    deadlines.put("a", 10.0)
    deadlines.discard("a")
    assert due(deadlines, 99.0) == []


def test_the_next_deadline_is_never_late() -> None:
    deadlines: Deadlines[str] = Deadlines()
    assert deadlines.next() is None
    deadlines.put("a", 10.0)
    deadlines.put("b", 5.0)
    first = deadlines.next()
    assert first is not None and first <= 5.0


def test_moving_later_a_thousand_times_keeps_one_entry() -> None:
    deadlines: Deadlines[str] = Deadlines()
    for moment in range(1000):
        deadlines.put("a", float(moment))
    assert len(deadlines._heap) == 1


def test_random_operations_agree_with_a_plain_dictionary() -> None:
    rng = random.Random(7)
    deadlines: Deadlines[int] = Deadlines()
    model: dict[int, float] = {}
    now = 0.0
    for _ in range(5000):
        key, action = rng.randrange(30), rng.random()
        if action < 0.6:
            model[key] = now + rng.random() * 50
            deadlines.put(key, model[key])
        elif action < 0.7:
            model.pop(key, None)
            deadlines.discard(key)
        else:
            now += rng.random() * 10
            expected = {each for each, when in model.items() if when <= now}
            assert set(deadlines.pop_due(now)) == expected
            model = {each: when for each, when in model.items() if when > now}
        assert len(deadlines) == len(model)
