"""The rules for mappings on request, whoever asks: what is given, refused, and left as it was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from alg.port_manager.leases import Ask, LeaseLimits
from alg.port_manager.refusal import (
    CannotProvideExternal,
    GatewayFailed,
    InvalidEndpoint,
    NoMapping,
    NoResources,
    NotAuthorized,
    Refused,
)
from nat_table.behavior import Behavior
from nat_table.binding import ANYONE, Kind, Owner, Permit
from nat_table.endpoint import TCP, UDP, Endpoint
from nat_table.hosts import MAX_FILTERS, MAX_FILTERS_PER_HOST
from nat_table.lease import NEVER, Source
from tests.alg.port_manager.office import EXTERNAL, HOST, MEDIA, OTHER, PHONE, Office

FLOW = Owner("flow")
ASK = Ask(Source.PCP, UDP, MEDIA, 600.0)


@pytest.fixture
def office() -> Office:
    return Office()


def test_a_lease_is_given_renewed_and_released(office: Office) -> None:
    lease = office.leases.request(ASK, office.now)
    assert lease.binding.external == Endpoint(EXTERNAL, MEDIA.port)
    office.wait(500)
    again = office.leases.request(ASK, office.now)
    assert (again.binding, again.expires_at) == (lease.binding, office.now + 600)
    assert office.leases.find(Source.PCP, UDP, MEDIA) == again
    assert office.leases.at(Source.PCP, UDP, lease.binding.external) == [again]
    office.leases.release(Source.PCP, UDP, MEDIA, office.now)
    assert len(office.table) == 0
    assert office.leases.find(Source.PCP, UDP, MEDIA) is None


def test_a_renewal_may_shorten_and_an_end_comes_by_itself(office: Office) -> None:
    office.leases.request(ASK, office.now)
    office.leases.request(replace(ASK, lifetime=60.0), office.now)
    office.wait(59)
    assert len(office.table) == 1
    office.wait(1)
    assert len(office.table) == 0


def test_filters_are_counted_as_they_come_and_go(office: Office) -> None:
    """Each makes every commit to the kernel dearer, whoever that one is for."""

    def filtered(host: str, number: int, count: int = 16) -> Ask:
        permits = tuple(Permit(f"198.51.{number}.{each}/32") for each in range(count))
        return replace(ASK, internal=Endpoint(host, 4000 + number), permits=permits)

    def fill(host: str) -> None:
        for number in range(MAX_FILTERS_PER_HOST // 16):
            office.leases.request(filtered(host, number), office.now)

    fill(HOST)
    before = office.mappings()
    with pytest.raises(NoResources, match=f"{HOST} has 65 filters"):
        office.leases.request(filtered(HOST, 100, 1), office.now)
    assert office.mappings() == before
    office.leases.request(replace(ASK, internal=Endpoint(HOST, 4200)), office.now)
    office.leases.request(filtered(HOST, 0, 15), office.now)
    office.leases.request(filtered(HOST, 100, 1), office.now)
    office.is_kernel_full = True
    for _ in range(100):
        with pytest.raises(GatewayFailed):
            office.leases.request(filtered("10.0.0.99", 1), office.now)
    office.is_kernel_full = False
    hosts = [f"10.0.0.{30 + each}" for each in range(MAX_FILTERS // MAX_FILTERS_PER_HOST - 1)]
    for host in hosts:
        fill(host)
    with pytest.raises(NoResources):
        office.leases.request(filtered("10.0.0.99", 1), office.now)
    office.leases.request(replace(ASK, internal=Endpoint("10.0.0.99", 4200)), office.now)
    office.wait(601)
    assert len(office.table) == 0
    fill("10.0.0.99")


def test_clients_leave_half_of_the_ports_to_calls(office: Office) -> None:
    """A host that writes its neighbours' addresses must not take what their calls need."""
    most = Behavior().max_leases
    assert most == 4096
    for number in range(most):
        office.now += 0.01
        internal = Endpoint(f"10.0.{1 + number // 500}.20", 4000 + number % 500)
        office.leases.request(replace(ASK, internal=internal, lifetime=86400), office.now)
    before = office.mappings()
    with pytest.raises(NoResources, match="clients have 4096 mappings"):
        office.leases.request(ASK, office.now)
    assert office.mappings() == before
    office.leases.request(replace(ASK, source=Source.STATIC, internal=PHONE), office.now)
    office.wait(86401)
    office.leases.request(ASK, office.now)


