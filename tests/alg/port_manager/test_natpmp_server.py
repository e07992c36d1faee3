"""What NAT-PMP clients are given and refused (RFC 6886 §3)."""

from __future__ import annotations

import random

import pytest

from alg.port_manager import natpmp
from alg.port_manager.natpmp import Mapped, Opcode, Response, Result
from nat_table.behavior import Behavior
from nat_table.binding import Kind
from nat_table.endpoint import TCP, UDP, Endpoint
from nat_table.lease import Source, lease_owner
from tests.alg.port_manager.router import (
    EXTERNAL,
    MAX_LIFETIME,
    PHONE,
    PHONE6,
    PHONE_2,
    ROUTER,
    Router,
)


@pytest.fixture
def router() -> Router:
    return Router()


def test_the_external_address_is_told(router: Router) -> None:
    router.now += 7
    answer = router.send_natpmp(b"\0\0")
    assert answer is not None
    assert natpmp.parse_response(answer) == Response(Opcode.ADDRESS, Result.SUCCESS, 7, EXTERNAL)
    assert router.send_natpmp(b"\0\0", PHONE6) is None


def test_a_mapping_is_given_renewed_and_ended(router: Router) -> None:
    given = router.map_by_natpmp(external=7000)
    assert given.mapped == Mapped(4000, 7000, 600)
    assert router.map_by_natpmp(lifetime=60).mapped == Mapped(4000, 7000, 60)
    longest = int(MAX_LIFETIME)
    assert router.map_by_natpmp(lifetime=2**32 - 1).mapped == Mapped(4000, 7000, longest)
    assert router.map_by_natpmp(lifetime=0).mapped == Mapped(4000, 0, 0)
    assert len(router.table) == 0
    assert router.map_by_natpmp(lifetime=0).result is Result.SUCCESS


def test_port_0_ends_all_of_the_host_and_transport(router: Router) -> None:
    for port in (4000, 4002):
        router.map_by_natpmp(port)
    router.map_by_natpmp(opcode=Opcode.MAP_TCP)
    router.map_by_natpmp(host=PHONE_2)
    router.map(4004)
    assert router.map_by_natpmp(0, lifetime=0).mapped == Mapped(0, 0, 0)
    left = {
        (lease.source, lease.binding.transport, lease.binding.internal)
        for lease in router.leases.all()
    }
    assert left == {
        (Source.NAT_PMP, TCP, Endpoint(PHONE, 4000)),
        (Source.NAT_PMP, UDP, Endpoint(PHONE_2, 4000)),
        (Source.PCP, UDP, Endpoint(PHONE, 4004)),
    }


def test_what_is_refused_has_a_code(router: Router) -> None:
    assert router.map_by_natpmp(0).result is Result.NOT_AUTHORIZED
    assert router.map_by_natpmp(80).result is Result.NOT_AUTHORIZED
    assert router.map_by_natpmp(host=ROUTER).result is Result.NOT_AUTHORIZED
    scarce = Router(behavior=Behavior(max_mappings_per_host=1))
    scarce.map_by_natpmp()
    assert scarce.map_by_natpmp(4002).result is Result.OUT_OF_RESOURCES
    router.is_kernel_failing = True
    assert router.map_by_natpmp().result is Result.NETWORK_FAILURE
    assert len(router.table) == 0


def test_what_the_administrator_has_made_stays(router: Router) -> None:
    static = lease_owner(Source.STATIC)
    internal = Endpoint(PHONE, 4000)
    router.table.bind(UDP, internal, Kind.ANY, static, now=0, expires_at=1e9)
    assert router.map_by_natpmp(lifetime=0).result is Result.NOT_AUTHORIZED
    assert len(router.table) == 1


def test_anything_else_is_refused_or_ignored_and_opens_nothing(router: Router) -> None:
    rng = random.Random(1)
    for _ in range(3000):
        data = bytes((rng.randrange(5), rng.randrange(3, 256))) + rng.randbytes(rng.randrange(20))
        answer = router.send_natpmp(data)
        assert answer is None or (len(answer) == 8 and answer[0] == 0 and answer[1] & 0x80)
    assert len(router.table) == 0
