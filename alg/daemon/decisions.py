"""One message, an outcome, its changes into the kernel: the same for packets and for streams.

The changes are in the kernel before the message leaves. If the kernel refuses them the table is put
back, and the outcome is a drop. While the gateway above has not granted what it opens, it is held:
whoever sent it brings it again.
"""

from __future__ import annotations

import logging

from alg.daemon.ledger import Ledger
from alg.datagram import Datagram
from alg.gateway import Gateway
from alg.io.clock import now
from alg.verdict import Outcome, Reason, Verdict
from rules.backend import CommitFailed

log = logging.getLogger("sipnat")

LIMITS = {Reason.NO_FREE_PORT, Reason.QUOTA, Reason.RATE}
LIMIT_INTERVAL = 10.0


class Decisions:
    """Asks the engine, and has the kernel follow."""

    def __init__(self, gateway: Gateway, ledger: Ledger) -> None:
        self._gateway = gateway
        self._ledger = ledger
        self._next_warning = 0.0

    def decide(self, datagram: Datagram) -> Outcome:
        """Decides about one message; what it opens stands by now."""
        gateway, host = self._gateway, datagram.source.address
        if self._ledger.grants.is_waiting(host):
            return _held(datagram)
        outcome = gateway.receive(datagram, now())
        if outcome.reason in LIMITS:
            self.warn(f"a message passes as it came, so its call may lack audio: {outcome.detail}")
        if outcome.changes:
            try:
                self._ledger.commit(outcome.changes)
            except CommitFailed as error:
                log.warning("the kernel refused a mapping, the message must come again: %s", error)
                outcome = gateway.roll_back(outcome)
            else:
                gateway.confirm(outcome)
                if self._ledger.grants.is_waiting(host):
                    gateway.counters[outcome.reason] -= 1
                    return _held(datagram)
        log.debug("%s -> %s %s", datagram.source, datagram.destination, outcome.reason.value)
        return outcome

    def warn(self, text: str) -> None:
        """Logs that a limit was met, but not once a message."""
        moment = now()
        if moment >= self._next_warning:
            self._next_warning = moment + LIMIT_INTERVAL
            log.warning("%s", text)


def _held(datagram: Datagram) -> Outcome:
    return Outcome(Verdict.HELD, Reason.UPSTREAM, datagram.payload)
