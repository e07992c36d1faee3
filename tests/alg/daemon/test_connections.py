"""Connections: whom each is for, which mappings it keeps for how long, and what it opens."""

from __future__ import annotations

import asyncio

import pytest

from alg.daemon import connections
from alg.daemon.connections import HOLD_TIMEOUT
from alg.io.clock import now
from alg.io.legs import TryAgain
from alg.sip.stream import Fault
from alg.verdict import Reason
from nat_table.behavior import Behavior
from nat_table.binding import Kind, Owner
from nat_table.endpoint import Endpoint, Transport
from tests.alg.daemon.switchboard import EXTERNAL, OTHER_PHONE, PHONE, SERVER, Switchboard
from tests.alg.io.wires import run

CONTACT = Endpoint(PHONE.address, 5060)
REGISTRATION = Owner("registration", "call-1")


def options(source: Endpoint) -> bytes:
    """Renders a request of a phone."""
    return (
        f"OPTIONS sip:server@{SERVER} SIP/2.0\r\nVia: SIP/2.0/TCP {source};branch=z9hG4bK1\r\n"
        f"From: <sip:p@{SERVER.address}>;tag=1\r\nTo: <sip:server@{SERVER.address}>\r\n"
        f"Call-ID: 1\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
    ).encode()


def register_contact(board: Switchboard) -> Endpoint:
    """Maps the phone's Contact as its registration does; returns the external endpoint."""
    binding = board.table.bind(
        Transport.TCP, CONTACT, Kind.SIP, REGISTRATION, now=now(), expires_at=now() + 600
    )
    board.kernel.commit(board.table.take_changes())
    return binding.external


def test_a_phone_is_connected_from_its_mapping() -> None:
    board = Switchboard()
    connection = board.connect(PHONE, SERVER)
    assert (connection.source, connection.target) == (Endpoint(EXTERNAL, 45000), SERVER)
    [binding] = board.kernel.listing()
    assert (binding.internal, binding.external) == (PHONE, connection.source)
    [pinhole] = board.table.pinholes(binding)
    assert pinhole.remotes == (SERVER,)


def test_two_phones_with_the_same_port_have_mappings_of_their_own() -> None:
    board = Switchboard()
    sources = {board.connect(phone, SERVER).source for phone in (PHONE, OTHER_PHONE)}
    assert len(sources) == 2


def test_messages_are_rewritten_to_the_mapping_and_back() -> None:
    board = Switchboard()
    board.connect(PHONE, SERVER)
    connection = board.connect(OTHER_PHONE, SERVER)
    sent = options(OTHER_PHONE)
    arrived = connection.translate(sent, True)
    assert str(connection.source).encode() in arrived
    answer = arrived.replace(f"OPTIONS sip:server@{SERVER} SIP/2.0".encode(), b"SIP/2.0 200 OK")
    returned = connection.translate(answer, False)
    assert f"SIP/2.0/TCP {OTHER_PHONE};".encode() in returned
    assert connection.row()["from_phone"] == connection.row()["to_phone"] == 1


def test_a_mapping_is_kept_while_its_connection_is_open_and_no_longer() -> None:
    board = Switchboard()
    first, second = board.connect(PHONE, SERVER), board.connect(PHONE, SERVER._replace(port=5080))
    assert first.source == second.source
    first.close()
    board.expire(now() + HOLD_TIMEOUT / 2)
    assert len(board.kernel.listing()) == 1
    second.close()
    board.expire(now())
    assert board.kernel.listing() == []
    assert list(board.connections.rows()) == []


def test_what_ended_at_once_is_let_go_in_commits_that_packets_can_wait_for() -> None:
    board = Switchboard(Behavior(max_new_per_second=1000))
    opened = [board.connect(PHONE._replace(port=20000 + each), SERVER) for each in range(500)]
    for connection in opened:
        connection.close()
    sizes = []
    while changes := board.gateway.handle_timer(now()):
        sizes.append(len(changes))
    assert sum(sizes) >= 500
    assert max(sizes) <= 200
    assert list(board.table.bindings()) == []


