"""The mappings as rows: those that a request has chosen, with what they carry if it wants that.

A host and its port find a mapping at once; any other choice is a walk through the table, in steps.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence

from alg.daemon.selection import Selection
from alg.io.clock import now
from alg.io.control import RequestRefused, Row
from nat_table.binding import Binding, Pinhole
from nat_table.endpoint import Endpoint, Socket, Transport
from nat_table.lease import is_lease, source_of
from nat_table.snapshot import mapping_row
from nat_table.table import NatTable
from rules.backend import Backend
from rules.netlink import KernelRefused
from rules.traffic import Traffic

Carried = Mapping[Socket, Traffic]

_UNCOUNTED = dict.fromkeys(Traffic._fields)
_NOTHING = Traffic(0, 0, 0, 0)._asdict()


class MappingView:
    """The mappings of a table, and what they carry."""

    def __init__(self, table: NatTable, backend: Backend) -> None:
        self._table = table
        self._backend = backend

    def rows(self, selection: Selection, carried: Carried | None = None) -> Iterator[Row | None]:
        """Yields the rows that are chosen, and None for each mapping that is not."""
        moment, uncounted = now(), _NOTHING if carried else _UNCOUNTED
        wants_all = selection == Selection()
        for binding in self._bindings(selection):
            pinholes = self._table.pinholes(binding)
            if not pinholes or not (wants_all or _is_chosen(binding, pinholes, selection)):
                yield None
            elif carried is None:
                yield mapping_row(binding, pinholes, moment)
            else:
                counts = carried.get((binding.transport, binding.internal))
                counted = counts._asdict() if counts else uncounted
                yield {**mapping_row(binding, pinholes, moment), **counted}

    async def counted_rows(self, selection: Selection) -> Iterator[Row | None]:
        """Returns such rows, each with the packets and bytes of its flows, None where none count.

        Raises RequestRefused where the kernel does not answer.
        """
        try:
            carried = await asyncio.to_thread(self._backend.traffic)
        except KernelRefused as refusal:
            raise RequestRefused(f"the kernel does not answer: {refusal}") from refusal
        return self.rows(selection, carried)

    def _bindings(self, selection: Selection) -> Iterator[Binding]:
        if selection.host is None or not selection.port:
            return self._table.bindings()
        internal = Endpoint(selection.host, selection.port)
        found = (self._table.look_up_internal(each, internal) for each in Transport)
        return (binding for binding in found if binding is not None)


def _is_chosen(binding: Binding, pinholes: Sequence[Pinhole], selection: Selection) -> bool:
    """Tells whether a request wants a mapping; its Call-ID may be that of any of its owners."""
    return (
        selection.has(binding.internal)
        and selection.kind in (None, binding.kind)
        and (selection.call_id is None or any(map(selection.has_call, _call_ids(pinholes))))
        and (selection.source is None or source_of(pinholes) is selection.source)
    )


def _call_ids(pinholes: Sequence[Pinhole]) -> set[str]:
    return {each.owner.call_id for each in pinholes if not is_lease(each)}
