"""The port manager as a client uses it, in one process with the table."""

from __future__ import annotations

import pytest

from alg.port_manager import (
    CannotProvideExternal,
    GatewayFailed,
    InvalidEndpoint,
    Mapping,
    NoMapping,
    NoResources,
    NotAuthorized,
    PortManager,
    PortType,
    Refused,
    Transport,
    UnsupportedTransport,
)
from alg.port_manager.map_command import MAX_REMOTES
from alg.port_manager.refusal import REFUSALS
from nat_table.behavior import Behavior
from nat_table.binding import ANYONE, Kind
from nat_table.endpoint import TCP, UDP, Endpoint
from tests.alg.port_manager.office import EXTERNAL, HOST, MEDIA, OTHER, PHONE, SERVER, Office

RTCP = Endpoint(HOST, MEDIA.port + 1)
QUARANTINE = Behavior().quarantine_timeout


@pytest.fixture
def office() -> Office:
    return Office()


@pytest.fixture
def ports(office: Office) -> PortManager:
    return office.port_manager()


def test_the_classic_flow_leaves_nothing_behind(office: Office, ports: PortManager) -> None:
    sip = ports.get_mapping(SERVER, Transport.UDP, PortType.SIP, PHONE)
    rtp = ports.get_mapping(SERVER, Transport.UDP, PortType.RTP)
    rtcp = ports.get_mapping(SERVER, Transport.UDP, PortType.RTCP)
    assert sip == Mapping(PHONE, Endpoint(EXTERNAL, 5060))
    assert rtp.internal.port % 2 == rtp.external.port % 2 == 0
    assert rtcp.internal == Endpoint(HOST, rtp.internal.port + 1)
    assert rtcp.external == Endpoint(EXTERNAL, rtp.external.port + 1)
    ports.update_remote_address(rtp, OTHER)
    assert [each.remotes for each in office.pinholes(rtp.internal)] == [(OTHER,)]
    assert [each.remotes for each in office.pinholes(rtcp.internal)] == [(SERVER,)]
    for mapping in (rtcp, rtp, sip):
        ports.release_mapping(mapping)
    assert len(office.table) == 0


@pytest.mark.parametrize(
    ("transport", "port_type", "protocol", "kind"),
    [
        (Transport.UDP, PortType.SIP, UDP, Kind.SIP),
        (Transport.UDP, PortType.RTP, UDP, Kind.RTP),
        (Transport.UDP, PortType.RTCP, UDP, Kind.RTCP),
        (Transport.TCP, PortType.SIP, TCP, Kind.SIP),
        (Transport.TCP, PortType.RTP, TCP, Kind.MEDIA),
        (Transport.TLS, PortType.SIP, TCP, Kind.ANY),
    ],
)
def test_a_mapping_is_of_the_kind_that_its_traffic_is(
    office: Office,
    ports: PortManager,
    transport: Transport,
    port_type: PortType,
    protocol: object,
    kind: Kind,
) -> None:
    mapping = ports.get_mapping(None, transport, port_type)
    binding = next(office.table.bindings())
    assert (binding.transport, binding.kind) == (protocol, kind)
    assert (mapping.internal, mapping.transport) == (binding.internal, transport)


def test_a_known_remote_is_left_to_filtering_and_an_unknown_one_is_anybody(
    office: Office, ports: PortManager
) -> None:
    mapping = ports.get_mapping(None, Transport.UDP, PortType.RTP, MEDIA)
    (pinhole,) = office.pinholes(MEDIA)
    assert (pinhole.remotes, pinhole.permits) == ((), (ANYONE,))
    ports.update_remote_address(mapping, OTHER)
    (pinhole,) = office.pinholes(MEDIA)
    assert (pinhole.remotes, pinhole.permits) == ((OTHER,), ())
    ports.update_remote_address(mapping, None)
    assert office.pinholes(MEDIA)[0].permits == (ANYONE,)


def test_rtcp_that_nobody_asked_for_goes_with_rtp(office: Office, ports: PortManager) -> None:
    rtp = ports.get_mapping(SERVER, Transport.UDP, PortType.RTP, MEDIA)
    ports.update_remote_address(rtp, OTHER)
    assert office.pinholes(RTCP)[0].remotes == (OTHER,)
    ports.release_mapping(rtp)
    assert len(office.table) == 0


def test_rtcp_that_was_asked_for_stays_without_rtp(office: Office, ports: PortManager) -> None:
    rtp = ports.get_mapping(SERVER, Transport.UDP, PortType.RTP, MEDIA)
    rtcp = ports.get_mapping(SERVER, Transport.UDP, PortType.RTCP, RTCP)
    ports.release_mapping(rtp)
    assert list(office.mappings()) == [str(RTCP)]
    ports.release_mapping(rtcp)
    assert len(office.table) == 0


def test_rtp_from_an_odd_port_comes_alone(office: Office, ports: PortManager) -> None:
    ports.get_mapping(SERVER, Transport.UDP, PortType.RTP, RTCP)
    assert list(office.mappings()) == [str(RTCP)]


def test_each_stream_has_its_own_pair_and_signalling_one_mapping(ports: PortManager) -> None:
    asked = (PortType.RTP, PortType.RTCP, PortType.RTP, PortType.RTCP, PortType.RTCP)
    one, one_rtcp, two, two_rtcp, again = (
        ports.get_mapping(SERVER, Transport.UDP, each).internal.port for each in asked
    )
    assert (one_rtcp, two_rtcp, again) == (one + 1, two + 1, two + 1)
    assert one != two
    sip = ports.get_mapping(SERVER, Transport.UDP, PortType.SIP)
    assert ports.get_mapping(OTHER, Transport.UDP, PortType.SIP) == sip
    assert ports.get_mapping(SERVER, Transport.TCP, PortType.SIP).internal != sip.internal