@run
async def test_what_a_connection_keeps_is_kept_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "RENEW_INTERVAL", 0.01)
    board = Switchboard()
    board.connect(PHONE, SERVER)
    before = board.table.next_deadline()
    renewing = asyncio.create_task(board.connections.renew())
    async with asyncio.timeout(5):
        while board.table.next_deadline() == before:
            await asyncio.sleep(0.01)
    renewing.cancel()


def test_a_remote_that_calls_a_mapping_is_connected_with_its_phone_as_itself() -> None:
    board = Switchboard()
    external = register_contact(board)
    remote = Endpoint(SERVER.address, 33333)
    connection = board.connect(remote, external)
    assert (connection.source, connection.target) == (remote, CONTACT)
    row = connection.row()
    assert (row["phone"], row["server"], row["mapping"]) == (
        *map(str, (CONTACT, remote)),
        str(external),
    )
    connection.close()
    assert board.table.look_up_external(Transport.TCP, external) is not None


def test_a13_a_phone_that_calls_a_mapping_comes_from_its_own() -> None:
    board = Switchboard()
    external = register_contact(board)
    connection = board.connect(OTHER_PHONE, external)
    assert (connection.source, connection.target) == (Endpoint(EXTERNAL, 45000), CONTACT)


def test_nothing_behind_an_external_endpoint_refuses_and_opens_nothing() -> None:
    board = Switchboard()
    assert board.connections.connect(SERVER, Endpoint(EXTERNAL, 5060)) is None
    assert board.gateway.counters[Reason.UNMAPPED] == 1
    assert board.kernel.listing() == []


def test_a81_a_connection_that_is_not_sip_keeps_nothing_open() -> None:
    board = Switchboard()
    connection = board.connect(PHONE, SERVER)
    connection.turn_opaque(Fault.NOT_SIP)
    board.expire(now())
    assert board.kernel.listing() == []
    assert connection.row()["state"] == "opaque"
    assert board.gateway.counters[Reason.OPAQUE] == 1


@pytest.mark.parametrize(
    ("behavior", "reason"),
    [
        (Behavior(max_mappings_per_host=1), Reason.QUOTA),
        (Behavior(max_new_per_second=1), Reason.RATE),
        (
            Behavior(pool=(20000, 20000), denied_ports=frozenset({20000, 45001})),
            Reason.NO_FREE_PORT,
        ),
    ],
)
def test_without_a_free_mapping_a_phone_is_connected_all_the_same(
    behavior: Behavior, reason: Reason
) -> None:
    board = Switchboard(behavior)
    board.connect(PHONE, SERVER)
    connection = board.connect(PHONE._replace(port=45001), SERVER)
    assert (connection.source, connection.has_sip) == (Endpoint("0.0.0.0", 0), False)
    assert connection.row()["mapping"] is None
    assert board.gateway.counters[reason] == 1


@pytest.mark.parametrize("port", [1023, 8080])
def test_a_denied_port_is_not_mapped(port: int) -> None:
    board = Switchboard(denied=frozenset({8080}))
    assert not board.connect(PHONE._replace(port=port), SERVER).has_sip
    assert board.kernel.listing() == []
    assert board.gateway.counters[Reason.DENIED_PORT] == 1


def test_a_mapping_that_the_kernel_refuses_resets_the_connection() -> None:
    board = Switchboard()
    board.kernel.is_refusing = True
    assert board.connections.connect(PHONE, SERVER) is None
    assert board.gateway.counters[Reason.COMMIT_FAILED] == 1
    assert (len(board.table), list(board.connections.rows())) == (0, [])


def test_a_message_that_opens_what_the_kernel_refuses_waits() -> None:
    board = Switchboard()
    connection = board.connect(PHONE, SERVER)
    board.kernel.is_refusing = True
    with pytest.raises(TryAgain):
        connection.translate(options(CONTACT), True)
    assert board.table.look_up_internal(Transport.TCP, CONTACT) is None
    board.kernel.is_refusing = False
    assert str(EXTERNAL).encode() in connection.translate(options(CONTACT), True)
    assert board.table.look_up_internal(Transport.TCP, CONTACT) is not None
