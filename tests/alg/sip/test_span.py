"""Edits: what lies between them is copied, whatever their order, and an overlap is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alg.sip.span import Edit, apply_edits

TEXT = b"Via: 10.0.0.20:5060"


def test_no_edit_gives_the_same_bytes() -> None:
    assert apply_edits(TEXT, ()) == TEXT


@pytest.mark.parametrize(
    ("edit", "result"),
    [
        (Edit(5, 14, b"203.0.113.1", "via"), b"Via: 203.0.113.1:5060"),
        (Edit(15, 19, b"7", "via"), b"Via: 10.0.0.20:7"),
        (Edit(14, 14, b"!", "via"), b"Via: 10.0.0.20!:5060"),
        (Edit(0, 19, b"", "via"), b""),
        (Edit(0, 0, b">", "via"), b">" + TEXT),
        (Edit(19, 19, b"<", "via"), TEXT + b"<"),
    ],
)
def test_one_edit_replaces_its_span(edit: Edit, result: bytes) -> None:
    assert apply_edits(TEXT, [edit]) == result


def test_edits_are_applied_by_place_not_by_order() -> None:
    edits = [Edit(15, 19, b"16384", "via"), Edit(5, 14, b"203.0.113.1", "via")]
    assert apply_edits(TEXT, edits) == b"Via: 203.0.113.1:16384"


def test_neighbours_do_not_overlap() -> None:
    assert apply_edits(b"abcd", [Edit(2, 4, b"X", ""), Edit(0, 2, b"Y", "")]) == b"YX"


def test_an_overlap_is_refused_and_named() -> None:
    with pytest.raises(ValueError, match="contact at byte 6"):
        apply_edits(TEXT, [Edit(5, 14, b"x", "via"), Edit(6, 7, b"y", "contact")])


@given(st.binary(max_size=60), st.data())
def test_bytes_outside_the_edits_stay(message: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(0, len(message)), max_size=8)))
    spans = list(zip(cuts[::2], cuts[1::2], strict=False))
    edits = [Edit(*span, data.draw(st.binary(max_size=5)), "") for span in spans]
    expected, position = b"", 0
    for edit in edits:
        expected += message[position : edit.start] + edit.new
        position = edit.end
    assert apply_edits(message, reversed(edits)) == expected + message[position:]


def test_an_edit_is_equal_to_its_like_and_an_insertion_comes_first() -> None:
    put, cut = Edit(5, 5, b"x", "via"), Edit(5, 14, b"", "via")
    assert put == Edit(5, 5, b"x", "via") != Edit(5, 5, b"x", "contact")
    assert len({put, cut, Edit(5, 14, b"", "via")}) == 2
    assert sorted([cut, put, Edit(0, 1, b"", "via")])[1:] == [put, cut]
    assert (put.growth, cut.growth) == (1, -9)
    assert repr(put) == "Edit(5, 5, b'x', 'via')"
