"""What an earlier run left: the store says whose it is, the kernel what there is."""

from __future__ import annotations

import logging
import random

import msgspec
import pytest

from alg.daemon.connections import CONNECTION
from alg.daemon.ledger import MAPPING
from alg.daemon.restart import (
    GRACE_TIMEOUT,
    ORPHAN,
    ORPHAN_TIMEOUT,
    addresses,
    stored_mappings,
    take_over,
)
from alg.dialogs.linger import FLOW
from nat_table.behavior import Behavior
from nat_table.binding import Binding, Kind, Owner, Pinhole
from nat_table.endpoint import Endpoint, Transport
from nat_table.snapshot import Row
from nat_table.table import NatTable

NOW, WAIT = 1000.0, 3600.0
CALL, REGISTRATION = Owner("call", "a", "1"), Owner("registration", "r")


def binding(port: int, kind: Kind = Kind.RTP, external: str = "203.0.113.1") -> Binding:
    ends = Endpoint("10.0.0.20", port), Endpoint(external, port)
    return Binding(Transport.UDP, *ends, kind, 0.0)


def row(each: Binding, owner: Owner = CALL, until: float = NOW + 500) -> Row:
    return each, (Pinhole(owner, until),)


SIP, RTP, ASKED = binding(5060, Kind.SIP), binding(4000), binding(8080, Kind.ANY)


@pytest.fixture
def table() -> NatTable:
    return NatTable(["203.0.113.1"], Behavior(), random.Random(1))


def test_a33_what_both_know_keeps_its_owners(table: NatTable) -> None:
    stored = [row(SIP, REGISTRATION), row(RTP)]
    assert take_over(table, stored, [SIP, RTP], WAIT, NOW) == ([], [])
    assert [table.pinholes(each) for each in (SIP, RTP)] == [stored[0][1], stored[1][1]]
    assert table.take_changes() == []


def test_what_only_the_kernel_knows_has_time_to_find_an_owner(table: NatTable) -> None:
    assert take_over(table, [], [SIP, RTP, ASKED], WAIT, NOW) == ([], [SIP, RTP, ASKED])
    assert table.pinholes(SIP) == (Pinhole(FLOW, NOW + WAIT),)
    for other in (RTP, ASKED):
        assert table.pinholes(other) == (Pinhole(ORPHAN, NOW + ORPHAN_TIMEOUT),)


def test_what_only_the_store_knows_was_closed_after_its_last_write(table: NatTable) -> None:
    assert take_over(table, [row(SIP), row(RTP)], [SIP], WAIT, NOW) == ([RTP], [])
    assert list(table.bindings()) == [SIP]


def test_a75_after_a_flush_the_store_is_believed_alone(table: NatTable) -> None:
    assert take_over(table, [row(SIP), row(RTP)], None, WAIT, NOW) == ([], [])
    assert set(table.bindings()) == {SIP, RTP}


def test_a_call_that_was_over_meanwhile_has_a_minute_to_show_that_it_is_not(
    table: NatTable,
) -> None:
    take_over(table, [row(RTP, until=NOW - 5), row(SIP, REGISTRATION, NOW - 5)], None, WAIT, NOW)
    assert table.pinholes(RTP) == (Pinhole(CALL, NOW + GRACE_TIMEOUT),)
    assert table.pinholes(SIP) == (Pinhole(REGISTRATION, NOW - 5),)


def test_the_kernel_is_right_where_they_disagree_about_a_port(table: NatTable) -> None:
    moved = Binding(Transport.UDP, RTP.internal, Endpoint("203.0.113.1", 20000), Kind.RTP, 0.0)
    assert take_over(table, [row(RTP)], [moved], WAIT, NOW) == ([RTP], [moved])
    assert list(table.bindings()) == [moved]


def test_what_is_not_the_tables_to_give_is_dropped_with_a_warning(
    table: NatTable, caplog: pytest.LogCaptureFixture
) -> None:
    elsewhere = binding(4000, external="203.0.113.77")
    with caplog.at_level(logging.WARNING):
        take_over(table, [row(elsewhere), row(SIP)], [elsewhere, SIP], WAIT, NOW)
    assert list(table.bindings()) == [SIP]
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_a33_the_table_begins_with_the_address_that_it_had() -> None:
    old, new = ("203.0.113.1",), ("203.0.113.2",)
    assert addresses([row(SIP), row(RTP)], new) == old
    assert addresses([], new) == new
    assert addresses([row(SIP)], ("203.0.113.1", "203.0.113.2")) == ("203.0.113.1", "203.0.113.2")
    on_two = [row(SIP), row(binding(4000, external="203.0.113.9"))]
    assert addresses(on_two, new) == new


def test_a_row_that_cannot_be_read_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    rows = {
        (MAPPING, "bad"): b"\xc1",
        (MAPPING, "udp 10.0.0.20:4000"): msgspec.msgpack.encode(row(RTP)),
        ("call", "a"): b"not a mapping",
    }
    with caplog.at_level(logging.WARNING):
        assert stored_mappings(rows) == [row(RTP)]
    assert "bad" in caplog.text and len(caplog.records) == 1


def test_what_only_a_connection_kept_ends_with_the_process(table: NatTable) -> None:
    connection = Owner(CONNECTION, tag="7")
    registered = SIP, (Pinhole(connection, NOW + 500), Pinhole(REGISTRATION, NOW + 500))
    stored = [row(RTP, connection), registered]
    assert take_over(table, stored, [SIP, RTP], WAIT, NOW) == ([RTP], [])
    assert table.pinholes(SIP) == (Pinhole(REGISTRATION, NOW + 500),)
    assert list(table.bindings()) == [SIP]