def test_asking_again_renews_and_lets_the_new_remote_in_beside_the_old(
    office: Office, ports: PortManager
) -> None:
    first = ports.get_mapping(SERVER, Transport.UDP, PortType.SIP, PHONE)
    office.wait(3000)
    assert ports.get_mapping(OTHER, Transport.UDP, PortType.SIP, PHONE) == first
    assert office.pinholes(PHONE)[0].remotes == (OTHER, SERVER)
    office.wait(3000)
    assert len(office.table) == 1


def test_mappings_end_unless_they_are_renewed(office: Office) -> None:
    ports = office.port_manager(lifetime=60)
    rtp = ports.get_mapping(SERVER, Transport.UDP, PortType.RTP, MEDIA)
    ports.update_remote_address(rtp, OTHER)
    office.wait(50)
    assert ports.renew() == {}
    assert office.pinholes(MEDIA)[0].remotes == office.pinholes(RTCP)[0].remotes == (OTHER,)
    office.wait(50)
    assert len(office.table) == 2
    office.wait(10)
    assert len(office.table) == 0


def test_what_the_gateway_has_forgotten_is_got_again_and_may_be_another(office: Office) -> None:
    ports = office.port_manager(lifetime=60)
    sip = ports.get_mapping(SERVER, Transport.UDP, PortType.SIP, PHONE)
    rtp = ports.get_mapping(SERVER, Transport.UDP, PortType.RTP, MEDIA)
    for seconds in (60, QUARANTINE):
        office.wait(seconds)
    thief = PortManager(office.command.answer, "10.0.0.21")
    thief.get_mapping(None, Transport.UDP, PortType.RTP, Endpoint("10.0.0.21", MEDIA.port))
    became = ports.renew()
    assert sip not in became and set(became) == {rtp, Mapping(RTCP, Endpoint(EXTERNAL, 4001))}
    assert office.mappings()[str(MEDIA)] == str(became[rtp].external)
    thief.close()
    ports.release_mapping(became[rtp])
    assert list(office.mappings()) == [str(PHONE)]


def test_two_clients_of_one_endpoint_release_it_one_after_the_other(office: Office) -> None:
    one, two = office.port_manager(name="one"), office.port_manager(name="two")
    first = one.get_mapping(SERVER, Transport.UDP, PortType.SIP, PHONE)
    second = two.get_mapping(SERVER, Transport.UDP, PortType.SIP, PHONE)
    assert first == second
    one.release_mapping(first)
    assert len(office.table) == 1
    two.release_mapping(second)
    assert len(office.table) == 0


def test_what_is_gone_may_be_released_again_but_not_updated(ports: PortManager) -> None:
    mapping = ports.get_mapping(SERVER, Transport.UDP, PortType.SIP, PHONE)
    ports.release_mapping(mapping)
    ports.release_mapping(mapping)
    with pytest.raises(NoMapping):
        ports.update_remote_address(mapping, OTHER)


def test_leaving_gives_all_back_even_after_an_error(office: Office) -> None:
    with pytest.raises(KeyError), office.port_manager() as ports:
        ports.get_mapping(SERVER, Transport.UDP, PortType.SIP)
        ports.get_mapping(SERVER, Transport.UDP, PortType.RTP)
        raise KeyError
    assert len(office.table) == 0


@pytest.mark.parametrize(
    ("transport", "port_type", "internal", "error"),
    [
        ("sctp", PortType.SIP, PHONE, UnsupportedTransport),
        (Transport.TLS, PortType.RTP, MEDIA, UnsupportedTransport),
        (Transport.UDP, PortType.SIP, Endpoint("10.0.0.1", 5060), NotAuthorized),
        (Transport.UDP, PortType.SIP, Endpoint(HOST, 80), NotAuthorized),
        (Transport.UDP, PortType.SIP, Endpoint(HOST, 0), InvalidEndpoint),
        (Transport.UDP, PortType.SIP, Endpoint("224.0.0.1", 5060), InvalidEndpoint),
        (Transport.UDP, PortType.SIP, Endpoint("fd00::20", 5060), InvalidEndpoint),
    ],
)
def test_errors_are_named(
    office: Office,
    ports: PortManager,
    transport: Transport,
    port_type: PortType,
    internal: Endpoint,
    error: type[Refused],
) -> None:
    with pytest.raises(error):
        ports.get_mapping(SERVER, transport, port_type, internal)
    assert len(office.table) == 0


def test_a_mapping_has_so_many_remotes_the_latest_ones(office: Office, ports: PortManager) -> None:
    remotes = [Endpoint("203.0.113.10", 5060 + number) for number in range(MAX_REMOTES + 1)]
    for remote in remotes:
        ports.get_mapping(remote, Transport.UDP, PortType.SIP, PHONE)
    assert office.pinholes(PHONE)[0].remotes == tuple(reversed(remotes[1:]))


def test_a_quota_and_a_full_kernel_are_named_too() -> None:
    office = Office(Behavior(max_mappings_per_host=1))
    ports = office.port_manager()
    with pytest.raises(NoResources):
        ports.get_mapping(SERVER, Transport.UDP, PortType.RTP, MEDIA)
    office.is_kernel_full = True
    with pytest.raises(GatewayFailed):
        ports.get_mapping(SERVER, Transport.UDP, PortType.SIP, PHONE)
    assert len(office.table) == 0


def test_each_refusal_has_a_code_of_its_own() -> None:
    assert REFUSALS[CannotProvideExternal.code] is CannotProvideExternal
    assert len(REFUSALS) == len(Refused.__subclasses__())
