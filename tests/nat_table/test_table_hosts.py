"""What the table owes each host: one external address, whatever happens, and its share of ports."""

import pytest

from nat_table.binding import Binding, Kind, Pinhole
from nat_table.changes import Admitted, Closed, Excluded, Opened, Refreshed
from nat_table.endpoint import Endpoint, Transport
from nat_table.refusal import NoExternalAddress, NoFreePort, QuotaExceeded, RateExceeded
from nat_table.table import NatTable
from tests.nat_table.model import memories_of_hosts
from tests.nat_table.phones import (
    CALL,
    EXTERNAL,
    FLOW,
    OTHER,
    PHONE,
    REMOTE,
    RTCP,
    RTP,
    SIP,
    bind,
    new_table,
)

NEW = "203.0.113.9"


def fill(table: NatTable, count: int, now: float, host: str = PHONE) -> None:
    for number in range(count):
        bind(table, Endpoint(host, 10000 + table.count(host) + number), now=now)


def test_a77_a_host_opens_so_many_bindings_a_second_and_no_more() -> None:
    table = new_table(max_new_per_second=3)
    fill(table, 1, 10.0)
    fill(table, 2, 10.5)
    table.take_changes()
    with pytest.raises(RateExceeded, match=PHONE) as refusal:
        bind(table, now=10.99)
    assert isinstance(refusal.value, QuotaExceeded)
    assert refusal.value.reason == "rate_exceeded"
    assert (len(table), table.take_changes()) == (3, [])
    bind(table, Endpoint(OTHER, 5060), now=10.99)
    bind(table, Endpoint(PHONE, 10000), CALL, now=10.99)  # what stands may always be used
    bind(table, now=11.0)  # the one of 10.0 is a second ago
    with pytest.raises(RateExceeded):
        bind(table, RTP, now=11.49)
    bind(table, RTP, now=11.5)


def test_a_pair_that_the_rate_refuses_leaves_nothing() -> None:
    table = new_table(max_new_per_second=3)
    fill(table, 2, 0.0)
    for rtcp in (RTCP, Endpoint(PHONE, 4777)):  # in one run, and one by one
        with pytest.raises(RateExceeded):
            table.bind_pair(RTP, rtcp, CALL, now=0.0, expires_at=9.0)
    assert len(table) == 2
    bind(table, RTP)  # the third: nothing of the pair was counted


def test_what_is_reverted_was_not_opened() -> None:
    table = new_table(max_new_per_second=2)
    fill(table, 1, 0.0)
    table.take_changes()
    for _ in range(3):
        bind(table, RTP)
        table.revert(table.take_changes())
    bind(table, RTP)
    with pytest.raises(RateExceeded):
        bind(table, RTCP)


def test_what_is_adopted_or_moved_was_not_opened_by_the_host() -> None:
    table = new_table(max_new_per_second=2)
    for port in range(4000, 4010):
        internal, external = Endpoint(PHONE, port), Endpoint(EXTERNAL, port)
        table.adopt(
            Binding(Transport.UDP, internal, external, Kind.RTP, 0.0), Pinhole(CALL, 9.0), 0.0
        )
    table.move(EXTERNAL, NEW, 0.0)
    table.take_changes()
    fill(table, 2, 0.0)


def test_many_hosts_that_come_and_go_are_forgotten() -> None:
    table = new_table()
    for number in range(2000):
        host = f"10.0.0.{number}"
        table.close(bind(table, Endpoint(host, 5060), now=number), FLOW, number)
        table.take_changes()
    assert len(memories_of_hosts(table)) < 1000  # those in quarantine: 120 s
    table.expire(3000.0)
    assert memories_of_hosts(table) == []


def test_a93_a_host_whose_address_is_full_is_refused_rather_than_split() -> None:
    table = new_table(EXTERNAL, "203.0.113.2", pool=(20000, 20001), preserve_ports=False)
    here = table.external_address(PHONE)
    assert bind(table).external.address == here
    with pytest.raises(NoFreePort, match=here):
        bind(table, Endpoint(PHONE, 5062))
    assert table.external_address(PHONE) == here
    other = next(f"10.0.0.{n}" for n in range(99) if table.external_address(f"10.0.0.{n}") != here)
    bind(table, Endpoint(other, 5060))


