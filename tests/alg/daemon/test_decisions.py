"""What watchers are told of a message: what became of it, also where the kernel refused."""

from __future__ import annotations

from alg.daemon.decisions import Decisions
from alg.datagram import Datagram
from alg.gateway import Gateway
from alg.gateway_settings import GatewaySettings
from alg.observe.passage import Occurrence, Passage
from alg.verdict import Reason, Verdict
from tests.alg.daemon.test_ledger import Router
from tests.alg.playbook import EXTERNAL, PHONE, SERVER, invite, sdp


class Witness:
    """A watcher that keeps what it is told."""

    def __init__(self) -> None:
        self.passages: list[Passage] = []

    def see(self, passage: Passage) -> None:
        self.passages.append(passage)

    def notice(self, occurrence: Occurrence) -> None:
        pass


def test_a_refused_commit_is_told_with_what_the_kernel_said() -> None:
    router, witness = Router(), Witness()
    decisions = Decisions(Gateway(GatewaySettings((EXTERNAL,)), router.table), router.ledger)
    message = Datagram(PHONE, SERVER, invite(body=sdp("10.0.0.20", 4000)))
    decisions.decide(message)
    router.ledger.observers.add(witness)
    router.kernel.is_refusing = True
    other = invite(body=sdp("10.0.0.20", 4002), call_id="other")
    outcome = decisions.decide(Datagram(PHONE, SERVER, other))
    router.kernel.is_refusing = False
    decisions.decide(message)
    refused, passed = witness.passages
    assert refused.outcome is outcome
    assert (outcome.verdict, outcome.reason) == (Verdict.DROPPED, Reason.COMMIT_FAILED)
    assert outcome.detail
    assert refused.left is None and refused.commit > 0
    assert passed.left is not None and passed.left.source.address == EXTERNAL
    assert passed.took >= passed.commit
