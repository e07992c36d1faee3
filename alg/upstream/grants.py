"""Has the gateway above grant, keep and end a mapping for each one that the table has.

    asked        no remote can reach it yet: messages that name it wait (`is_waiting`)
    granted      asked for again at half its life, and when the gateway has lost its state
    refused      the gateway has given the port to somebody else: the table must take another, but
                 not one after the other, for there are gateways that have few ports for each client
    unanswered   asked for again before long; messages go on, for the NAT above may do without

What was announced before (by an earlier run) is asked for as well, and nothing waits for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable

from alg.upstream.mapper import Denied, Grant, Key, Mapper, Silent
from nat_table.binding import Binding
from nat_table.changes import Change, Closed, Opened
from nat_table.endpoint import is_ipv6

log = logging.getLogger("sipnat")

LIFETIME = 1200
"""Seconds. Short, because a young gateway that begins anew is not always noticed."""

PATIENCE = 4.0
"""How long anything waits, however many others are asked for before it."""

MAX_REFUSALS = 16
"""How many ports of a host are given up in a row; then it has what it has."""

RETRY_INTERVAL = 20.0
IN_FLIGHT = 32


class _Wanted:
    """A mapping that is wanted upstream; `is_new` until there was an answer of any kind."""

    __slots__ = ("binding", "granted", "is_new", "timer")

    def __init__(self, binding: Binding, *, is_new: bool) -> None:
        self.binding = binding
        self.is_new = is_new
        self.granted = False
        self.timer: asyncio.TimerHandle | None = None


class Grants:
    """What the table wants of the gateway above, and what that has granted.

    `refused` is called with a binding whose port cannot be had, before anybody was told of it;
    `settled` when messages that have waited may go.
    """

    def __init__(self) -> None:
        self.refused: Callable[[Binding], None] = lambda binding: None
        self.settled: Callable[[], None] = lambda: None
        self._mapper: Mapper | None = None
        self._wanted: dict[Key, _Wanted] = {}
        self._tasks: dict[Key, asyncio.Task[None]] = {}
        self._queued: set[Key] = set()  # their tasks have not looked yet at what is wanted
        self._new: Counter[str] = Counter()  # by internal address
        self._refusals: Counter[str] = Counter()  # by internal address, since the last grant
        self._slots = asyncio.Semaphore(IN_FLIGHT)

    @property
    def is_asking(self) -> bool:
        """Whether there is a gateway above that is asked."""
        return self._mapper is not None

    @property
    def count(self) -> int:
        """How many mappings the gateway has granted."""
        return sum(each.granted for each in self._wanted.values())

    def is_waiting(self, host: str) -> bool:
        """Whether a mapping of an internal host is asked for and not answered yet."""
        return host in self._new

    def use(self, mapper: Mapper | None, standing: Iterable[Binding]) -> None:
        """Asks this gateway from now on, for what stands already too; None asks nobody."""
        if mapper is self._mapper:
            return
        for key in list(self._wanted):
            self._forget(key)
        self._mapper = mapper
        self._refusals.clear()
        self._open(standing, is_new=False)

    def follow(self, changes: Iterable[Change]) -> None:
        """Asks for what was opened, and ends what was closed and not opened again."""
        if self._mapper is None:
            return
        opened: dict[Key, Binding] = {}
        closed: dict[Key, None] = {}
        for change in changes:
            if isinstance(change, Opened | Closed) and not is_ipv6(change.binding.external.address):
                key = change.binding.transport, change.binding.external.port
                if isinstance(change, Opened):
                    opened[key] = change.binding
                else:
                    closed[key] = None
                    opened.pop(key, None)
        for key in closed:
            if key in opened and key in self._wanted:  # moved to another address
                self._wanted[key].binding = opened.pop(key)
            elif key in self._wanted:
                self._forget(key)
                self._run(key)
        self._open(opened.values(), is_new=True)

    def ask_again(self) -> None:
        """Asks for all anew: the gateway has forgotten what it had granted."""
        for key in self._wanted:
            self._run(key)

    def _open(self, bindings: Iterable[Binding], *, is_new: bool) -> None:
        if self._mapper is None:
            return
        loop = asyncio.get_running_loop()
        for binding in bindings:
            key = binding.transport, binding.external.port
            if key not in self._wanted and not is_ipv6(binding.external.address):
                wanted = self._wanted[key] = _Wanted(binding, is_new=is_new)
                if is_new:
                    self._new[binding.internal.address] += 1
                    wanted.timer = loop.call_later(PATIENCE, self._give_up, key, wanted)
                self._run(key)

    def _forget(self, key: Key) -> None:
        wanted = self._wanted.pop(key)
        if wanted.timer is not None:
            wanted.timer.cancel()
        self._answer(wanted)

    def _give_up(self, key: Key, wanted: _Wanted) -> None:
        """Has messages go on; what has not been answered is asked for all the same."""
        log.warning("the gateway above takes long to map %s port %d", key[0].label, key[1])
        self._answer(wanted)

    def _answer(self, wanted: _Wanted) -> None:
        """Takes note that nobody need wait for it any more."""
        if wanted.is_new:
            wanted.is_new = False
            host = wanted.binding.internal.address
            self._new[host] -= 1
            if not self._new[host]:
                del self._new[host]
                self.settled()

    def _run(self, key: Key) -> None:
        """Has one mapping be as it is wanted, after what is under way for it."""
        if key in self._queued:
            return
        self._queued.add(key)
        before = self._tasks.get(key)
        task = self._tasks[key] = asyncio.get_running_loop().create_task(self._adjust(key, before))
        task.add_done_callback(lambda done: self._finish(key, done))

    def _finish(self, key: Key, task: asyncio.Task[None]) -> None:
        if self._tasks.get(key) is task:
            del self._tasks[key]
            self._queued.discard(key)
        if not task.cancelled() and (error := task.exception()):
            log.error("a mapping was not asked for because of an error: %r", error)

    async def _adjust(self, key: Key, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait([before])
        async with self._slots:
            self._queued.discard(key)
            mapper, wanted = self._mapper, self._wanted.get(key)
            if mapper is None:
                return
            try:
                if wanted is None:
                    await mapper.map(key, 0)
                    return
                grant = await mapper.map(key, LIFETIME)
                if grant.external.port != key[1]:
                    await mapper.map(key, 0)
                    raise Denied("it has given another port", is_port=True)
            except Silent:
                if wanted is not None:
                    self._put_off(key, wanted, "it is silent")
            except Denied as denied:
                if wanted is None:
                    return
                host = wanted.binding.internal.address
                if denied.is_port and wanted.is_new and self._refusals[host] < MAX_REFUSALS:
                    self._refusals[host] += 1
                    self.refused(wanted.binding)
                self._put_off(key, wanted, str(denied))
            else:
                self._keep(key, wanted, grant)

    def _keep(self, key: Key, wanted: _Wanted, grant: Grant) -> None:
        if self._wanted.get(key) is not wanted:
            return
        wanted.granted = True
        self._refusals.pop(wanted.binding.internal.address, None)
        self._again(key, wanted, max(grant.lifetime / 2, 1.0))
        self._answer(wanted)

    def _put_off(self, key: Key, wanted: _Wanted, why: str) -> None:
        if self._wanted.get(key) is not wanted:
            return
        if wanted.is_new or wanted.granted:
            log.warning("the gateway above does not map %s port %d: %s", key[0].label, key[1], why)
        wanted.granted = False
        self._again(key, wanted, RETRY_INTERVAL)
        self._answer(wanted)

    def _again(self, key: Key, wanted: _Wanted, delay: float) -> None:
        if wanted.timer is not None:
            wanted.timer.cancel()
        wanted.timer = asyncio.get_running_loop().call_later(delay, self._run, key)
