"""How phones write their own endpoints, so that they get back what they wrote.

An external endpoint stands for an internal one, usually written in full. Two things differ: a phone
on 5060 may leave the port out, and a phone that learned its external endpoint (from received and
rport, or by STUN) writes that itself. What comes back must read the same, or the phone does not
know its own Via (RFC 3261 §18.1.2) or its own registration (§10.2.4). Via and all other fields are
told apart, because many a phone writes them differently. Only what differs is kept, and of a
mapping on request (`nat_table.lease`) all, because its phone may well write the external endpoint.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from alg.dialogs.offer_answer import Swap
from alg.dialogs.rows import Touched
from nat_table.binding import Binding
from nat_table.endpoint import Endpoint, Socket, Transport


class Form(enum.Enum):
    """How an endpoint is written."""

    INTERNAL = "address and port"
    BARE = "address without the port"
    EXTERNAL = "the external endpoint itself"


INTERNAL: Final = Form.INTERNAL
BARE: Final = Form.BARE
EXTERNAL: Final = Form.EXTERNAL

_Key = tuple[bool, Transport, Endpoint]
"""Whether the field is Via, and the external socket."""


class Written:
    """The form in which a phone wrote each endpoint last, by field and external socket."""

    __slots__ = ("_forms", "_touched")

    def __init__(self) -> None:
        self._forms: dict[_Key, Form] = {}
        self._touched: Touched[_Key] = Touched()

    def note(self, field: str, binding: Binding, form: Form, *, is_leased: bool = False) -> None:
        """Remembers how a phone wrote the endpoint that the binding stands for."""
        if form is not INTERNAL or is_leased:
            self._set(_key(field == "via", binding), form)
        elif self._forms:
            self._drop(_key(field == "via", binding))

    def form(self, field: str, binding: Binding) -> Form | None:
        """Returns how the phone wrote the endpoint of the binding, None if nothing is known."""
        if not self._forms:
            return None
        return self._forms.get(_key(field == "via", binding))

    def forget(self, binding: Binding) -> None:
        """Drops what is known about the endpoint of a binding that is closed."""
        if self._forms:
            self._drop(_key(True, binding))
            self._drop(_key(False, binding))

    def move(self, old_address: str, moved: Mapping[Socket, Endpoint]) -> None:
        """Follows external endpoints to others; those left at the old address are forgotten."""
        forms, self._forms = self._forms, {}
        for key, form in forms.items():
            self._touched.add(key)
            is_via, transport, external = key
            after = moved.get((transport, external), external)
            if after.address != old_address:
                self._set((is_via, transport, after), form)

    def take_rows(self, *, has_all: bool) -> Iterator[tuple[str, bytes | None]]:
        """Yields the rows of what was touched."""
        for key in self._touched.take(self._forms, has_all=has_all):
            form = self._forms.get(key)
            row = None if form is None else msgspec.msgpack.encode((key, form))
            is_via, transport, external = key
            yield f"{'via' if is_via else 'other'} {transport.label} {external}", row

    def put_row(self, row: bytes, standing: Swap, now: float) -> None:
        """Takes a form back."""
        key, form = msgspec.msgpack.decode(row, type=tuple[_Key, Form])
        self._set(key, form)

    def _set(self, key: _Key, form: Form) -> None:
        self._forms[key] = form
        self._touched.add(key)

    def _drop(self, key: _Key) -> None:
        if self._forms.pop(key, None) is not None:
            self._touched.add(key)

    def __len__(self) -> int:
        return len(self._forms)


def _key(is_via: bool, binding: Binding) -> _Key:
    return is_via, binding.transport, binding.external
