"""Mappings on request: rows of ports, permits, and a binding that turns into one for signalling."""

from dataclasses import replace

import pytest

from nat_table.binding import ANYONE, Binding, Kind, Permit, Pinhole
from nat_table.changes import (
    Admitted,
    Closed,
    Excluded,
    Forbidden,
    Opened,
    Permitted,
    Refreshed,
    Turned,
)
from nat_table.endpoint import Endpoint, Transport
from nat_table.lease import Source, lease_owner
from nat_table.refusal import QuotaExceeded
from nat_table.table import NatTable
from tests.nat_table.phones import EXTERNAL, FLOW, OTHER, PHONE, REMOTE, SIP, bind, new_table

LEASE = lease_owner(Source.PCP, "nonce")
NETWORK = Permit("198.51.100.0/24")
MEDIA = Kind.RTP, Kind.RTCP


def row(first: int, count: int) -> list[Endpoint]:
    return [Endpoint(PHONE, first + offset) for offset in range(count)]


def ask(table: NatTable, internal: Endpoint = SIP, *permits: Permit) -> Binding:
    return table.bind(
        *(Transport.UDP, internal, Kind.ANY, LEASE),
        now=0.0,
        expires_at=300.0,
        remotes=(REMOTE,),
        permits=permits,
    )


def ask_row(
    table: NatTable,
    internal: list[Endpoint],
    *kinds: Kind,
    wanted: int | None = None,
    transport: Transport = Transport.UDP,
) -> list[int]:
    """Returns the external ports."""
    made = table.bind_row(
        transport, internal, kinds or (Kind.ANY,), LEASE, now=0.0, expires_at=300.0, wanted=wanted
    )
    assert [binding.internal for binding in made] == internal
    return [binding.external.port for binding in made]


@pytest.mark.parametrize("transport", Transport)
def test_a_row_of_any_length_follows_port_by_port(table: NatTable, transport: Transport) -> None:
    assert ask_row(table, row(6001, 3), transport=transport) == [6001, 6002, 6003]
    others = [Endpoint(OTHER, 6001 + offset) for offset in range(3)]
    first, *following = ask_row(table, others, transport=transport)
    assert first % 2 and 16384 <= first <= 24575
    assert following == [first + 1, first + 2]


def test_kinds_come_again_and_again(table: NatTable) -> None:
    table.bind_row(Transport.UDP, row(4000, 4), MEDIA, LEASE, now=0.0, expires_at=9.0)
    assert [binding.kind for binding in table.bindings()] == [*MEDIA, *MEDIA]


def test_a_row_has_the_ports_that_are_wanted_if_all_are_free(table: NatTable) -> None:
    assert ask_row(table, row(6000, 2), wanted=7000) == [7000, 7001]
    others = [Endpoint(OTHER, 6000), Endpoint(OTHER, 6001)]
    assert ask_row(table, others, wanted=7001) != [7001, 7002]


def test_media_stays_even_and_odd_whatever_is_wanted(table: NatTable) -> None:
    assert ask_row(table, row(4000, 2), *MEDIA, wanted=7001) == [4000, 4001]
    for port, kind in ((6000, Kind.ANY), (5060, Kind.SIP)):
        assert ask_row(table, row(port, 2), kind, wanted=port + 2001) == [port + 2001, port + 2002]


def test_what_stands_keeps_its_port_and_the_others_get_theirs_beside_it(table: NatTable) -> None:
    standing = ask(table, Endpoint(PHONE, 6001))
    assert standing.external.port == 6001
    assert ask_row(table, row(6000, 3), wanted=7000) == [7000, 6001, 7002]


def test_a_refused_row_leaves_nothing_behind() -> None:
    table = new_table(max_mappings_per_host=2)
    ask(table, Endpoint(PHONE, 6001))
    table.take_changes()
    with pytest.raises(QuotaExceeded):
        ask_row(table, row(6000, 3))
    assert table.count(PHONE) == 1 and table.take_changes() == []
    with pytest.raises(QuotaExceeded):
        ask_row(table, row(8000, 3))
    assert table.count(PHONE) == 1 and table.take_changes() == []


