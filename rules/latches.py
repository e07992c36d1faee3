"""The networks of latching, which follow from all the addresses that a binding admits.

Two signalled addresses may be in one /24, so an `Excluded` address does not tell whether its
network goes. What each binding admits is therefore kept here, for bindings that latch and no other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from nat_table.behavior import Filtering
from nat_table.binding import Binding
from nat_table.changes import Admitted, Change, Excluded
from nat_table.endpoint import Endpoint, Transport
from rules import elements
from rules.elements import Element, Operation
from rules.settings import Settings

Key = tuple[Transport, Endpoint]


class Plan(NamedTuple):
    """The steps that changes ask for, and what each binding admits once they are done."""

    steps: list[Operation]
    after: Mapping[Key, frozenset[str]]


class Latches:
    """Which addresses each latching binding admits."""

    def __init__(self) -> None:
        self._admitted: dict[Key, frozenset[str]] = {}

    def plan(self, changes: Iterable[Change], settings: Settings) -> Plan:
        """Returns what the changes ask for; nothing is remembered before `confirm`."""
        after: dict[Key, frozenset[str]] = {}
        steps: list[Operation] = []
        for change in changes:
            if not isinstance(change, Admitted | Excluded) or not _latches(
                change.binding, settings
            ):
                continue
            binding, address = change.binding, frozenset((change.address,))
            key = _key(binding)
            before = after.get(key, self._admitted.get(key, frozenset()))
            is_added = isinstance(change, Admitted)
            after[key] = before | address if is_added else before - address
            old, new = (elements.latching(binding, each) for each in (before, after[key]))
            steps += [Operation(False, each) for each in old - new]
            steps += [Operation(True, each) for each in new - old]
        return Plan(steps, after)

    def confirm(self, plan: Plan) -> None:
        """Remembers what the plan leads to."""
        for key, addresses in plan.after.items():
            if addresses:
                self._admitted[key] = addresses
            else:
                self._admitted.pop(key, None)

    def adopt(
        self, wanted: Iterable[tuple[Binding, Iterable[str]]], settings: Settings
    ) -> Iterator[Element]:
        """Yields all elements of these bindings, and remembers what each admits."""
        for binding, addresses in wanted:
            admitted = frozenset(addresses)
            if _latches(binding, settings):
                self.confirm(Plan([], {_key(binding): admitted}))
            yield from elements.all_elements(binding, admitted, settings)


def _key(binding: Binding) -> Key:
    return binding.transport, binding.internal


def _latches(binding: Binding, settings: Settings) -> bool:
    return elements.filtering(binding, settings) is Filtering.LATCH
