"""One message, an outcome, its changes into the kernel: the same for packets and for streams.

The changes are in the kernel before the message leaves. If the kernel refuses them the table is put
back, and the outcome is a drop. While the gateway above has not granted what it opens, it is held:
whoever sent it brings it again.
"""

from __future__ import annotations

import logging
from typing import Final

from alg.daemon.ledger import Ledger
from alg.datagram import Datagram
from alg.gateway import Gateway
from alg.io.clock import now
from alg.observe.passage import Passage
from alg.verdict import Outcome, Reason, Verdict
from nat_table.endpoint import Endpoint
from rules.backend import CommitFailed

log = logging.getLogger("sipnat")

LIMITS: Final = frozenset((Reason.NO_FREE_PORT, Reason.QUOTA, Reason.RATE))
LIMIT_INTERVAL: Final = 10.0


class Decisions:
    """Asks the engine, and has the kernel follow."""

    def __init__(self, gateway: Gateway, ledger: Ledger) -> None:
        """Takes the engine, and what commits its changes; who watches that watches this too."""
        self._gateway = gateway
        self._ledger = ledger
        self._observers = ledger.observers
        self._committing = 0.0
        self._next_warning = 0.0

    def decide(self, datagram: Datagram) -> Outcome:
        """Decides about one message; what it opens stands by now."""
        if not self._observers:
            return self._decide(datagram, now())
        began, self._committing = now(), 0.0
        outcome = self._decide(datagram, began)
        self._observers.see(
            Passage(
                began,
                now() - began,
                self._committing,
                datagram,
                outcome,
                self._external(datagram, datagram.source),
                self._external(datagram, datagram.destination),
            )
        )
        return outcome

    def _decide(self, datagram: Datagram, moment: float) -> Outcome:
        gateway, grants = self._gateway, self._ledger.grants
        host = datagram.source[0]
        if grants.is_waiting(host):
            return _held(datagram)
        outcome = gateway.receive(datagram, moment)
        if outcome.reason in LIMITS:
            self.warn(
                f"a message passes as it came, so its call may lack audio: {outcome.detail}",
                outcome.reason,
            )
        if outcome.changes:
            try:
                self._commit(outcome)
            except CommitFailed as error:
                log.warning("the kernel refused a mapping, the message must come again: %s", error)
                outcome = gateway.roll_back(outcome, str(error))
            else:
                gateway.confirm(outcome)
                if grants.is_waiting(host):
                    gateway.counters[outcome.reason] -= 1
                    return _held(datagram)
        if log.isEnabledFor(logging.DEBUG):
            fields = {
                "source": datagram.source,
                "destination": datagram.destination,
                "reason": outcome.reason.value,
            }
            log.debug("%s -> %s %s", *fields.values(), extra=fields)
        return outcome

    def _commit(self, outcome: Outcome) -> None:
        """Has the kernel follow, and notes how long that takes while somebody watches."""
        if not self._observers:
            self._ledger.commit(outcome.changes)
            return
        began = now()
        try:
            self._ledger.commit(outcome.changes)
        finally:
            self._committing = now() - began

    def _external(self, datagram: Datagram, end: Endpoint) -> Endpoint | None:
        """Returns what stands for an end, None where it has no mapping."""
        binding = self._gateway.table.look_up_internal(datagram.transport, end)
        return binding.external if binding is not None else None

    def warn(self, text: str, reason: Reason) -> None:
        """Logs that a limit was met, but not once a message."""
        moment = now()
        if moment >= self._next_warning:
            self._next_warning = moment + LIMIT_INTERVAL
            log.warning("%s", text, extra={"reason": reason.value})


def _held(datagram: Datagram) -> Outcome:
    return Outcome(Verdict.HELD, Reason.UPSTREAM, datagram.payload)
