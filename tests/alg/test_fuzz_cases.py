"""What fuzzing has found stays fixed; and the fuzzer itself finds what it is there to find."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from tests.fuzz import targets
from tests.fuzz.engine import mutations
from tests.fuzz.seeds import seeds_of

CASES = sorted((Path(targets.__file__).parent / "cases").glob("*.bin"))


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_a85_a_finding_stays_fixed(path: Path) -> None:
    assert targets.judge(path.name.partition("-")[0], path.read_bytes()) is None


@pytest.mark.parametrize("target", targets.TARGETS)
def test_a85_seeds_and_a_few_mutations_are_harmless(target: str) -> None:
    seeds = list(seeds_of(target, None))[::8]
    inputs = mutations(seeds, random.Random(1))
    for data in (*seeds, *(next(inputs) for _ in range(60))):
        assert targets.judge(target, data) is None, data


def test_what_raises_or_takes_long_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow_or_wrong(data: bytes) -> None:
        if data.startswith(b"slow"):
            end = time.process_time() + 0.06
            while time.process_time() < end:
                pass
        if b"wrong" in data:
            raise ValueError("this is it")

    monkeypatch.setitem(targets.TARGETS, "packet", slow_or_wrong)
    assert targets.judge("packet", b"fine") is None
    assert "takes" in str(targets.judge("packet", b"slow"))
    assert "ValueError" in str(targets.judge("packet", b"that is wrong"))
    assert targets.shrink("packet", b"much that is wrong indeed") == b"wrong"
