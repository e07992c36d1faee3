"""What is done when more packets come than can be served: what begins gives way to what goes on.

A queue that grows makes everything late, and what is late is sent again, so that it grows faster.
Once packets wait for long, messages that begin something are left aside: they pass as they came, or
are dropped to be sent again, as `on_failure` says of a gateway that cannot serve them. The messages
of calls that are up go on, and so does everything as soon as the queue is short again.
"""

from __future__ import annotations

import logging

from alg.gateway import Gateway
from alg.verdict import Verdict

log = logging.getLogger("sipnat")

LONG = 0.3
"""Seconds in the queue; SIP over UDP sends again after half a second."""

WARNING_INTERVAL = 10.0


class Overload:
    """Tells the engine what to do with what begins something."""

    def __init__(self, gateway: Gateway, is_fail_open: bool) -> None:
        self._gateway = gateway
        self._verdict = Verdict.UNCHANGED if is_fail_open else Verdict.DROPPED
        self._next_warning = float("-inf")

    def heed(self, waited: float, now: float) -> None:
        """Takes note of how long the next packet has waited, in seconds."""
        if waited < LONG:
            self._gateway.shedding = None
            return
        self._gateway.shedding = self._verdict
        if now >= self._next_warning:
            self._next_warning = now + WARNING_INTERVAL
            log.warning(
                "packets wait for %.1f s: calls and registrations that begin now %s",
                waited,
                "pass as they came" if self._verdict is Verdict.UNCHANGED else "must come again",
            )
