"""Media pairs: RTP and RTCP are bound together or not at all, and stay neighbours."""

import pytest

from nat_table.binding import Kind, Pinhole
from nat_table.endpoint import Endpoint
from nat_table.refusal import NoFreePort, QuotaExceeded
from nat_table.table import NatTable
from tests.nat_table.phones import (
    CALL,
    OTHER,
    PHONE,
    REMOTE,
    RTCP,
    RTP,
    bind,
    new_table,
)


def test_a_pair_is_preserved(table: NatTable) -> None:
    pair = table.bind_pair(RTP, RTCP, CALL, now=0.0, expires_at=9.0)
    assert (pair.rtp.external.port, pair.rtcp.external.port) == (4000, 4001)
    assert (pair.rtp.kind, pair.rtcp.kind) == (Kind.RTP, Kind.RTCP)
    assert table.pinholes(pair.rtp) == (Pinhole(CALL, 9.0),)
    assert table.pinholes(pair.rtcp) == (Pinhole(CALL, 9.0),)


def test_a37_rtcp_elsewhere_is_bound_by_itself(table: NatTable) -> None:
    pair = table.bind_pair(RTP, Endpoint(PHONE, 4777), CALL, now=0.0, expires_at=9.0)
    assert (pair.rtp.external.port, pair.rtcp.external.port) == (4000, 4777)


def test_a38_rtcp_on_the_rtp_port_is_the_same_binding(table: NatTable) -> None:
    pair = table.bind_pair(RTP, RTP, CALL, now=0.0, expires_at=9.0)
    assert pair.rtp is pair.rtcp
    assert len(table) == 1


def test_a56_the_same_ports_twice_are_one_pair(table: NatTable) -> None:
    first = table.bind_pair(RTP, RTCP, CALL, now=0.0, expires_at=9.0)
    table.take_changes()
    assert table.bind_pair(RTP, RTCP, CALL, now=0.0, expires_at=9.0) == first
    assert table.take_changes() == []


def test_a_standing_half_is_reused_rather_than_moved(table: NatTable) -> None:
    bind(table, Endpoint(OTHER, 4000))
    rtp = bind(table, RTP)
    pair = table.bind_pair(RTP, RTCP, CALL, now=0.0, expires_at=9.0)
    assert pair.rtp is rtp
    assert pair.rtcp.external.port == 4001


@pytest.mark.parametrize("rtcp_port", [4001, 4003])
def test_half_a_pair_is_never_left_behind(rtcp_port: int) -> None:
    table = new_table(max_mappings_per_host=1)
    with pytest.raises(QuotaExceeded):
        table.bind_pair(RTP, Endpoint(PHONE, rtcp_port), CALL, now=0.0, expires_at=9.0)
    assert len(table) == table.count(PHONE) == 0
    assert table.take_changes() == []
    assert table.next_deadline() is None
    assert bind(table, Endpoint(OTHER, 4000)).external.port == 4000  # not even in quarantine


def test_a_refused_half_leaves_the_standing_half_as_it_was() -> None:
    table = new_table(max_mappings_per_host=1)
    rtp = bind(table, RTP, CALL, expires_at=9.0, remotes=(REMOTE,))
    table.take_changes()
    with pytest.raises(QuotaExceeded):
        table.bind_pair(RTP, RTCP, CALL, now=0.0, expires_at=99.0)
    assert table.pinholes(rtp) == (Pinhole(CALL, 9.0, (REMOTE,)),)
    assert table.next_deadline() == 9.0
    assert table.take_changes() == []


def test_a_pair_is_refused_where_only_single_ports_are_left() -> None:
    table = new_table(preserve_ports=False, pool=(20000, 20003), denied_ports=frozenset({20001}))
    bind(table, Endpoint(OTHER, 4002))
    bind(table, Endpoint(OTHER, 4000))
    with pytest.raises(NoFreePort):
        table.bind_pair(RTP, RTCP, CALL, now=0.0, expires_at=9.0)
