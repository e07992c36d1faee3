"""What the table promises of mappings: who gets which, for how long, and how many."""

import random

import pytest

from nat_table.behavior import Behavior
from nat_table.binding import Binding, Kind, Pinhole
from nat_table.endpoint import Endpoint, Transport
from nat_table.refusal import BindRefused, NoFreePort, QuotaExceeded
from nat_table.table import NatTable
from tests.nat_table.phones import (
    CALL,
    EXTERNAL,
    FLOW,
    OTHER,
    OTHER_REMOTE,
    PHONE,
    REGISTRATION,
    REMOTE,
    RTCP,
    RTP,
    SECOND_CALL,
    SIP,
    bind,
    new_table,
)


def test_a_binding_is_found_from_both_sides(table: NatTable) -> None:
    binding = bind(table)
    assert binding == Binding(Transport.UDP, SIP, Endpoint(EXTERNAL, 5060), Kind.SIP, 0.0)
    assert table.look_up_internal(Transport.UDP, SIP) is binding
    assert table.look_up_external(Transport.UDP, binding.external) is binding
    assert list(table.bindings()) == [binding]
    assert len(table) == table.count(PHONE) == 1


def test_unknown_endpoints_have_no_binding(table: NatTable) -> None:
    binding = bind(table)
    assert table.look_up_internal(Transport.UDP, RTP) is None
    assert table.look_up_external(Transport.UDP, SIP) is None
    assert table.look_up_internal(Transport.TCP, SIP) is None
    assert table.look_up_external(Transport.TCP, binding.external) is None


def test_a48_the_mapping_is_the_same_for_every_remote(table: NatTable) -> None:
    assert bind(table, owner=CALL, remotes=(REMOTE,)) is bind(
        table, owner=SECOND_CALL, remotes=(OTHER_REMOTE,)
    )


def test_a39_the_binding_that_a_probe_made_is_reused_for_media(table: NatTable) -> None:
    probed = bind(table, RTP)
    pair = table.bind_pair(RTP, RTCP, CALL, now=1.0, expires_at=301.0)
    assert pair.rtp is probed


def test_a23_two_phones_same_port_get_two_external_ports(table: NatTable) -> None:
    first, second = bind(table), bind(table, Endpoint(OTHER, 5060))
    assert first.external.port == 5060
    assert second.external.port != 5060
    assert second.external.port % 2 == 0


def test_a23_two_phones_same_rtp_ports_get_two_pairs(table: NatTable) -> None:
    table.bind_pair(RTP, RTCP, CALL, now=0.0, expires_at=9.0)
    rtp, rtcp = table.bind_pair(
        Endpoint(OTHER, 4000), Endpoint(OTHER, 4001), SECOND_CALL, now=0.0, expires_at=9.0
    )
    assert rtp.external.port not in (4000, 4001)
    assert rtp.external.port % 2 == 0
    assert rtcp.external.port == rtp.external.port + 1


def test_a24_the_port_is_preserved_only_for_the_first(table: NatTable) -> None:
    phones = [Endpoint(f"10.0.0.{host}", 5060) for host in range(20, 30)]
    ports = [bind(table, phone).external.port for phone in phones]
    assert ports[0] == 5060
    assert len(set(ports)) == 10
    assert all(16384 <= port <= 24575 for port in ports[1:])


def test_transports_share_no_ports_and_no_bindings(table: NatTable) -> None:
    udp, tcp = bind(table), bind(table, transport=Transport.TCP)
    assert udp.external == tcp.external
    assert table.look_up_external(Transport.TCP, tcp.external) is tcp
    table.close(tcp, FLOW, 1.0)
    assert list(table.bindings()) == [udp]


def test_a93_all_bindings_of_a_host_are_on_one_external_address() -> None:
    table = new_table("203.0.113.1", "203.0.113.2")
    hosts = [f"10.0.0.{host}" for host in range(1, 101)]
    for host in hosts:
        addresses = {
            bind(table, Endpoint(host, port)).external.address for port in (5060, 4000, 4001)
        }
        assert addresses == {table.external_address(host)}
    shares = [table.external_address(host) for host in hosts]
    assert 30 < shares.count("203.0.113.1") < 70


def test_a_table_without_an_external_address_is_refused() -> None:
    with pytest.raises(ValueError, match="external address"):
        NatTable([], Behavior(), random.Random(1))


def test_bindings_are_those_that_stood_when_asked(table: NatTable) -> None:
    binding = bind(table)
    listing = table.bindings()
    bind(table, RTP)
    assert list(listing) == [binding]


def test_a62_one_of_two_calls_on_a_binding_ends_and_the_other_stays(table: NatTable) -> None:
    binding = bind(table, RTP, CALL)
    bind(table, RTP, SECOND_CALL)
    table.close(binding, CALL, 10.0)
    assert table.look_up_internal(Transport.UDP, RTP) is binding
    assert [pinhole.owner for pinhole in table.pinholes(binding)] == [SECOND_CALL]
    table.close(binding, SECOND_CALL, 10.0)
    assert table.look_up_internal(Transport.UDP, RTP) is None
    assert table.look_up_external(Transport.UDP, binding.external) is None
    assert table.pinholes(binding) == ()


