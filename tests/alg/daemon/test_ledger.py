"""What the kernel has taken is noted for the store, the newest state of each mapping once."""

from __future__ import annotations

import random

import pytest

from alg.daemon.ledger import MAPPING, Ledger, decode_row
from nat_table.behavior import Behavior
from nat_table.binding import ANYONE, Binding, Kind, Owner, Permit, Pinhole
from nat_table.endpoint import Endpoint, Transport
from nat_table.lease import Source, lease_owner
from nat_table.table import NatTable
from rules.backend import CommitFailed
from rules.memory import MemoryBackend
from rules.settings import Settings

PHONE, PHONE_2 = Endpoint("10.0.0.20", 5060), Endpoint("10.0.0.21", 5060)
REGISTRAR = Endpoint("203.0.113.10", 5060)
OWNER = Owner("registration", "a@10.0.0.20")


class Router:
    """A table, a kernel in memory, and the ledger between them."""

    def __init__(self) -> None:
        self.table = NatTable(["203.0.113.1"], Behavior(), random.Random(1))
        self.kernel = MemoryBackend(Settings(("lan0",), "wan0", ("203.0.113.1",)))
        self.ledger = Ledger(self.table, self.kernel)

    def bind(self, phone: Endpoint, until: float = 60.0) -> Binding:
        binding = self.table.bind(
            Transport.UDP, phone, Kind.SIP, OWNER, now=0.0, expires_at=until, remotes=(REGISTRAR,)
        )
        self.ledger.commit(self.table.take_changes())
        return binding


@pytest.fixture
def router() -> Router:
    return Router()


def test_a33_a_row_comes_back_as_it_was(router: Router) -> None:
    binding = router.bind(PHONE)
    ((key, row),) = router.ledger.take_rows()
    assert key == (MAPPING, "udp 10.0.0.20:5060")
    assert row is not None
    assert decode_row(row) == (binding, router.table.pinholes(binding))


def test_only_what_has_changed_is_given_and_the_newest_state_of_it(router: Router) -> None:
    router.bind(PHONE)
    router.bind(PHONE_2)
    assert len(dict(router.ledger.take_rows())) == 2
    assert dict(router.ledger.take_rows()) == {}
    router.bind(PHONE, 90.0)
    router.bind(PHONE, 120.0)
    ((_, row),) = router.ledger.take_rows()
    assert row is not None
    _, (pinhole,) = decode_row(row)
    assert pinhole.expires_at == 120.0
    assert len(dict(router.ledger.take_rows(has_all=True))) == 2


def test_a_deadline_that_creeps_is_told_now_and_then(
    router: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    router.bind(PHONE)
    list(router.ledger.take_rows())
    router.bind(PHONE, 61.0)
    assert len(dict(router.ledger.take_rows())) == 1
    router.bind(PHONE, 62.0)
    assert dict(router.ledger.take_rows()) == {}
    monkeypatch.setattr("alg.daemon.ledger.now", lambda: 1e9)
    ((_, row),) = router.ledger.take_rows()
    assert row is not None
    _, (pinhole,) = decode_row(row)
    assert pinhole.expires_at == 62.0
    router.bind(PHONE, 63.0)
    router.bind(PHONE, 90.0)
    assert len(dict(router.ledger.take_rows())) == 1


def test_what_is_closed_is_gone(router: Router) -> None:
    binding = router.bind(PHONE)
    router.table.close(binding, OWNER, 1.0)
    router.ledger.commit(router.table.take_changes())
    assert dict(router.ledger.take_rows()) == {(MAPPING, "udp 10.0.0.20:5060"): None}


def test_what_the_kernel_refuses_is_not_noted(router: Router) -> None:
    router.kernel.is_refusing = True
    with pytest.raises(CommitFailed):
        router.bind(PHONE)
    assert dict(router.ledger.take_rows()) == {}


def test_the_kernel_is_made_equal_to_the_table(router: Router) -> None:
    router.bind(PHONE)
    router.bind(PHONE_2)
    standing = router.kernel.listing()
    router.kernel.uninstall()
    for _ in router.ledger.reconcile():
        pass
    assert router.kernel.listing() == standing


def test_to_begin_anew_ends_what_is_under_way(
    router: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rules.reconcile.SLICE", 1)
    router.bind(PHONE)
    standing = router.kernel.listing()
    router.kernel.uninstall()
    first = router.ledger.reconcile()
    next(first)
    router.kernel.uninstall()
    second = router.ledger.reconcile()
    assert list(first) == [] and router.kernel.listing() == []
    assert list(second) and router.kernel.listing() == standing


def test_a_lease_is_stored_and_reconciled_with_what_it_permits(router: Router) -> None:
    owner, permits = lease_owner(Source.PCP, "nonce"), (Permit("198.51.100.0/24", 9), ANYONE)
    remotes = (Endpoint("203.0.113.10", 5060),)
    router.table.bind(
        *(Transport.TCP, PHONE, Kind.ANY, owner),
        now=0.0,
        expires_at=60.0,
        remotes=remotes,
        permits=permits,
    )
    router.ledger.settle()
    (row,) = dict(router.ledger.take_rows()).values()
    assert row is not None
    binding, pinholes = decode_row(row)
    assert binding.kind is Kind.ANY
    assert pinholes == (Pinhole(owner, 60.0, remotes, permits),)
    before = router.kernel._standing()
    assert {each.set_name for each in before} >= {"requested", "unfiltered", "admitted"}
    router.kernel.uninstall()
    for _ in router.ledger.reconcile():
        pass
    assert set(router.kernel._standing()) == set(before)


def test_what_turns_into_signalling_is_logged_and_stored(
    router: Router, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "sipnat")
    router.table.bind(Transport.UDP, PHONE, Kind.ANY, OWNER, now=0.0, expires_at=60.0)
    router.ledger.settle()
    list(router.ledger.take_rows())
    router.bind(PHONE)
    (row,) = dict(router.ledger.take_rows()).values()
    assert row is not None
    assert decode_row(row)[0].kind is Kind.SIP
    assert "turned into sip 10.0.0.20:5060 <-> " in caplog.text


@pytest.mark.parametrize("row", [b"", b"\x00", b"\x92\x01\x02", b"\xc1" * 20, b'{"a": 1}'])
def test_bytes_that_are_no_row_are_refused(row: bytes) -> None:
    with pytest.raises(ValueError):
        decode_row(row)


@pytest.mark.parametrize(("kind", "is_told"), [(Kind.RTP, True), (Kind.SIP, False)])
def test_who_watches_media_is_told_when_some_has_ended(kind: Kind, is_told: bool) -> None:
    router = Router()
    binding = router.table.bind(
        Transport.UDP, PHONE, kind, OWNER, now=0.0, expires_at=60.0, remotes=(REGISTRAR,)
    )
    router.ledger.commit(router.table.take_changes())
    assert not router.ledger.media_closed.is_set()
    router.table.close(binding, OWNER, 1.0)
    router.ledger.commit(router.table.take_changes())
    assert router.ledger.media_closed.is_set() is is_told
