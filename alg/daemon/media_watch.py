"""Looks at what media carries: every few seconds, when somebody asks, and when media has ended.

Looking costs a walk through conntrack, in a thread, and no more than a fiftieth of a core: the
longer it takes the rarer it is. Nobody looks while there are no calls. Flows of a call that has
ended are cut a tenth of a second later, which is time enough to learn what they have carried.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence

from alg.daemon.ledger import Ledger
from alg.daemon.selection import Selection
from alg.dialogs.call import Call, owner_of
from alg.dialogs.dialog import Calls
from alg.dialogs.summary import CallSummary, summarise
from alg.io.clock import now
from alg.io.control import Request
from alg.observe.call_rows import CallRow, call_row
from alg.observe.media_activity import Accused, MediaActivity, has_ended_since
from nat_table.endpoint import Socket
from rules.accounting import is_counting, start_counting
from rules.backend import Backend
from rules.netlink import KernelRefused
from rules.traffic import Traffic

log = logging.getLogger("sipnat")

INTERVAL = 4.0
LEAST_INTERVAL = 1.0
REST = 50.0
"""How many times as long as a look the pause after it is at least."""

CALLS_PER_STEP = 25
MAX_ASKED = 8
"""For each the kernel looks through all flows: the others have their turn in the next looks."""


class MediaWatch:
    """Knows what media the calls have; `activity` is what was seen last."""

    def __init__(self, calls: Calls, backend: Backend, ledger: Ledger, *, is_on: bool) -> None:
        self.activity = MediaActivity()
        self._calls = calls
        self._backend = backend
        self._has_ended = ledger.media_closed
        self._is_on = is_on
        self._is_counting = False
        self._looking = asyncio.Lock()
        self._looked_at = 0.0
        self._took = 0.0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Has the kernel count, and begins to look.

        Flows that are older than the counting are not counted, so they are cut: their next packets
        make them anew.
        """
        if not self._is_on:
            return
        if not is_counting():
            try:
                start_counting()
                self._backend.cut_flows()
            except (OSError, KernelRefused) as error:
                log.warning("media is not watched, because the kernel does not count it: %s", error)
                return
            log.info("the kernel counts the packets of flows from now on (nf_conntrack_acct)")
        self._is_counting = True
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def turn(self, *, is_on: bool) -> None:
        """Looks from now on, or no more."""
        await self.close()
        self.activity.forget()
        self._is_on = is_on
        self.start()

    async def close(self) -> None:
        """Looks no more; the kernel goes on counting."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def rows(self, request: Request, selection: Selection) -> Iterator[CallRow | None]:
        """Returns a row for every call that is wanted, counted just now, and None for the others.

        The last ended ones come last, if they are wanted at all.
        """
        if self._task is not None:
            # Who asks may be let go meanwhile; half a sample would count what it has seen twice.
            await asyncio.shield(self._look(max(LEAST_INTERVAL, self._rest)))
        return self._rows(request, selection, self._calls.standing())

    def _rows(
        self, request: Request, selection: Selection, calls: Sequence[Call]
    ) -> Iterator[CallRow | None]:
        has_users = request.get("users") is True
        standing = (summarise(call) for call in calls if not call.is_ended)
        ended = list(self._calls.ended) if request.get("ended") is True else []
        for call in itertools.chain(standing, ended):
            if _is_chosen(call, selection):
                yield call_row(call, self.activity, now(), has_users=has_users)
            else:
                yield None

    @property
    def _rest(self) -> float:
        return REST * self._took

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._has_ended.wait(), max(0.0, INTERVAL - self._rest))
            self._has_ended.clear()
            try:
                await self._look()
            except Exception:
                log.exception("media is not watched for a moment because of an error")
            await asyncio.sleep(self._rest)

    async def _look(self, interval: float = 0.0) -> None:
        """Takes a sample, unless the last one is more recent than that."""
        async with self._looking:
            began = now()
            if began - self._looked_at < interval:
                return
            try:
                await self._sample(began)
            except KernelRefused as refusal:
                log.debug("what media carries is not known: %s", refusal)
            self._looked_at = now()
            self._took = self._looked_at - began

    async def _sample(self, moment: float) -> None:
        """Looks at every call, in steps; raises KernelRefused."""
        calls, activity = self._calls.standing(), self.activity
        if not self._still_counts():
            activity.forget()
            return
        has_news = any(has_ended_since(each, activity.sampled_at) for each in self._calls.ended)
        traffic: Mapping[Socket, Traffic] = {}
        if calls or has_news:
            traffic = await asyncio.to_thread(self._backend.traffic)
        activity.begin(traffic, moment)
        for i, call in enumerate(calls, 1):
            if not call.is_ended:
                activity.see(summarise(call))
            if i % CALLS_PER_STEP == 0:
                await asyncio.sleep(0)
        for each in self._calls.ended:
            activity.see_ended(each)
        for accused in activity.accused[:MAX_ASKED]:
            is_heard = await asyncio.to_thread(self._is_sending, accused)
            activity.judge(accused, is_heard=is_heard)
        activity.finish()

    def _is_sending(self, accused: Accused) -> bool:
        """Whether a phone that is not heard sends from another port than it has signalled."""
        try:
            return any(
                self._backend.is_sending(accused.internal, remote)
                for remote in accused.remotes[:MAX_ASKED]
            )
        except KernelRefused:
            return False

    def _still_counts(self) -> bool:
        """Tells whether the kernel counts, and says so where somebody has changed that.

        Where it counts again, flows that began meanwhile are cut, as at the start; KernelRefused.
        """
        is_on = is_counting()
        if is_on and not self._is_counting:
            self._backend.cut_flows()
            log.info("nf_conntrack_acct is on again: media is watched")
        elif self._is_counting and not is_on:
            log.warning("somebody has switched nf_conntrack_acct off: media is not watched")
        self._is_counting = is_on
        return is_on


def _is_chosen(call: CallSummary, selection: Selection) -> bool:
    """Whether a request wants a call: by its Call-ID, its phone, or a socket of its media."""
    if not selection.has_call(owner_of(call.key).call_id):
        return False
    if not selection.port:
        return selection.host in (None, call.key.host)
    return any(selection.has(binding.internal) for binding in call.remotes)
