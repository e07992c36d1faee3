"""Who watches the packet path: told of each message and of each change without one.

Nothing is made for watchers while there are none. One that fails is a fault of ours, logged and
shown the door: the packet path goes on.
"""

from __future__ import annotations

import logging
from typing import Protocol

from alg.observe.passage import Occurrence, Passage

log = logging.getLogger("sipnat.observe")


class Observer(Protocol):
    """Somebody who watches; both calls must be short, for packets wait."""

    def see(self, passage: Passage) -> None:
        """Takes note of a message and what became of it."""

    def notice(self, occurrence: Occurrence) -> None:
        """Takes note of changes that no message has brought."""


class Observers:
    """All who watch; false while there are none."""

    __slots__ = ("_all",)

    def __init__(self) -> None:
        self._all: tuple[Observer, ...] = ()

    def __bool__(self) -> bool:
        return bool(self._all)

    def add(self, observer: Observer) -> None:
        """Lets somebody watch from now on."""
        self._all = (*self._all, observer)

    def remove(self, observer: Observer) -> None:
        """Lets somebody watch no more."""
        self._all = tuple(each for each in self._all if each is not observer)

    def see(self, passage: Passage) -> None:
        """Tells everybody of a message."""
        for observer in self._all:
            try:
                observer.see(passage)
            except Exception:
                self._dismiss(observer)

    def notice(self, occurrence: Occurrence) -> None:
        """Tells everybody of changes that no message has brought."""
        for observer in self._all:
            try:
                observer.notice(occurrence)
            except Exception:
                self._dismiss(observer)

    def _dismiss(self, observer: Observer) -> None:
        log.exception("%s watches no more because of an error", type(observer).__name__)
        self.remove(observer)
