"""Changes of the table on their way into the kernel.

What somebody waits for is made at once, in one transaction; mappings that only close are handed to
`rules.closing`. The transaction also tells which endpoints of new mappings strangers' flows use,
and those are cut before the message that announces the mappings leaves.
"""

from __future__ import annotations

from collections.abc import Sequence

from nat_table.changes import Change, Closed, Forbidden, Opened
from nat_table.endpoint import UDP
from rules import elements
from rules.audiences import Audiences
from rules.closing import Closer
from rules.conntrack import Conntrack
from rules.elements import Element, Operation, Step
from rules.netlink import KernelRefused, Netlink
from rules.settings import Settings
from rules.strays import inbound_ends, is_swept, own_ends, stray, used


class Commits:
    """Makes commits, and knows what each binding names as they leave it (`audiences`)."""

    def __init__(self, netlink: Netlink, conntrack: Conntrack, closer: Closer) -> None:
        self.audiences = Audiences()
        self._netlink = netlink
        self._conntrack = conntrack
        self._closer = closer

    def make(self, changes: Sequence[Change], settings: Settings) -> list[Step]:
        """Has the kernel follow, all changes or none; returns the steps. Raises KernelRefused."""
        plan = self.audiences.plan(changes, settings)
        steps = elements.steps(changes, settings)
        for is_added, element in plan.steps:
            steps.append((is_added, *element))
        if not steps and not plan.after:
            return steps
        closed = [change.binding for change in changes if isinstance(change, Closed)]
        if closed and not _is_urgent(changes, steps):
            self._closer.delete(steps)
        else:
            self._make_now(steps, changes, settings)
        self.audiences.confirm(plan)
        if closed:
            self._closer.sweep(steps)
        ends = own_ends(each for each in closed if not is_swept(each))
        ends += inbound_ends(plan.narrowed)
        if ends:
            self._closer.cut(ends)
        return steps

    def _make_now(self, steps: list[Step], changes: Sequence[Change], settings: Settings) -> None:
        opened = [change.binding for change in changes if isinstance(change, Opened)]
        asked: list[bytes] = []
        has_tcp = False
        for binding in opened:
            if binding.transport is UDP:
                asked.append(elements.pack_endpoint(binding.internal))
                asked.append(elements.pack_endpoint(binding.external))
            else:
                has_tcp = True
        waiting = self._closer.take_back(steps)
        try:
            found = self._netlink.commit(waiting + steps, asked)
        except KernelRefused:
            self._closer.delete(waiting)
            raise
        ends = used(opened, found, settings) if found or has_tcp else []
        if not ends:
            return
        try:
            self._conntrack.cut(ends)
        except KernelRefused:
            undone = [Operation(not each[0], Element(*each[1:])) for each in reversed(steps)]
            self._netlink.apply(undone + [Operation(True, stray(each)) for each in found])
            raise


def _is_urgent(changes: Sequence[Change], steps: Sequence[Step]) -> bool:
    """Tells whether somebody waits: for what is opened, or for a permit to be gone."""
    for step in steps:
        if step[0]:
            return True
    return any(isinstance(change, Forbidden) for change in changes)
