"""How phones write their own endpoints, so that they get back what they wrote.

An external endpoint stands for an internal one, usually written in full. Two things differ: a phone
on 5060 may leave the port out, and a phone that learned its external endpoint (from received and
rport, or by STUN) writes that itself. What comes back must read the same, or the phone does not
know its own Via (RFC 3261 §18.1.2) or its own registration (§10.2.4). Via and all other fields are
told apart, because many a phone writes them differently. Only what differs is kept.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping

import msgspec

from alg.dialogs.offer_answer import Swap
from alg.dialogs.rows import Touched
from nat_table.endpoint import Endpoint


class Form(enum.Enum):
    """How an endpoint is written."""

    INTERNAL = "address and port"
    BARE = "address without the port"
    EXTERNAL = "the external endpoint itself"


class Written:
    """The form in which a phone wrote each endpoint last, by field and external endpoint."""

    __slots__ = ("_forms", "_touched")

    def __init__(self) -> None:
        self._forms: dict[tuple[bool, Endpoint], Form] = {}
        self._touched: Touched[tuple[bool, Endpoint]] = Touched()

    def note(self, field: str, external: Endpoint, form: Form) -> None:
        """Remembers how a phone wrote the endpoint."""
        if form is not Form.INTERNAL:
            self._set((field == "via", external), form)
        elif self._forms:
            self._drop((field == "via", external))

    def form(self, field: str, external: Endpoint) -> Form:
        """Returns how the phone wrote the endpoint."""
        return self._forms.get((field == "via", external), Form.INTERNAL)

    def forget(self, external: Endpoint) -> None:
        """Drops what is known about an endpoint whose binding is closed."""
        if self._forms:
            self._drop((True, external))
            self._drop((False, external))

    def move(self, old_address: str, moved: Mapping[Endpoint, Endpoint]) -> None:
        """Follows external endpoints to others; those left at the old address are forgotten."""
        forms, self._forms = self._forms, {}
        for (is_via, external), form in forms.items():
            self._touched.add((is_via, external))
            after = moved.get(external, external)
            if after.address != old_address:
                self._set((is_via, after), form)

    def take_rows(self, *, has_all: bool) -> Iterator[tuple[str, bytes | None]]:
        """Yields the rows of what was touched."""
        for key in self._touched.take(self._forms, has_all=has_all):
            form = self._forms.get(key)
            row = None if form is None else msgspec.msgpack.encode((key, form))
            yield f"{'via' if key[0] else 'other'} {key[1]}", row

    def put_row(self, row: bytes, standing: Swap, now: float) -> None:
        """Takes a form back."""
        key, form = msgspec.msgpack.decode(row, type=tuple[tuple[bool, Endpoint], Form])
        self._set(key, form)

    def _set(self, key: tuple[bool, Endpoint], form: Form) -> None:
        self._forms[key] = form
        self._touched.add(key)

    def _drop(self, key: tuple[bool, Endpoint]) -> None:
        if self._forms.pop(key, None) is not None:
            self._touched.add(key)

    def __len__(self) -> int:
        return len(self._forms)