def test_binding_again_never_shortens(table: NatTable) -> None:
    binding = bind(table, expires_at=300.0)
    bind(table, expires_at=200.0)
    assert table.pinholes(binding) == (Pinhole(FLOW, 300.0),)
    bind(table, expires_at=400.0)
    assert table.pinholes(binding) == (Pinhole(FLOW, 400.0),)


def test_binding_again_keeps_the_remotes_unless_others_are_given(table: NatTable) -> None:
    binding = bind(table, remotes=(REMOTE,))
    bind(table, expires_at=400.0)
    assert table.pinholes(binding) == (Pinhole(FLOW, 400.0, (REMOTE,)),)
    bind(table, expires_at=100.0, remotes=(OTHER_REMOTE,))
    assert table.pinholes(binding) == (Pinhole(FLOW, 400.0, (OTHER_REMOTE,)),)


@pytest.mark.parametrize("deadline", [100.0, 500.0])
def test_refreshing_moves_the_deadline_exactly(table: NatTable, deadline: float) -> None:
    binding = bind(table, remotes=(REMOTE,))
    table.refresh(binding, FLOW, deadline)
    assert table.pinholes(binding) == (Pinhole(FLOW, deadline, (REMOTE,)),)
    assert table.next_deadline() == deadline
    table.expire(deadline - 0.1)
    assert len(table) == 1
    table.expire(deadline)
    assert len(table) == 0


def test_refreshing_adds_a_pinhole_and_sets_the_remotes(table: NatTable) -> None:
    binding = bind(table, remotes=(REMOTE,))
    table.refresh(binding, REGISTRATION, 3600.0)
    table.refresh(binding, FLOW, 300.0, remotes=())
    assert table.pinholes(binding) == (Pinhole(FLOW, 300.0), Pinhole(REGISTRATION, 3600.0))


def test_a29_the_binding_lives_as_long_as_its_longest_pinhole(table: NatTable) -> None:
    binding = bind(table)
    table.refresh(binding, REGISTRATION, 3600.0)
    table.expire(3599.0)
    assert list(table.bindings()) == [binding]
    table.expire(3600.0)
    assert list(table.bindings()) == []


def test_what_is_gone_is_left_alone(table: NatTable) -> None:
    gone = bind(table)
    table.close(gone, CALL, 1.0)
    assert len(table) == 1
    table.close(gone, FLOW, 1.0)
    bind(table, Endpoint(OTHER, 5060), now=500.0)
    table.take_changes()
    table.close(gone, FLOW, 500.0)
    table.refresh(gone, FLOW, 900.0)
    assert table.take_changes() == []


def test_an_old_binding_says_nothing_about_a_later_one_of_the_same_phone() -> None:
    table = new_table(quarantine_timeout=0.0)
    old = bind(table)
    table.close(old, FLOW, 1.0)
    bind(table, Endpoint(OTHER, 5060), now=1.0)
    new = bind(table, now=1.0)
    assert new.external != old.external
    table.close(old, FLOW, 2.0)
    assert table.pinholes(old) == ()
    assert table.look_up_internal(Transport.UDP, SIP) is new


def test_a78_a_closed_port_goes_to_nobody_else_for_120_seconds(table: NatTable) -> None:
    table.close(bind(table), FLOW, 10.0)
    assert bind(table, Endpoint(OTHER, 5060), now=129.9).external.port != 5060
    assert bind(table, Endpoint("10.0.0.22", 5060), now=130.0).external.port == 5060


def test_a78_the_old_owner_has_its_port_back_at_once(table: NatTable) -> None:
    bind(table)
    other = bind(table, Endpoint(OTHER, 5060))
    table.close(other, FLOW, 10.0)
    assert bind(table, Endpoint(OTHER, 5060), now=10.0).external == other.external


def test_quarantine_alone_may_exhaust_the_pool() -> None:
    table = new_table(preserve_ports=False, pool=(20000, 20001))
    table.close(bind(table), FLOW, 0.0)
    with pytest.raises(NoFreePort) as refusal:
        bind(table, Endpoint(OTHER, 5060), now=119.0)
    assert refusal.value.reason == "no_free_port"
    assert bind(table, Endpoint(OTHER, 5060), now=120.0).external.port == 20000


def test_a77_quotas_hold_for_a_host_and_for_all() -> None:
    table = new_table(max_mappings=3, max_mappings_per_host=2)
    bind(table, Endpoint(PHONE, 5060))
    bind(table, Endpoint(PHONE, 5062))
    with pytest.raises(QuotaExceeded, match=PHONE):
        bind(table, Endpoint(PHONE, 5064))
    bind(table, Endpoint(OTHER, 5060))
    with pytest.raises(BindRefused, match="table") as refusal:
        bind(table, Endpoint(OTHER, 5062))
    assert refusal.value.reason == "quota_exceeded"
    bind(table, Endpoint(PHONE, 5060), CALL)  # what stands may always be used
    table.close(next(table.bindings()), CALL, 1.0)
    table.close(next(table.bindings()), FLOW, 1.0)
    bind(table, Endpoint(PHONE, 5064), now=1.0)