def test_a_lifetime_has_a_limit_and_that_of_a_static_mapping_none(office: Office) -> None:
    assert office.leases.request(replace(ASK, lifetime=1e9), 0.0).expires_at == 86400.0
    static = replace(ASK, source=Source.STATIC, internal=PHONE)
    assert office.leases.request(static, 0.0).expires_at == NEVER


def test_a_renewal_has_other_remotes_and_permits(office: Office) -> None:
    office.leases.request(ASK, office.now)
    permits = (Permit("203.0.113.0/24"),)
    office.leases.request(replace(ASK, remotes=(OTHER,), permits=permits), office.now)
    (pinhole,) = office.pinholes(MEDIA)
    assert (pinhole.remotes, pinhole.permits) == ((OTHER,), permits)


def test_leases_of_several_clients_on_one_endpoint_end_one_at_a_time(office: Office) -> None:
    for name in ("one", "two"):
        office.leases.request(replace(ASK, name=name), office.now)
    office.leases.request(replace(ASK, source=Source.UPNP), office.now)
    assert [lease.name for lease in office.leases.all(Source.PCP)] == ["one", "two"]
    office.leases.release(Source.PCP, UDP, MEDIA, office.now, "two")
    with pytest.raises(NoMapping):
        office.leases.release(Source.PCP, UDP, MEDIA, office.now, "two")
    office.leases.release(Source.PCP, UDP, MEDIA, office.now)
    assert [lease.source for lease in office.leases.all()] == [Source.UPNP]
    office.leases.release(Source.UPNP, UDP, MEDIA, office.now)
    assert len(office.table) == 0


def test_a_standing_mapping_is_kept_whatever_port_is_wanted(office: Office) -> None:
    first = office.leases.request(replace(ASK, wanted=20000), office.now)
    assert first.binding.external.port == 20000
    second = office.leases.request(replace(ASK, wanted=20002), office.now)
    assert second.binding == first.binding


@pytest.mark.parametrize("is_mapped", [True, False])
def test_who_insists_on_a_port_gets_it_or_nothing_changes(office: Office, is_mapped: bool) -> None:
    other = Endpoint("10.0.0.21", 4000)
    office.leases.request(replace(ASK, internal=other, wanted=20000), office.now)
    exact = replace(ASK, wanted=20000, is_exact=True)
    if is_mapped:
        office.leases.request(replace(exact, wanted=20004, permits=()), office.now)
    before, changes = office.pinholes(MEDIA), list(office.committed)
    with pytest.raises(CannotProvideExternal, match="external port 20000 cannot be had"):
        office.leases.request(exact, office.now)
    assert (office.pinholes(MEDIA), office.committed) == (before, changes)
    assert len(office.table) == 1 + is_mapped


def test_rtp_and_rtcp_are_an_adjacent_pair(office: Office) -> None:
    ask = replace(ASK, kind=Kind.RTP, count=2)
    office.leases.request(replace(ask, internal=Endpoint("10.0.0.21", 4000)), office.now)
    office.leases.request(ask, office.now)
    rtp, rtcp = (office.leases.find(Source.PCP, UDP, each) for each in ask.row)
    assert rtp is not None and rtcp is not None
    assert (rtp.binding.kind, rtcp.binding.kind) == (Kind.RTP, Kind.RTCP)
    assert rtp.binding.external.port % 2 == 0
    assert rtcp.binding.external.port == rtp.binding.external.port + 1


def test_a_row_is_completed_where_a_part_of_it_stands(office: Office) -> None:
    behind = replace(ASK, internal=Endpoint(HOST, 4001), wanted=20001)
    office.leases.request(behind, office.now)
    lease = office.leases.request(replace(ASK, kind=Kind.RTP, count=2), office.now)
    assert lease.binding.external.port == 20000


