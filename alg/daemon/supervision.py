"""What systemd is told while packets are handled: that they still are, and how the gateway stands.

A gateway that hangs is worse than none: the kernel drops what it hands to a queue that is bound
and not served. So a beat comes from the event loop that serves the queue, and only while the kernel
sees answers to what waits there. Without beats systemd starts the gateway anew, and calls go on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

from alg.io import systemd
from alg.observe.standing import standing
from rules.inspection import QueueLoad, read_queue

log = logging.getLogger("sipnat")

STATUS_INTERVAL = 5.0
_LOOKS = 3
"""How many times the queue is looked at before the watchdog's time is over."""


class Service:
    """Whether a queue is served, by what the kernel tells of it at one look and at the next."""

    def __init__(self) -> None:
        self._before: QueueLoad | None = None

    def goes_on(self, load: QueueLoad | None) -> bool:
        """Tells whether something was answered since the last look, if there was what waited.

        So it does where the kernel tells nothing.
        """
        before, self._before = self._before, load
        if before is None or load is None or not before.waiting or not load.waiting:
            return True
        return load.answered != before.answered


async def beat(queue_number: int) -> None:
    """Sends a beat in time, again and again, while the queue is served; none if none is wanted."""
    timeout = systemd.watchdog_timeout()
    if timeout is None:
        return
    service = Service()
    while True:
        if service.goes_on(read_queue(queue_number)):
            systemd.notify("WATCHDOG=1")
        else:
            log.error("packets wait in queue %d and none is handled", queue_number)
        await asyncio.sleep(timeout / _LOOKS)


async def report(status: Callable[[], Awaitable[Sequence[Mapping[str, object]]]]) -> None:
    """Tells how the gateway stands whenever that has changed, if systemd listens.

    `status` returns one row.
    """
    told = ""
    while systemd.is_listening():
        try:
            [row] = await status()
        except Exception:  # a link may go while it is looked at
            log.exception("systemd may be told of how the gateway stood before because of an error")
        else:
            if (line := standing(row)) != told:
                systemd.notify(f"STATUS={line}")
                told = line
        await asyncio.sleep(STATUS_INTERVAL)
