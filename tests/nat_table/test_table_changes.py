"""What the table tells the kernel, takes back when it refuses, and adopts from it."""

import pytest

from nat_table.binding import Binding, Kind, Pinhole
from nat_table.changes import Admitted, Closed, Excluded, Opened, Refreshed
from nat_table.endpoint import Endpoint, Transport
from nat_table.table import NatTable
from tests.nat_table.phones import CALL, EXTERNAL, FLOW, OTHER, REMOTE, RTP, SECOND_CALL, SIP, bind


def test_changes_say_what_was_done_in_order(table: NatTable) -> None:
    binding = bind(table, owner=CALL)
    bind(table, owner=CALL, expires_at=400.0)
    bind(table, owner=SECOND_CALL)
    table.close(binding, CALL, 1.0)
    table.expire(300.0)
    first, moved = Pinhole(CALL, 300.0), Pinhole(CALL, 400.0)
    second = Pinhole(SECOND_CALL, 300.0)
    assert table.take_changes() == [
        Opened(binding, first),
        Refreshed(binding, first, moved),
        Refreshed(binding, None, second),
        Refreshed(binding, moved, None),
        Closed(binding, (second,)),
    ]
    assert table.take_changes() == []


def test_saying_the_same_again_changes_nothing(table: NatTable) -> None:
    binding = bind(table, remotes=(REMOTE,))
    table.take_changes()
    bind(table, remotes=(REMOTE,))
    bind(table, expires_at=100.0)
    table.refresh(binding, FLOW, 300.0)
    table.refresh(binding, FLOW, 300.0, remotes=(REMOTE,))
    assert table.take_changes() == []


def test_reverting_puts_everything_back(table: NatTable) -> None:
    stays = bind(table, owner=CALL)
    table.refresh(stays, FLOW, 500.0)
    closes = bind(table, RTP, owner=CALL, expires_at=200.0)
    table.take_changes()
    before = [(binding, table.pinholes(binding)) for binding in table.bindings()]

    table.refresh(stays, CALL, 50.0)
    table.close(stays, FLOW, 1.0)
    table.close(closes, CALL, 1.0)
    opened = bind(table, Endpoint(OTHER, 4000), CALL, now=1.0)
    table.revert(table.take_changes())

    after = [(binding, table.pinholes(binding)) for binding in table.bindings()]
    assert [binding for binding, _ in after] == [binding for binding, _ in before]
    assert [set(pinholes) for _, pinholes in after] == [set(pinholes) for _, pinholes in before]
    assert table.take_changes() == []
    assert table.look_up_external(Transport.UDP, opened.external) is None
    assert table.next_deadline() == 200.0
    assert table.count(OTHER) == 0
    table.expire(199.0)
    assert bind(table, Endpoint(OTHER, 4000), now=199.0).external.port not in (4000, 5060)
    assert table.look_up_external(Transport.UDP, closes.external) == closes


def test_what_stands_in_the_kernel_is_adopted_without_a_change(table: NatTable) -> None:
    standing = Binding(Transport.UDP, SIP, Endpoint(EXTERNAL, 17000), Kind.SIP, 0.0)
    table.adopt(standing, Pinhole(FLOW, 300.0), 0.0)
    table.adopt(standing, Pinhole(CALL, 400.0), 0.0)
    assert table.take_changes() == []
    assert bind(table) is standing
    assert set(table.pinholes(standing)) == {Pinhole(FLOW, 300.0), Pinhole(CALL, 400.0)}
    table.expire(400.0)
    assert len(table) == 0


@pytest.mark.parametrize(
    ("internal", "external"),
    [
        (SIP, Endpoint(EXTERNAL, 17000)),
        (Endpoint(OTHER, 5060), Endpoint(EXTERNAL, 5060)),
        (Endpoint(OTHER, 5060), Endpoint("203.0.113.2", 5060)),
        (Endpoint(OTHER, 5060), Endpoint(EXTERNAL, 1023)),
        (Endpoint(OTHER, 5060), Endpoint(EXTERNAL, 61000)),
    ],
    ids=["other-binding", "taken", "foreign-address", "low", "fence"],
)
def test_what_collides_is_not_adopted(
    table: NatTable, internal: Endpoint, external: Endpoint
) -> None:
    mine = bind(table)
    with pytest.raises(ValueError, match=str(external)):
        table.adopt(
            Binding(Transport.UDP, internal, external, Kind.SIP, 0.0), Pinhole(FLOW, 1.0), 0.0
        )
    assert list(table.bindings()) == [mine]


def test_a_remote_address_is_admitted_once_and_excluded_with_the_last(table: NatTable) -> None:
    near, far = Endpoint("198.51.100.1", 9), Endpoint("198.51.100.2", 9)
    binding = bind(table, RTP, CALL, remotes=(near, Endpoint(near.address, 10)))
    table.refresh(binding, SECOND_CALL, 300.0, (far, near))
    table.refresh(binding, CALL, 300.0, (far,))
    table.close(binding, SECOND_CALL, 1.0)
    table.close(binding, CALL, 1.0)
    changes = table.take_changes()
    assert [change for change in changes if isinstance(change, Admitted | Excluded)] == [
        Admitted(binding, near.address),
        Admitted(binding, far.address),
        Excluded(binding, near.address),
        Excluded(binding, far.address),
    ]
    assert isinstance(changes[0], Opened)
    assert isinstance(changes[-1], Closed)
