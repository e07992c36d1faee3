"""The transition tables of dialogs, nothing else (RFC 3261 §12, §15).

A pair of state and event that is not in the table leaves the state as it is.
"""

from __future__ import annotations

import enum


class DialogState(enum.Enum):
    """Where a dialog stands; ENDING means that a BYE has been seen and not yet answered."""

    EARLY = "early"
    CONFIRMED = "confirmed"
    ENDING = "ending"
    ENDED = "ended"


class DialogEvent(enum.Enum):
    """What the messages of a dialog mean for it."""

    PROVISIONAL = "1xx to INVITE"
    ACCEPTED = "2xx to INVITE"
    REFUSED = "3xx-6xx to the first INVITE"
    BYE = "BYE"
    BYE_ANSWERED = "final response to BYE"
    BYE_CHALLENGED = "401 or 407 to BYE"


DIALOG: dict[tuple[DialogState, DialogEvent], DialogState] = {
    (DialogState.EARLY, DialogEvent.ACCEPTED): DialogState.CONFIRMED,
    (DialogState.EARLY, DialogEvent.REFUSED): DialogState.ENDED,
    (DialogState.EARLY, DialogEvent.BYE): DialogState.ENDING,
    (DialogState.CONFIRMED, DialogEvent.BYE): DialogState.ENDING,
    (DialogState.ENDING, DialogEvent.BYE_ANSWERED): DialogState.ENDED,
    (DialogState.ENDING, DialogEvent.BYE_CHALLENGED): DialogState.CONFIRMED,
}


def next_state(state: DialogState, event: DialogEvent) -> DialogState:
    """Returns the state after the event."""
    return DIALOG.get((state, event), state)
