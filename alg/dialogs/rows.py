"""State as rows of bytes: for the store, so that calls and registrations survive a restart.

Whoever keeps state marks the keys it touches and makes rows of them when they are asked for, not
on the packet path. Nothing is marked before the first time somebody asks, who gets every row: a
gateway without a store remembers nothing for one.

A binding is written out in full. What comes back is swapped for the binding that the table has at
the same endpoints; a binding that is gone is left out.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from typing import Generic, Protocol, TypeVar

from alg.dialogs.offer_answer import Swap
from nat_table.binding import Binding
from nat_table.table import NatTable

Key = TypeVar("Key", bound=Hashable)


class Rows(Protocol):
    """A keeper of state that can be written down and read back."""

    def take_rows(self, *, has_all: bool) -> Iterator[tuple[str, bytes | None]]:
        """Yields name and row: of all, or of what was touched since the last time.

        None stands for what is gone.
        """

    def put_row(self, row: bytes, standing: Swap, now: float) -> None:
        """Takes a row back; raises ValueError where it is malformed."""


class Touched(Generic[Key]):
    """The keys that were touched since they were last taken."""

    __slots__ = ("_keys",)

    def __init__(self) -> None:
        self._keys: dict[Key, None] | None = None

    def add(self, key: Key) -> None:
        """Marks a key."""
        if self._keys is not None:
            self._keys[key] = None

    def take(self, standing: Iterable[Key], *, has_all: bool) -> Iterable[Key]:
        """Returns the marked keys; the first time, or if asked for all, those that are standing."""
        keys, self._keys = self._keys, {}
        return list(standing) if keys is None or has_all else keys


def standing_in(table: NatTable) -> Swap:
    """Returns what finds the table's own binding for one that was read."""

    def find(read: Binding) -> Binding | None:
        found = table.look_up_internal(read.transport, read.internal)
        return found if found is not None and found.external == read.external else None

    return find


def name_of(key: Iterable[object]) -> str:
    """Returns the name of a row: its key in printable ASCII."""
    return " ".join(part if isinstance(part, str) else ascii(part) for part in key)