def test_a_row_that_cannot_be_one_changes_nothing(office: Office) -> None:
    office.leases.request(replace(ASK, internal=Endpoint(HOST, 4001), wanted=20001), office.now)
    other = Endpoint("10.0.0.21", 4000)
    office.leases.request(replace(ASK, internal=other, wanted=20000), office.now)
    before = office.mappings()
    with pytest.raises(NoResources, match="2 ports in a row"):
        office.leases.request(replace(ASK, kind=Kind.RTP, count=2), office.now)
    assert office.mappings() == before


def test_a_mapping_of_signalling_stays_when_its_lease_ends(office: Office) -> None:
    office.leases.request(replace(ASK, internal=PHONE, kind=Kind.SIP), office.now)
    office.table.bind(UDP, PHONE, Kind.SIP, FLOW, now=office.now, expires_at=office.now + 300)
    office.leases.release(Source.PCP, UDP, PHONE, office.now)
    assert [pinhole.owner for pinhole in office.pinholes(PHONE)] == [FLOW]


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        (lambda ask: replace(ask, internal=Endpoint(HOST, 0)), InvalidEndpoint),
        (lambda ask: replace(ask, internal=Endpoint(HOST, 65535), count=2), InvalidEndpoint),
        (lambda ask: replace(ask, internal=Endpoint("198.51.100.9", 4000)), InvalidEndpoint),
        (lambda ask: replace(ask, internal=Endpoint("10.0.0.1", 4000)), NotAuthorized),
        (lambda ask: replace(ask, internal=Endpoint(HOST, 1023)), NotAuthorized),
        (lambda ask: replace(ask, internal=Endpoint(HOST, 9998), count=2), NotAuthorized),
        (lambda ask: replace(ask, internal=Endpoint("10.0.0.99", 80)), NotAuthorized),
        (lambda ask: replace(ask, internal=Endpoint("fe80::20", 4000)), InvalidEndpoint),
        (lambda ask: replace(ask, internal=Endpoint("fd00::20", 4000)), GatewayFailed),
    ],
)
def test_what_may_not_be_mapped_is_refused_by_name(
    changed: Callable[[Ask], Ask], error: type[Refused]
) -> None:
    def is_internal(address: str) -> bool:
        return address.startswith(("10.0.0.", "fd00:", "fe80:"))

    limits = LeaseLimits(frozenset({9999}), frozenset({"10.0.0.1"}), is_internal=is_internal)
    office = Office(limits=limits)
    with pytest.raises(error):
        office.leases.request(changed(ASK), office.now)
    assert len(office.table) == 0
    assert office.committed == []


def test_a_host_that_has_mappings_is_internal_whatever_its_route_is() -> None:
    looked_up: list[str] = []

    def is_internal(address: str) -> bool:
        looked_up.append(address)
        return len(looked_up) == 1

    office = Office(limits=LeaseLimits(is_internal=is_internal))
    office.leases.request(ASK, office.now)
    office.leases.request(replace(ASK, internal=PHONE), office.now)
    assert looked_up == [HOST]


def test_the_administrator_may_map_a_low_port(office: Office) -> None:
    web = replace(
        ASK, source=Source.STATIC, transport=TCP, internal=Endpoint(HOST, 80), wanted=8080
    )
    assert office.leases.request(web, office.now).binding.external.port == 8080


def test_a_host_has_so_many_mappings_and_no_more() -> None:
    office = Office(Behavior(max_mappings_per_host=1))
    office.leases.request(ASK, office.now)
    with pytest.raises(NoResources, match=HOST):
        office.leases.request(replace(ASK, internal=PHONE), office.now)


def test_what_the_kernel_refuses_has_not_happened(office: Office) -> None:
    office.is_kernel_full = True
    with pytest.raises(GatewayFailed):
        office.leases.request(ASK, office.now)
    assert len(office.table) == 0
    office.is_kernel_full = False
    office.leases.request(ASK, office.now)
    office.is_kernel_full = True
    with pytest.raises(GatewayFailed):
        office.leases.release(Source.PCP, UDP, MEDIA, office.now)
    assert office.pinholes(MEDIA)[0].permits == (ANYONE,)
