"""Elements that follow from all that the pinholes of a binding name, and from none of it alone.

Two signalled addresses may be in one /24 that a latch is kept within, and one permit may cover
another, so what an `Excluded` or a `Forbidden` takes away does not tell whether an element goes.
What each binding names is therefore kept here: addresses of those that latch, and all permits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from nat_table.behavior import Filtering
from nat_table.binding import Binding, Permit
from nat_table.changes import (
    Admitted,
    Change,
    Excluded,
    Forbidden,
    Permitted,
)
from nat_table.endpoint import Endpoint, Transport
from rules import elements
from rules.elements import Element, Operation
from rules.permits import has_lost, permitting
from rules.settings import Settings

Key = tuple[Transport, Endpoint]
Names = frozenset[str | Permit]
_NOBODY: Names = frozenset()


class Plan(NamedTuple):
    """What changes ask for, and what each binding names once it is done."""

    steps: list[Operation]
    after: Mapping[Key, Names]

    narrowed: list[Binding]
    """Where a permit goes, and remotes with it that came by no other right."""


_NOTHING = Plan([], {}, [])


class Audiences:
    """Who may send to each binding, as far as its elements follow from that."""

    def __init__(self) -> None:
        self._named: dict[Key, Names] = {}

    def plan(self, changes: Sequence[Change], settings: Settings) -> Plan:
        """Returns what the changes ask for; nothing is remembered before `confirm`."""
        if not _may_count(changes, settings):
            return _NOTHING
        first: dict[Key, Binding] = {}
        last: dict[Key, Binding] = {}
        after: dict[Key, Names] = {}
        for change in changes:
            if isinstance(change, Admitted | Excluded):
                name: str | Permit = change.address
            elif isinstance(change, Permitted | Forbidden):
                name = change.permit
            else:
                continue
            binding = change.binding
            if not _counts(binding, name, settings):
                continue
            key = _key(binding)
            names = after.get(key, self._named.get(key, _NOBODY))
            is_added = isinstance(change, Admitted | Permitted)
            after[key] = names | {name} if is_added else names - {name}
            first.setdefault(key, binding)
            last[key] = binding
        old = _all(first, self._named, settings)
        new = _all(last, after, settings)
        steps = [Operation(False, each) for each in old - new]
        steps += [Operation(True, each) for each in new - old]
        narrowed = [
            binding
            for key, binding in last.items()
            if elements.filtering(binding, settings) is Filtering.ADDRESS_DEPENDENT
            and not elements.is_relayed(binding, settings)
            and has_lost(binding, _permits(self._named.get(key, _NOBODY)), _permits(after[key]))
        ]
        return Plan(steps, after, narrowed)

    def confirm(self, plan: Plan) -> None:
        """Remembers what the plan leads to."""
        for key, names in plan.after.items():
            if names:
                self._named[key] = names
            else:
                self._named.pop(key, None)

    def adopt(
        self, wanted: Iterable[tuple[Binding, Iterable[str | Permit]]], settings: Settings
    ) -> Iterator[Element]:
        """Yields all elements of these bindings, and remembers what each names."""
        for binding, names in wanted:
            named = frozenset(names)
            counted = frozenset(each for each in named if _counts(binding, each, settings))
            self.confirm(Plan([], {_key(binding): counted}, []))
            yield from elements.elements(binding, settings)
            yield from _following(binding, counted, settings)
            if elements.filtering(binding, settings) is Filtering.ADDRESS_DEPENDENT:
                for address in _addresses(named):
                    yield elements.admitted(binding, address, settings)


def _following(binding: Binding, names: Names, settings: Settings) -> set[Element]:
    """Returns the elements that follow from all the names together."""
    permitted = permitting(binding, _permits(names), settings)
    if elements.filtering(binding, settings) is not Filtering.LATCH:
        return permitted
    return permitted | elements.latching(binding, _addresses(names))


def _all(
    bindings: Mapping[Key, Binding], named: Mapping[Key, Names], settings: Settings
) -> set[Element]:
    return {
        each
        for key, binding in bindings.items()
        for each in _following(binding, named.get(key, _NOBODY), settings)
    }


def _may_count(changes: Sequence[Change], settings: Settings) -> bool:
    """Tells at once what is nearly always so: that nothing latches, and there is no permit."""
    if settings.media_filter is Filtering.LATCH or settings.signalling_filter is Filtering.LATCH:
        return True
    return any(isinstance(change, (Permitted, Forbidden)) for change in changes)


def _counts(binding: Binding, name: str | Permit, settings: Settings) -> bool:
    is_latching = elements.filtering(binding, settings) is Filtering.LATCH
    return is_latching or isinstance(name, Permit)


def _addresses(names: Names) -> list[str]:
    return [each for each in names if isinstance(each, str)]


def _permits(names: Names) -> list[Permit]:
    return [each for each in names if isinstance(each, Permit)]


def _key(binding: Binding) -> Key:
    return binding.transport, binding.internal
