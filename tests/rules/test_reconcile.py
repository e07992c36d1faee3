"""Differences between what is wanted and what stands, as steps that lead from one to the other."""

from __future__ import annotations

from collections.abc import Iterable

import hypothesis.strategies as st
from hypothesis import given

from rules.elements import Element
from rules.reconcile import SLICE, differences

A, B, C = (Element("inbound", bytes([n]), b"x") for n in range(3))
ELEMENTS = st.dictionaries(
    st.tuples(st.sampled_from(["inbound", "media"]), st.binary(max_size=1)), st.sampled_from("xy")
)


def apply(standing: Iterable[Element], wanted: Iterable[Element]) -> set[Element]:
    after = {element[:2]: element for element in standing}
    for steps in differences(wanted, after.copy().values()):
        for is_added, element in steps:
            if is_added:
                assert after.setdefault(element[:2], element) == element, "EEXIST"
            else:
                assert after.pop(element[:2]) == element, "ENOENT"
    return set(after.values())


def as_elements(made: dict[tuple[str, bytes], str]) -> set[Element]:
    return {Element(*key, data.encode()) for key, data in made.items()}


@given(ELEMENTS, ELEMENTS)
def test_steps_lead_from_one_to_the_other(
    first: dict[tuple[str, bytes], str], second: dict[tuple[str, bytes], str]
) -> None:
    assert apply(as_elements(first), as_elements(second)) == as_elements(second)


def test_equal_ones_need_no_step() -> None:
    assert [steps for steps in differences([A, B], [B, A]) if steps] == []


def test_what_a_commit_touches_meanwhile_is_left_alone() -> None:
    touched: set[tuple[str, bytes]] = set()
    slices = differences([A], [B, C], touched)
    touched.add(C[:2])
    assert [step.element for step in next(slices)] == [B]
    touched.add(A[:2])
    assert next(slices) == []


def test_slices_are_small_and_comparing_gives_way_too() -> None:
    wanted = [Element("inbound", n.to_bytes(4, "big")) for n in range(3 * SLICE)]
    slices = list(differences(wanted, wanted[:SLICE]))
    assert [len(steps) for steps in slices] == [0] * 4 + [SLICE] * 2
