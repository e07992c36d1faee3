"""Offer and answer: which media bindings are agreed, and which are only offered (RFC 3264).

Only what the internal phone writes counts here: its descriptions name the ports it will listen on.
Offered bindings are open beside the agreed ones until the answer decides; a refused offer leaves
what was agreed before (RFC 3261 §14.1), an accepted one replaces it.

There is one open offer at a time (RFC 3264 §4), so whatever is agreed on later was agreed after
every earlier offer was answered: the 200 to an INVITE must not bring back the ports it offered
before a PRACK or UPDATE moved them. Offers and agreements are therefore numbered as they come.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain
from typing import NamedTuple

from nat_table.binding import Binding
from nat_table.endpoint import Endpoint

MAX_OFFERS = 8
MAX_MAPPED = 128

Bindings = tuple[Binding, ...]


class _Offer(NamedTuple):
    number: int
    bindings: Bindings


class OfferAnswer:
    """The media of one call: agreed bindings, open offers by CSeq, and mappings it has used."""

    __slots__ = ("_agreed", "_number", "_offers", "_settled", "mapped")

    def __init__(self) -> None:
        self._agreed = _Offer(0, ())
        self._offers: dict[int, _Offer] = {}
        self._number = 0
        self._settled = -1
        self.mapped: dict[Endpoint, Binding] = {}

    def bindings(self) -> Bindings:
        """Returns every binding that is agreed or offered, each once."""
        offered = (offer.bindings for offer in self._offers.values())
        return tuple(dict.fromkeys(chain(self._agreed.bindings, *offered)))

    def offer(self, cseq: int, bindings: Bindings) -> Bindings:
        """Notes what a request offers; returns the bindings that are no longer used.

        A retransmission changes nothing, however late it comes. Of many offers that nobody answers
        the oldest is given up.
        """
        if cseq <= self._settled or cseq in self._offers:
            return ()
        self._number += 1
        self._offers[cseq] = _Offer(self._number, bindings)
        if len(self._offers) <= MAX_OFFERS:
            return ()
        return self._unused(self._offers.pop(next(iter(self._offers))).bindings)

    def remember(self, mapped: Mapping[Endpoint, Binding]) -> None:
        """Takes note of what a description named, of the latest ones only."""
        self.mapped.update(mapped)
        for internal in list(self.mapped)[: max(0, len(self.mapped) - MAX_MAPPED)]:
            del self.mapped[internal]

    def accept(self, cseq: int) -> Bindings:
        """Agrees on the offer of a request; returns the bindings that are no longer used."""
        offer = self._close(cseq)
        if offer.number < self._agreed.number:
            return self._unused(offer.bindings)
        before, self._agreed = self._agreed, offer
        return self._unused(before.bindings)

    def refuse(self, cseq: int) -> Bindings:
        """Rolls the offer of a request back; returns the bindings that are no longer used."""
        return self._unused(self._close(cseq).bindings)

    def settle(self, bindings: Bindings) -> Bindings:
        """Agrees on what the phone answers; returns the bindings that are no longer used."""
        self._number += 1
        before, self._agreed = self._agreed, _Offer(self._number, bindings)
        return self._unused(before.bindings)

    def preview(self, bindings: Bindings) -> None:
        """Adds what a provisional answer names to what is agreed (RFC 3261 §13.2.1)."""
        agreed = dict.fromkeys((*self._agreed.bindings, *bindings))
        self._agreed = _Offer(self._agreed.number, tuple(agreed))

    def release(self) -> None:
        """Forgets agreement and offers; `mapped` stays for late retransmissions."""
        self._agreed = _Offer(self._number, ())
        self._offers.clear()

    def _close(self, cseq: int) -> _Offer:
        offer = self._offers.pop(cseq, None)
        if offer is None:
            return self._agreed
        self._settled = max(self._settled, cseq)
        return offer

    def _unused(self, bindings: Iterable[Binding]) -> Bindings:
        used = set(self.bindings())
        return tuple(binding for binding in bindings if binding not in used)
