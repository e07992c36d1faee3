"""The dialog's transition table: every pair that is not in it leaves the state alone."""

from __future__ import annotations

import itertools

import pytest

from alg.dialogs.states import DIALOG, DialogEvent, DialogState, next_state


@pytest.mark.parametrize(
    ("events", "end"),
    [
        ("PROVISIONAL ACCEPTED BYE BYE_ANSWERED", DialogState.ENDED),
        ("ACCEPTED", DialogState.CONFIRMED),
        ("PROVISIONAL REFUSED", DialogState.ENDED),
        ("PROVISIONAL BYE BYE_ANSWERED", DialogState.ENDED),
        ("ACCEPTED REFUSED", DialogState.CONFIRMED),
        ("ACCEPTED BYE BYE_CHALLENGED", DialogState.CONFIRMED),
        ("ACCEPTED BYE BYE_CHALLENGED BYE BYE_ANSWERED", DialogState.ENDED),
        ("ACCEPTED BYE ACCEPTED", DialogState.ENDING),
    ],
)
def test_a_dialog_goes_the_way_of_its_messages(events: str, end: DialogState) -> None:
    state = DialogState.EARLY
    for name in events.split():
        state = next_state(state, DialogEvent[name])
    assert state is end


def test_an_ended_dialog_stays_ended() -> None:
    for event in DialogEvent:
        assert next_state(DialogState.ENDED, event) is DialogState.ENDED


def test_unknown_pairs_change_nothing() -> None:
    for pair in itertools.product(DialogState, DialogEvent):
        if pair not in DIALOG:
            assert next_state(*pair) is pair[0]
