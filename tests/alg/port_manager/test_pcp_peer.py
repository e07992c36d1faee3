"""PEER: keeps a flow's mapping, for its peer alone, and never shortens it (RFC 6887 §12)."""

from __future__ import annotations

import pytest

from alg.port_manager.pcp import Result
from nat_table.binding import ANYONE, Kind, Owner, Permit
from nat_table.endpoint import TCP, Endpoint
from tests.alg.port_manager.router import (
    EXTERNAL,
    NONCE,
    OTHER_NONCE,
    PHONE,
    REMOTE,
    Router,
)

INTERNAL = Endpoint(PHONE, 4000)


@pytest.fixture
def router() -> Router:
    return Router()


def test_the_port_of_the_flow_is_taken_over_for_the_peer_alone(router: Router) -> None:
    router.masqueraded[INTERNAL] = Endpoint(EXTERNAL, 40001)
    given = router.peer()
    assert (given.result, given.lifetime) == (Result.SUCCESS, 600)
    assert given.body is not None
    assert given.body.external == Endpoint(EXTERNAL, 40001)
    assert given.body.peer == REMOTE
    assert router.permits() == (Permit("203.0.113.10/32", 6000),)


def test_a_port_that_somebody_else_has_by_now_is_not_taken_over(router: Router) -> None:
    router.map(external=Endpoint("0.0.0.0", 40001), host="10.0.0.21")
    router.masqueraded[INTERNAL] = Endpoint(EXTERNAL, 40001)
    assert router.peer().result is Result.CANNOT_PROVIDE_EXTERNAL
    assert len(router.table) == 1


def test_a_suggested_port_is_given_or_nothing(router: Router) -> None:
    router.map(external=Endpoint("0.0.0.0", 7000), host="10.0.0.21")
    for external in (Endpoint(EXTERNAL, 7000), Endpoint("203.0.113.9", 7002)):
        assert router.peer(external=external).result is Result.CANNOT_PROVIDE_EXTERNAL
    given = router.peer(external=Endpoint(EXTERNAL, 7002))
    assert given.body is not None and given.body.external.port == 7002


def test_a_mapping_that_stands_is_kept_as_it_is(router: Router) -> None:
    router.map(external=Endpoint("0.0.0.0", 7000))
    given = router.peer(external=Endpoint(EXTERNAL, 7002), nonce=OTHER_NONCE)
    assert given.body is not None and given.body.external.port == 7000
    assert router.map(lifetime=0).result is Result.SUCCESS
    assert router.permits() == (Permit("203.0.113.10/32", 6000),)


def test_it_neither_shortens_nor_ends(router: Router) -> None:
    router.peer(lifetime=3000)
    router.now += 100
    assert router.peer(lifetime=200).lifetime == 2900
    assert router.peer(lifetime=0).lifetime == 2900
    assert router.peer(lifetime=3000).lifetime == 3000


def test_asked_for_no_time_it_opens_nothing(router: Router) -> None:
    assert router.peer(lifetime=0).lifetime == 0
    assert len(router.table) == 0


def test_each_peer_has_its_own_lease_and_nonce(router: Router) -> None:
    other = Endpoint("203.0.113.11", 6000)
    router.peer()
    assert router.peer(nonce=OTHER_NONCE).result is Result.NOT_AUTHORIZED
    assert router.peer(peer=other, nonce=OTHER_NONCE).result is Result.SUCCESS
    assert len(router.leases.all()) == 2
    router.map()
    assert router.map(lifetime=0, nonce=NONCE).result is Result.SUCCESS
    assert ANYONE not in [permit for lease in router.leases.all() for permit in lease.permits]


def test_there_is_an_end_to_peers(router: Router) -> None:
    peers = [Endpoint("203.0.113.10", 6000 + number) for number in range(17)]
    results = [router.peer(peer=peer).result for peer in peers]
    assert results == [Result.SUCCESS] * 16 + [Result.USER_EX_QUOTA]
    assert router.peer(peer=peers[0]).result is Result.SUCCESS


def test_a_tcp_connection_is_not_cut_for_it(router: Router) -> None:
    assert router.peer(protocol=TCP.value).result is Result.UNSUPP_PROTOCOL
    call = Owner("call", "a@10.0.0.20")
    router.table.bind(TCP, INTERNAL, Kind.MEDIA, call, now=0, expires_at=1e9)
    assert router.peer(protocol=TCP.value).result is Result.SUCCESS


@pytest.mark.parametrize(
    ("port", "peer", "result"),
    [
        (4000, Endpoint("2001:db8::1", 6000), Result.MALFORMED_REQUEST),
        (4000, Endpoint("203.0.113.10", 0), Result.MALFORMED_REQUEST),
        (0, REMOTE, Result.UNSUPP_PROTOCOL),
    ],
)
def test_a_flow_has_two_whole_ends(
    router: Router, port: int, peer: Endpoint, result: Result
) -> None:
    assert router.peer(port, peer=peer).result is result
    assert len(router.table) == 0
