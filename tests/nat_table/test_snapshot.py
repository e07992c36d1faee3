"""The table as plain data, there and back, and as the command line shows it."""

import math
import random
from dataclasses import replace

import pytest

from nat_table.behavior import Behavior
from nat_table.binding import ANYONE, Binding, Kind, Owner, Permit, Pinhole
from nat_table.changes import Closed, Excluded, Forbidden, Refreshed
from nat_table.endpoint import Endpoint, Transport
from nat_table.lease import NEVER, Source, lease_owner
from nat_table.snapshot import Row, adopt_row, mapping_row, restore, snapshot
from nat_table.table import NatTable

CALL, REGISTRATION, FLOW = Owner("call", "a@10.0.0.20", "1"), Owner("registration"), Owner("flow")
REMOTE, REGISTRAR = Endpoint("203.0.113.10", 30000), Endpoint("203.0.113.10", 5060)
RTP = Binding(
    Transport.UDP, Endpoint("10.0.0.20", 4000), Endpoint("203.0.113.1", 4000), Kind.RTP, 1.0
)


def new_table() -> NatTable:
    return NatTable(["203.0.113.1", "2001:db8::1"], Behavior(), random.Random(1))


def rows() -> list[Row]:
    table = new_table()
    table.adopt(RTP, Pinhole(CALL, 300.5, (REMOTE, REGISTRAR)), 0.0)
    table.adopt(RTP, Pinhole(FLOW, 60.0), 0.0)
    table.bind(
        Transport.TCP, Endpoint("fd00::20", 5060), Kind.SIP, REGISTRATION, now=2.0, expires_at=3600
    )
    return snapshot(table)


def test_a33_a_table_outlives_its_process_through_a_snapshot() -> None:
    before = rows()
    table = new_table()
    restore(table, before, 10.0)
    assert snapshot(table) == before
    assert table.take_changes() == []
    assert table.look_up_external(Transport.UDP, RTP.external) == RTP
    assert table.next_deadline() == 60.0
    assert table.count("10.0.0.20") == 1


def test_a_lease_comes_back_with_its_permits() -> None:
    owner, permits = lease_owner(Source.UPNP, "a"), (Permit("203.0.113.0/24", 9), ANYONE)
    asked = replace(RTP, kind=Kind.ANY)
    row = (asked, (Pinhole(owner, 300.5, (REMOTE,), permits), Pinhole(FLOW, 60.0)))
    table = new_table()
    restore(table, [row], 10.0)
    assert snapshot(table) == [row]
    assert table.is_leased(asked)
    shown = mapping_row(*row, 10.0)
    assert (shown["kind"], shown["state"], shown["source"]) == ("any", "leased", "upnp")
    table.close(asked, owner, 11.0)
    assert [change for change in table.take_changes() if isinstance(change, Forbidden)] == [
        Forbidden(asked, permit) for permit in permits
    ]


def test_what_is_overdue_is_restored_and_then_expires_with_a_change() -> None:
    table = new_table()
    restore(table, rows(), 1000.0)
    table.expire(1000.0)
    assert len(table) == 1
    expired, excluded, closed = table.take_changes()
    assert expired == Refreshed(RTP, Pinhole(FLOW, 60.0), None)
    assert excluded == Excluded(RTP, REMOTE.address)
    assert isinstance(closed, Closed)


@pytest.mark.parametrize(
    "row",
    [
        (RTP, ()),
        (RTP, (Pinhole(CALL, math.nan),)),
        (RTP, (Pinhole(CALL, 1.0), Pinhole(FLOW, math.inf))),
        (replace(RTP, external=Endpoint("203.0.113.99", 4000)), (Pinhole(CALL, 1.0),)),
        (replace(RTP, external=Endpoint("203.0.113.1", 80)), (Pinhole(CALL, 1.0),)),
    ],
)
def test_a_bad_row_is_refused(row: Row) -> None:
    table = new_table()
    with pytest.raises(ValueError, match=r"pinhole|not free"):
        adopt_row(table, row, 0.0)
    assert len(table) == 0


def test_a_row_that_collides_is_refused() -> None:
    (binding, pinholes), *_ = rows()
    other = replace(binding, internal=Endpoint("10.0.0.21", 4000)), pinholes
    with pytest.raises(ValueError, match=r"203\.0\.113\.1:4000"):
        restore(new_table(), [(binding, pinholes), other], 0.0)


def test_the_fields_of_a_mapping_row() -> None:
    assert mapping_row(RTP, [Pinhole(CALL, 300.46, (REMOTE,))], 0.0) == {
        "transport": "udp",
        "internal": "10.0.0.20:4000",
        "external": "203.0.113.1:4000",
        "kind": "rtp",
        "remote": "203.0.113.10:30000",
        "call_id": "a@10.0.0.20",
        "state": "call",
        "source": "sip",
        "expires_in": 300.5,
    }


@pytest.mark.parametrize(
    ("owners", "state", "call_id"),
    [
        ([FLOW], "open", None),
        ([FLOW, REGISTRATION], "registered", None),
        ([REGISTRATION, FLOW], "registered", None),
        ([FLOW, REGISTRATION, CALL], "call", "a@10.0.0.20"),
        ([CALL, REGISTRATION, FLOW], "call", "a@10.0.0.20"),
    ],
)
def test_the_strongest_owner_speaks(owners: list[Owner], state: str, call_id: str | None) -> None:
    row = mapping_row(RTP, [Pinhole(owner, 9.0) for owner in owners], 0.0)
    assert (row["state"], row["call_id"]) == (state, call_id)


def test_of_two_calls_the_one_that_stays_longest_speaks() -> None:
    later = Owner("call", "b@10.0.0.20", "2")
    row = mapping_row(RTP, [Pinhole(CALL, 5.0, (REMOTE,)), Pinhole(later, 9.0, (REGISTRAR,))], 0.0)
    assert (row["call_id"], row["remote"]) == ("b@10.0.0.20", "203.0.113.10:5060")


def test_the_remote_is_the_strongest_that_is_known() -> None:
    pinholes = [Pinhole(FLOW, 9.0, (REGISTRAR,)), Pinhole(REGISTRATION, 5.0)]
    assert mapping_row(RTP, pinholes, 0.0)["remote"] == "203.0.113.10:5060"
    assert mapping_row(RTP, [Pinhole(CALL, 9.0)], 0.0)["remote"] is None


def test_expires_in_is_when_the_last_pinhole_ends_and_never_negative() -> None:
    pinholes = [Pinhole(CALL, 100.0), Pinhole(FLOW, 300.0)]
    assert mapping_row(RTP, pinholes, 100.04)["expires_in"] == 200.0
    assert mapping_row(RTP, pinholes, 301.0)["expires_in"] == 0.0


def test_a_mapping_is_of_the_source_that_asked_and_of_sip_where_none_did() -> None:
    asked = Pinhole(lease_owner(Source.PCP, "nonce"), 9.0)
    assert mapping_row(RTP, [asked], 0.0)["state"] == "leased"
    for pinholes in ([asked], [Pinhole(CALL, 9.0), asked]):
        assert mapping_row(RTP, pinholes, 0.0)["source"] == "pcp"
    assert mapping_row(RTP, [Pinhole(CALL, 9.0), asked], 0.0)["state"] == "call"
    assert mapping_row(RTP, [Pinhole(CALL, 9.0)], 0.0)["source"] == "sip"


def test_a_mapping_without_an_end_says_so() -> None:
    static = Pinhole(lease_owner(Source.STATIC), NEVER)
    assert mapping_row(RTP, [Pinhole(CALL, 9.0), static], 1e6)["expires_in"] is None
