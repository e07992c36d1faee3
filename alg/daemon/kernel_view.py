"""How the kernel's side stands and fares, as rows: an item, its value, and the most it may be.

The value is a number, or a word where it is a state. Items are added where there is more to tell,
and left out where this kernel does not tell.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from threading import Lock
from typing import TypedDict

from alg.daemon.ledger import Ledger
from alg.io.control import RequestRefused
from alg.io.queue import MAX_QUEUED
from nat_table.table import NatTable
from rules.backend import Backend
from rules.elements import INTERNAL
from rules.inspection import Inspection
from rules.netlink import KernelRefused


class KernelRow(TypedDict):
    """What the command line shows of an item; these names never change."""

    item: str
    value: int | str
    max: int | None


class KernelView:
    """Looks at the kernel in a thread, for one asker at a time."""

    def __init__(self, table: NatTable, ledger: Ledger, backend: Backend) -> None:
        self._table = table
        self._ledger = ledger
        self._backend = backend
        self._turn = asyncio.Lock()
        self._looking = Lock()

    async def rows(self) -> list[KernelRow]:
        """Returns all items; raises RequestRefused where the kernel does not answer."""
        async with self._turn:
            try:
                seen = await asyncio.to_thread(self._look)
            except KernelRefused as refusal:
                raise RequestRefused(f"the kernel does not answer: {refusal}") from refusal
        return list(self._items(seen))

    def _look(self) -> Inspection:
        """Looks when nobody does: the thread of an asker who was let go may be at it still."""
        with self._looking:
            return self._backend.inspect()

    def _items(self, seen: Inspection) -> Iterator[KernelRow]:
        yield _row("rules", "stand" if seen.has_rules else "gone")
        yield _row("capture", "nft queue" if seen.is_native_queue else "iptables NFQUEUE")
        if seen.has_capture is not None:
            yield _row("capture rule", "stands" if seen.has_capture else "gone")
        yield _row("in step", "behind, is mended soon" if self._ledger.is_behind else "yes")
        if seen.queue is None:
            yield _row("queue", "not known")
        else:
            yield _row("queue waiting", seen.queue.waiting, MAX_QUEUED)
            yield _row("queue packets", seen.queue.seen)
            yield _row("queue dropped", seen.queue.refused)
            yield _row("queue undelivered", seen.queue.undelivered)
        if seen.conntrack is not None:
            yield _row("conntrack flows", seen.conntrack.flows, seen.conntrack.max_flows)
            yield _row("conntrack counts packets", "yes" if seen.conntrack.is_counting else "no")
        yield _row("mappings in the table", len(self._table))
        standing = sum(seen.elements.get(name, 0) for name in INTERNAL)
        yield _row("mappings in the kernel", standing)
        for name, count in seen.elements.items():
            if count:
                yield _row(f"set {name}", count)
        for name, count in sorted(seen.counters.items()):
            yield _row(f"counter {name.replace('_', '-')}", count)


def _row(item: str, value: int | str, most: int | None = None) -> KernelRow:
    return {"item": item, "value": value, "max": most}
