"""How phones write their own endpoints, so that they get back what they wrote.

An external endpoint stands for an internal one, usually written in full. Two things differ: a phone
on 5060 may leave the port out, and a phone that learned its external endpoint (from received and
rport, or by STUN) writes that itself. What comes back must read the same, or the phone does not
know its own Via (RFC 3261 §18.1.2) or its own registration (§10.2.4). Via and all other fields are
told apart, because many a phone writes them differently. Only what differs is kept.
"""

from __future__ import annotations

import enum

from nat_table.endpoint import Endpoint


class Form(enum.Enum):
    """How an endpoint is written."""

    INTERNAL = "address and port"
    BARE = "address without the port"
    EXTERNAL = "the external endpoint itself"


class Written:
    """The form in which a phone wrote each endpoint last, by field and external endpoint."""

    __slots__ = ("_forms",)

    def __init__(self) -> None:
        self._forms: dict[tuple[bool, Endpoint], Form] = {}

    def note(self, field: str, external: Endpoint, form: Form) -> None:
        """Remembers how a phone wrote the endpoint."""
        if form is not Form.INTERNAL:
            self._forms[field == "via", external] = form
        elif self._forms:
            self._forms.pop((field == "via", external), None)

    def form(self, field: str, external: Endpoint) -> Form:
        """Returns how the phone wrote the endpoint."""
        return self._forms.get((field == "via", external), Form.INTERNAL)

    def forget(self, external: Endpoint) -> None:
        """Drops what is known about an endpoint whose binding is closed."""
        if self._forms:
            self._forms.pop((True, external), None)
            self._forms.pop((False, external), None)

    def __len__(self) -> int:
        return len(self._forms)
