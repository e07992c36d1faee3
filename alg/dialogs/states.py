"""The transition tables of dialogs, nothing else (RFC 3261 §12, §15).

A pair of state and event that is not in the table leaves the state as it is.
"""

from __future__ import annotations

import enum
from typing import Final


class DialogState(enum.Enum):
    """Where a dialog stands; ENDING means that a BYE has been seen and not yet answered."""

    EARLY = "early"
    CONFIRMED = "confirmed"
    ENDING = "ending"
    ENDED = "ended"

    __hash__ = object.__hash__  # as in `Transport`


class DialogEvent(enum.Enum):
    """What the messages of a dialog mean for it."""

    PROVISIONAL = "1xx to INVITE"
    ACCEPTED = "2xx to INVITE"
    REFUSED = "3xx-6xx to the first INVITE"
    BYE = "BYE"
    BYE_ANSWERED = "final response to BYE"
    BYE_CHALLENGED = "401 or 407 to BYE"

    __hash__ = object.__hash__  # as in `Transport`


EARLY: Final = DialogState.EARLY
CONFIRMED: Final = DialogState.CONFIRMED
ENDING: Final = DialogState.ENDING
ENDED: Final = DialogState.ENDED
PROVISIONAL: Final = DialogEvent.PROVISIONAL
ACCEPTED: Final = DialogEvent.ACCEPTED
REFUSED: Final = DialogEvent.REFUSED
BYE: Final = DialogEvent.BYE
BYE_ANSWERED: Final = DialogEvent.BYE_ANSWERED
BYE_CHALLENGED: Final = DialogEvent.BYE_CHALLENGED
"""The same by themselves, as with `Transport`."""

DIALOG: Final[dict[tuple[DialogState, DialogEvent], DialogState]] = {
    (EARLY, ACCEPTED): CONFIRMED,
    (EARLY, REFUSED): ENDED,
    (EARLY, BYE): ENDING,
    (CONFIRMED, BYE): ENDING,
    (ENDING, BYE_ANSWERED): ENDED,
    (ENDING, BYE_CHALLENGED): CONFIRMED,
}


def next_state(state: DialogState, event: DialogEvent) -> DialogState:
    """Returns the state after the event."""
    return DIALOG.get((state, event), state)