def test_a_permit_counts_for_all_pinholes_that_have_it(table: NatTable) -> None:
    binding = ask(table, SIP, ANYONE, NETWORK)
    table.refresh(binding, FLOW, 300.0, permits=(NETWORK,))
    table.refresh(binding, LEASE, 300.0, permits=())
    table.close(binding, FLOW, 1.0)
    assert [
        change for change in table.take_changes() if isinstance(change, Permitted | Forbidden)
    ] == [
        Permitted(binding, ANYONE),
        Permitted(binding, NETWORK),
        Forbidden(binding, ANYONE),
        Forbidden(binding, NETWORK),
    ]


def test_permits_stay_unless_others_or_none_are_given(table: NatTable) -> None:
    binding = ask(table, SIP, NETWORK)
    ask(table)
    table.refresh(binding, LEASE, 400.0)
    assert table.pinholes(binding) == (Pinhole(LEASE, 400.0, (REMOTE,), (NETWORK,)),)
    ask(table, SIP, ANYONE)
    assert table.pinholes(binding) == (Pinhole(LEASE, 400.0, (REMOTE,), (ANYONE,)),)


def test_a_binding_is_leased_while_a_lease_stands(table: NatTable) -> None:
    binding = bind(table)
    assert not table.is_leased(binding)
    ask(table)
    table.refresh(binding, LEASE, 400.0)
    assert table.is_leased(binding)
    table.expire(300.0)
    assert table.is_leased(binding)
    table.close(binding, LEASE, 301.0)
    assert not table.is_leased(binding)


def test_what_was_asked_for_turns_into_signalling_with_all_it_has(table: NatTable) -> None:
    asked = ask(table, SIP, NETWORK)
    table.take_changes()
    sip = bind(table, owner=FLOW)
    assert sip == replace(asked, kind=Kind.SIP)
    assert table.look_up_external(Transport.UDP, sip.external) is sip
    assert table.take_changes() == [
        Excluded(asked, REMOTE.address),
        Forbidden(asked, NETWORK),
        Turned(sip, asked),
        Admitted(sip, REMOTE.address),
        Permitted(sip, NETWORK),
        Refreshed(sip, None, Pinhole(FLOW, 300.0)),
    ]
    assert table.pinholes(asked) == table.pinholes(sip)
    assert table.is_leased(sip)
    assert ask(table).kind is Kind.SIP


def test_media_does_not_turn_into_signalling(table: NatTable) -> None:
    (rtp, _) = table.bind_row(Transport.UDP, row(4000, 2), MEDIA, LEASE, now=0.0, expires_at=9.0)
    assert bind(table, rtp.internal).kind is Kind.RTP


def test_turning_is_reverted_and_quarantine_stays_as_it_was(table: NatTable) -> None:
    former = ask(table)
    table.close(former, LEASE, 0.0)
    asked = ask(table, SIP, NETWORK)
    table.take_changes()
    bind(table, owner=FLOW)
    table.revert(table.take_changes())
    assert table.look_up_internal(Transport.UDP, SIP) == asked
    assert table.pinholes(asked) == (Pinhole(LEASE, 300.0, (REMOTE,), (NETWORK,)),)
    table.close(asked, LEASE, 1.0)
    table.expire(119.0)
    external = Endpoint(EXTERNAL, 5060)
    stranger = Binding(Transport.UDP, Endpoint(OTHER, 5060), external, Kind.ANY, 0.0)
    with pytest.raises(ValueError, match="not free"):
        table.adopt(stranger, Pinhole(LEASE, 300.0), 119.0)


def test_permits_move_with_the_address(table: NatTable) -> None:
    asked = ask(table, SIP, NETWORK)
    table.take_changes()
    moved = table.move(EXTERNAL, "203.0.113.9", 1.0)[asked]
    pinhole = Pinhole(LEASE, 300.0, (REMOTE,), (NETWORK,))
    assert table.take_changes()[1:] == [
        Forbidden(asked, NETWORK),
        *replaced(asked, moved, pinhole),
        Admitted(moved, REMOTE.address),
        Permitted(moved, NETWORK),
    ]


def replaced(before: Binding, after: Binding, pinhole: Pinhole) -> list[object]:
    return [Closed(before, (pinhole,)), Opened(after, pinhole)]
