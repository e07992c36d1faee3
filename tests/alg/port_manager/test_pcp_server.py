"""What PCP clients are given and refused: MAP, ANNOUNCE, and all that is wrong."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from alg.port_manager import pcp
from alg.port_manager.pcp import Body, Opcode, Options, PortSet, Request, Response, Result
from nat_table.behavior import Behavior
from nat_table.binding import ANYONE, Kind, Owner, Permit
from nat_table.endpoint import TCP, UDP, Endpoint
from nat_table.lease import Source, lease_owner
from tests.alg.port_manager.router import (
    EXTERNAL,
    MAX_LIFETIME,
    NONCE,
    OTHER_NONCE,
    PHONE,
    PHONE6,
    PHONE_2,
    REMOTE,
    ROUTER,
    UNSPECIFIED,
    Router,
)

INTERNAL = Endpoint(PHONE, 4000)
PREFERS_FAILURE = Options(prefers_failure=True)


@pytest.fixture
def router() -> Router:
    return Router()


def test_a_mapping_is_given_and_renewed_and_ended(router: Router) -> None:
    given = router.map()
    body = Body(NONCE, 17, 4000, Endpoint(EXTERNAL, 4000))
    assert given == Response(Opcode.MAP, Result.SUCCESS, 600, 0, body)
    assert router.permits() == (ANYONE,)
    router.now += 300
    assert router.map() == replace(given, epoch=300)
    (lease,) = router.leases.all()
    assert lease.expires_at == router.now + 600
    ended = router.map(lifetime=0)
    assert (ended.result, ended.lifetime) == (Result.SUCCESS, 0)
    assert len(router.table) == 0
    assert router.map(lifetime=0).result is Result.SUCCESS, "it is gone, which was asked for"


@pytest.mark.parametrize(
    ("asked", "granted"), [(1, 120), (120, 120), (3000, 3000), (2**32 - 1, int(MAX_LIFETIME))]
)
def test_a_lifetime_is_kept_within_bounds(router: Router, asked: int, granted: int) -> None:
    assert router.map(lifetime=asked).lifetime == granted


def test_a_renewal_may_shorten(router: Router) -> None:
    router.map(lifetime=3000)
    assert router.map(lifetime=200).lifetime == 200


def test_transports_have_nothing_to_do_with_each_other(router: Router) -> None:
    router.map(external=Endpoint("0.0.0.0", 7000))
    by_tcp = router.map(protocol=TCP.value, nonce=OTHER_NONCE)
    assert by_tcp.body is not None and by_tcp.body.external.port == 4000


@pytest.mark.parametrize("lifetime", [0, 600])
def test_another_nonce_changes_nothing(router: Router, lifetime: int) -> None:
    router.map()
    before = router.leases.all()
    refused = router.map(nonce=OTHER_NONCE, lifetime=lifetime)
    assert (refused.result, refused.lifetime) == (Result.NOT_AUTHORIZED, 600), "§11.3"
    assert router.leases.all() == before


def test_a_suggested_port_is_given_where_it_is_free(router: Router) -> None:
    suggested = Endpoint("0.0.0.0", 7000)
    first = router.map(external=suggested)
    second = router.map(external=suggested, host=PHONE_2)
    assert first.body is not None and second.body is not None
    assert first.body.external == Endpoint(EXTERNAL, 7000)
    assert second.body.external == Endpoint(EXTERNAL, 4000)


def test_prefer_failure_takes_no_other_port_or_address(router: Router) -> None:
    router.map(external=Endpoint("0.0.0.0", 7000), host=PHONE_2)
    for external in (Endpoint("0.0.0.0", 7000), Endpoint("203.0.113.9", 7002)):
        refused = router.map(external=external, options=PREFERS_FAILURE)
        assert (refused.result, refused.lifetime) == (Result.CANNOT_PROVIDE_EXTERNAL, 30)
    assert len(router.table) == 1
    given = router.map(external=Endpoint(EXTERNAL, 7002), options=PREFERS_FAILURE)
    assert (given.result, given.options) == (Result.SUCCESS, PREFERS_FAILURE)


def test_the_port_that_flows_have_already_is_kept(router: Router) -> None:
    router.masqueraded[INTERNAL] = Endpoint(EXTERNAL, 40001)
    given = router.map()
    assert given.body is not None and given.body.external.port == 40001


def test_filters_add_up_and_are_taken_back(router: Router) -> None:
    one, other = Permit("203.0.113.0/24", 0), Permit("198.51.100.66/32", 5000)
    assert router.map(options=Options(filters=(one,))).options.filters == (one,)
    assert router.permits() == (one,)
    router.map(options=Options(filters=(other,)))
    router.map()
    assert router.permits() == (one, other)
    router.map(options=Options(filters=(Permit(), other)))
    assert router.permits() == (other,)
    router.map(options=Options(filters=(Permit(),)))
    assert router.permits() == (ANYONE,)


def test_a_filter_takes_the_place_of_everybody_and_stays_one_when_renewed(router: Router) -> None:
    one = Permit("203.0.113.0/24", 0)
    router.map()
    for _ in range(20):
        assert router.map(options=Options(filters=(one,))).result is Result.SUCCESS
    assert router.permits() == (one,)


@pytest.mark.parametrize(
    ("lifetime", "filters", "result"),
    [
        (0, (Permit("203.0.113.0/24"),), Result.MALFORMED_OPTION),
        (600, (Permit("2001:db8::/32"),), Result.MALFORMED_OPTION),
        (
            600,
            tuple(Permit(f"203.0.113.{number}/32") for number in range(17)),
            Result.EXCESSIVE_REMOTE_PEERS,
        ),
    ],
)
def test_filters_that_cannot_be(
    router: Router, lifetime: int, filters: tuple[Permit, ...], result: Result
) -> None:
    assert router.map(lifetime=lifetime, options=Options(filters=filters)).result is result
    assert len(router.table) == 0


@pytest.mark.parametrize(
    ("protocol", "port", "lifetime", "result"),
    [
        (132, 4000, 600, Result.UNSUPP_PROTOCOL),
        (17, 0, 600, Result.UNSUPP_PROTOCOL),
        (0, 0, 600, Result.UNSUPP_PROTOCOL),
        (0, 4000, 600, Result.MALFORMED_REQUEST),
        (0, 4000, 0, Result.MALFORMED_REQUEST),
        (17, 0, 0, Result.SUCCESS),
        (0, 0, 0, Result.SUCCESS),
        (17, 80, 600, Result.NOT_AUTHORIZED),
        (17, 5555, 600, Result.NOT_AUTHORIZED),
    ],
)
def test_not_every_port_is_mapped(
    router: Router, protocol: int, port: int, lifetime: int, result: Result
) -> None:
    assert router.map(port, protocol=protocol, lifetime=lifetime).result is result
    assert len(router.table) == 0


def test_a_wildcard_does_not_end_single_mappings(router: Router) -> None:
    router.map()
    router.map(0, lifetime=0)
    assert len(router.table) == 1


def test_the_router_maps_nothing_to_itself(router: Router) -> None:
    assert router.map(host=ROUTER).result is Result.NOT_AUTHORIZED


def test_who_is_behind_another_nat_is_told(router: Router) -> None:
    request = Request(Opcode.MAP, PHONE_2, 600, Body(NONCE, 17, 4000, UNSPECIFIED))
    assert router.ask(request, source=PHONE).result is Result.ADDRESS_MISMATCH
    assert len(router.table) == 0


def test_a_third_party_is_mapped_only_where_that_is_allowed(router: Router) -> None:
    options = Options(third_party=PHONE_2)
    assert router.map(options=options).result is Result.UNSUPP_OPTION
    assert len(router.table) == 0
    router = Router(is_secure=False)
    given = router.map(options=options)
    assert (given.result, given.options) == (Result.SUCCESS, options)
    assert router.table.look_up_internal(UDP, Endpoint(PHONE_2, 4000)) is not None
    assert router.map(options=Options(PHONE)).result is Result.MALFORMED_REQUEST
    assert router.map(options=Options("0.0.0.0"), lifetime=0).result is Result.NOT_AUTHORIZED
    assert router.map(options=Options(ROUTER)).result is Result.NOT_AUTHORIZED


def test_quota_ports_address_and_kernel_each_have_a_code(router: Router) -> None:
    scarce = Router(behavior=Behavior(max_mappings_per_host=1))
    scarce.map()
    assert scarce.map(4002).result is Result.USER_EX_QUOTA
    full = Router(behavior=Behavior(pool=(16384, 16385)))
    for port in (16384, 4000):
        full.map(port, host=PHONE_2)
    assert full.map(4000).result is Result.NO_RESOURCES
    router.is_kernel_failing = True
    refused = router.map()
    assert (refused.result, refused.lifetime) == (Result.NETWORK_FAILURE, 30)
    assert len(router.table) == 0


def test_what_the_administrator_has_made_stays(router: Router) -> None:
    static = lease_owner(Source.STATIC)
    router.table.bind(UDP, INTERNAL, Kind.ANY, static, now=0, expires_at=1e9)
    assert router.map(lifetime=0).result is Result.NOT_AUTHORIZED
    assert router.map().result is Result.SUCCESS
    assert router.map(lifetime=0).result is Result.SUCCESS
    assert len(router.table) == 1


def test_what_a_call_keeps_outlives_the_lease(router: Router) -> None:
    call = Owner("call", "a@10.0.0.20")
    router.table.bind(UDP, INTERNAL, Kind.RTP, call, now=0, expires_at=1e9)
    router.map()
    router.map(lifetime=0)
    assert [each.owner for each in router.table.pinholes(router.binding())] == [call]


def test_an_ipv6_port_is_opened_where_it_is(router: Router) -> None:
    given = router.map(host=PHONE6, external=Endpoint("::", 0))
    assert given.body is not None and given.body.external == Endpoint(PHONE6, 4000)


def test_announce_tells_the_epoch(router: Router) -> None:
    router.now += 42
    response = router.ask(Request(Opcode.ANNOUNCE, PHONE))
    assert response == Response(Opcode.ANNOUNCE, Result.SUCCESS, 0, 42)


def test_updates_tell_each_host_what_it_has(router: Router) -> None:
    router.map()
    router.peer(4002)
    router.now += 100
    router.epoch.reset(router.now)
    client = Endpoint(PHONE, 5350)
    mapped = Body(NONCE, 17, 4000, Endpoint(EXTERNAL, 4000))
    peer = Body(NONCE, 17, 4002, Endpoint(EXTERNAL, 4002), REMOTE)
    assert router.updates() == [
        (client, Response(Opcode.MAP, Result.SUCCESS, 500, 0, mapped)),
        (client, Response(Opcode.PEER, Result.SUCCESS, 500, 0, peer)),
    ]


def test_a_set_of_ports_is_given_and_ended_as_one(router: Router) -> None:
    options = Options(port_set=PortSet(4, 4000, True))
    given = router.map(options=options)
    assert given.options == options
    assert given.body is not None
    first = given.body.external.port
    assert first % 2 == 0
    assert [router.binding(4000 + n).external.port - first for n in range(4)] == [0, 1, 2, 3]
    router.map(options=options, lifetime=0)
    assert len(router.table) == 0


def test_a_set_of_ports_is_smaller_where_it_must_be(router: Router) -> None:
    router.map(4002, nonce=OTHER_NONCE)
    wish = Options(port_set=PortSet(4, 4000, False))
    insists = replace(wish, prefers_failure=True)
    assert router.map(options=insists).result is Result.CANNOT_PROVIDE_EXTERNAL
    assert router.map(options=wish).options.port_set == PortSet(2, 4000, False)
    huge = Options(port_set=PortSet(65535, 5000, False))
    assert router.map(5000, options=huge).options.port_set == PortSet(64, 5000, False)
    last = Options(port_set=PortSet(4, 65535, False))
    assert router.map(65535, options=last).options.port_set is None


def test_a_set_of_ports_begins_with_the_port_that_is_mapped(router: Router) -> None:
    options = Options(port_set=PortSet(2, 4002, False))
    assert router.map(options=options).result is Result.MALFORMED_OPTION


def test_anything_else_is_refused_or_ignored_and_opens_nothing(router: Router) -> None:
    """Octets drawn at random, and requests with a few of theirs changed."""
    rng = random.Random(1)
    good = pcp.encode_request(
        Request(Opcode.MAP, PHONE, 600, Body(NONCE, 132, 4000, UNSPECIFIED), PREFERS_FAILURE)
    )
    for _ in range(3000):
        data = bytearray(good[: rng.randint(0, len(good))] + rng.randbytes(rng.choice((0, 4, 9))))
        for _ in range(rng.randint(0, 3)):
            if data:
                data[rng.randrange(len(data))] = rng.randrange(256)
        if len(data) > 36 and data[36] in (6, 17):
            continue
        answer = router.send(bytes(data))
        if answer is not None:
            assert len(answer) % 4 == 0 and 24 <= len(answer) <= 1100
            assert answer[0] == 2 and answer[1] & 0x80
    assert len(router.table) == 0