def test_a93_a_host_stays_where_its_adopted_bindings_are_until_the_last_has_gone() -> None:
    table = new_table(EXTERNAL, "203.0.113.2")
    usual = table.external_address(PHONE)
    there = ({EXTERNAL, "203.0.113.2"} - {usual}).pop()
    adopted = Binding(Transport.UDP, SIP, Endpoint(there, 5060), Kind.SIP, 0.0)
    table.adopt(adopted, Pinhole(FLOW, 300.0), 0.0)
    rtp = bind(table, RTP, CALL)
    assert rtp.external.address == table.external_address(PHONE) == there
    table.take_changes()
    table.close(adopted, FLOW, 1.0)
    assert table.external_address(PHONE) == there
    table.close(rtp, CALL, 1.0)
    assert table.external_address(PHONE) == usual
    table.revert(table.take_changes())
    assert table.external_address(PHONE) == there


def test_a_new_address_takes_the_place_of_an_old_one() -> None:
    table = new_table()
    sip = bind(table, expires_at=60.0, remotes=(REMOTE,))
    table.refresh(sip, CALL, 500.0, (REMOTE,))
    tcp = bind(table, transport=Transport.TCP)
    table.close(bind(table, RTP, CALL), CALL, 1.0)
    table.take_changes()

    moved = table.move(EXTERNAL, NEW, 7.0)

    flow, call = Pinhole(FLOW, 60.0, (REMOTE,)), Pinhole(CALL, 500.0, (REMOTE,))
    new = Binding(Transport.UDP, SIP, Endpoint(NEW, 5060), Kind.SIP, 7.0)
    new_tcp = Binding(Transport.TCP, SIP, Endpoint(NEW, 5060), Kind.SIP, 7.0)
    assert moved == {sip: new, tcp: new_tcp}
    assert table.take_changes() == [
        Excluded(sip, REMOTE.address),
        Closed(sip, (flow, call)),
        Opened(new, flow),
        Refreshed(new, None, call),
        Admitted(new, REMOTE.address),
        Closed(tcp, (Pinhole(FLOW, 300.0),)),
        Opened(new_tcp, Pinhole(FLOW, 300.0)),
    ]
    assert table.look_up_internal(Transport.UDP, SIP) == new
    assert table.look_up_external(Transport.UDP, new.external) == new
    assert table.look_up_external(Transport.UDP, sip.external) is None
    assert table.external_address(PHONE) == NEW
    assert table.pinholes(sip) == ()
    assert bind(table, Endpoint(OTHER, 4000), now=8.0).external == (NEW, 4000)  # no quarantine
    table.expire(500.0)
    assert table.look_up_internal(Transport.UDP, SIP) is None


def test_only_the_hosts_of_the_old_address_move() -> None:
    table = new_table(EXTERNAL, "203.0.113.2")
    hosts = [f"10.0.0.{number}" for number in range(40)]
    before = {host: bind(table, Endpoint(host, 5060)).external.address for host in hosts}
    table.move(EXTERNAL, NEW, 1.0)
    for host, address in before.items():
        now_at = NEW if address == EXTERNAL else address
        assert table.external_address(host) == now_at
        assert bind(table, Endpoint(host, 4000)).external.address == now_at


@pytest.mark.parametrize(("old", "new"), [(NEW, "203.0.113.8"), (EXTERNAL, "203.0.113.2")])
def test_a_senseless_move_is_refused(old: str, new: str) -> None:
    table = new_table(EXTERNAL, "203.0.113.2")
    bind(table)
    table.take_changes()
    with pytest.raises(ValueError, match="external address"):
        table.move(old, new, 1.0)
    assert table.take_changes() == []


def test_what_was_done_before_a_move_is_not_reverted_after_it() -> None:
    table = new_table()
    bind(table)
    before = table.take_changes()
    moved = table.move(EXTERNAL, NEW, 1.0)
    for changes in (before, table.take_changes()):
        with pytest.raises(ValueError, match="moved"):
            table.revert(changes)
    assert list(table.bindings()) == list(moved.values())


def test_a_move_to_another_family_is_refused() -> None:
    table = new_table(EXTERNAL)
    with pytest.raises(ValueError, match="family"):
        table.move(EXTERNAL, "2001:db8::1", 1.0)


def test_a_host_without_an_external_address_of_its_family_is_refused() -> None:
    table = new_table(EXTERNAL)
    assert table.external_address("fd00::20") is None
    with pytest.raises(NoExternalAddress, match="fd00::20") as refusal:
        bind(table, Endpoint("fd00::20", 5060))
    assert refusal.value.reason == "no_external_address"
    assert table.take_changes() == []
    bind(table)
