"""New SIP connections come to the relay's port, and both ends see each other as through a NAT."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace
from socket import IPPROTO_SCTP

import pytest
from scapy.layers.inet import IP
from scapy.layers.sctp import SCTP, SCTPChunkInit

from nat_table.behavior import Filtering
from nat_table.binding import Kind
from nat_table.changes import Admitted, Closed
from nat_table.endpoint import Endpoint, Transport
from rules.backend import KernelBackend, Refusal
from tests.lab.network import (
    EXTERNAL,
    EXTERNAL_INTERFACE,
    INTERNAL_INTERFACE,
    LAN_ROUTER,
    PHONE_1,
    PHONE_2,
    REMOTE_1,
    SERVER,
    STRANGER,
    Network,
)
from tests.netns.connections import (
    RELAY,
    SETTINGS,
    TIMEOUT,
    accepted,
    check_passes,
    check_refused,
    check_silent,
    connected,
    listening,
    opened_tcp,
)
from tests.netns.kernel import POOL_PORT, counted, install

pytestmark = pytest.mark.netns

SIP_SERVER = Endpoint(SERVER, 5060)
FROM_PHONE = Endpoint(PHONE_1, 40000)
FROM_OTHER_PHONE = Endpoint(PHONE_2, 40000)
FROM_SERVER = Endpoint(SERVER, 50000)
PHONE = Endpoint(PHONE_1, 5060)
CONTACT = Endpoint(EXTERNAL, POOL_PORT)


@pytest.fixture
def server(network: Network) -> Iterator[socket.socket]:
    with listening(network.wan, SIP_SERVER) as listener:
        yield listener


@pytest.fixture
def phone(network: Network) -> Iterator[socket.socket]:
    with listening(network.lan, PHONE) as listener:
        yield listener


def test_A69_connection_to_a_server_is_relayed_and_the_server_sees_the_mapping(
    network: Network, diverting: KernelBackend, relay: socket.socket, server: socket.socket
) -> None:
    mapping = opened_tcp(POOL_PORT, port=FROM_PHONE.port)
    with (
        connected(network.lan, FROM_PHONE, SIP_SERVER) as calling,
        accepted(relay, SIP_SERVER, FROM_PHONE) as near,
    ):
        assert counted(diverting) == {"diverted": 1, "answered": 1}
        check_passes(calling, near)
        diverting.commit([mapping])
        with (
            connected(network.router, CONTACT, SIP_SERVER, is_transparent=True) as far,
            accepted(server, SIP_SERVER, CONTACT) as called,
        ):
            check_passes(calling, near)
            check_passes(far, called)
            network.router.run("conntrack", "-F")
            check_passes(called, far)
            check_passes(calling, near)
            diverting.commit([Closed(mapping.binding, (mapping.pinhole,))])
            check_passes(far, called)


def test_A69_masquerade_that_draws_ports_at_random_leaves_the_relays_source_alone(
    network: Network, diverting: KernelBackend, server: socket.socket
) -> None:
    network.router.run("nft", "flush chain ip home_router postrouting")
    rule = f'ip home_router postrouting oifname "{EXTERNAL_INTERFACE}" masquerade fully-random'
    network.router.run("nft", f"add rule {rule}")
    diverting.commit([opened_tcp(POOL_PORT)])
    with (
        connected(network.router, CONTACT, SIP_SERVER, is_transparent=True),
        accepted(server, SIP_SERVER, CONTACT),
    ):
        pass


def test_A69_connection_to_a_mapping_is_relayed_and_the_phone_sees_the_server(
    network: Network, diverting: KernelBackend, relay: socket.socket, phone: socket.socket
) -> None:
    mapping = opened_tcp(POOL_PORT)
    diverting.commit([mapping, Admitted(mapping.binding, SERVER)])
    with (
        connected(network.wan, FROM_SERVER, CONTACT) as calling,
        accepted(relay, CONTACT, FROM_SERVER) as far,
        connected(network.router, FROM_SERVER, PHONE, is_transparent=True) as near,
        accepted(phone, PHONE, FROM_SERVER) as called,
    ):
        assert counted(diverting) == {"diverted": 1, "answered": 1}
        check_passes(calling, far)
        check_passes(near, called)
        network.router.run("conntrack", "-F")
        check_passes(called, near)
        check_passes(calling, far)


def test_A57_phone_reaches_another_by_its_mapping(
    network: Network, diverting: KernelBackend, relay: socket.socket, phone: socket.socket
) -> None:
    diverting.commit([opened_tcp(POOL_PORT)])
    own = Endpoint(EXTERNAL, POOL_PORT + 1)
    with (
        connected(network.lan, FROM_OTHER_PHONE, CONTACT) as calling,
        accepted(relay, CONTACT, FROM_OTHER_PHONE) as near,
        connected(network.router, own, PHONE, is_transparent=True) as far,
        accepted(phone, PHONE, own) as called,
    ):
        check_passes(calling, near)
        check_passes(called, far)


def test_A69_mapping_wins_over_a_port_forward_but_not_over_a_redirected_server(
    network: Network, diverting: KernelBackend, relay: socket.socket
) -> None:
    """A server that the admin has put on the LAN is none that the ALG has to do with."""
    chain = "type nat hook prerouting priority dstnat;"
    forward = f'iifname "{EXTERNAL_INTERFACE}" tcp dport {POOL_PORT} dnat to {PHONE_2}:5060'
    redirect = f"ip daddr {REMOTE_1} tcp dport 5060 dnat to {PHONE_2}:5060"
    network.router.run(
        "nft", f"table ip admin {{ chain forwards {{ {chain} {forward}; {redirect}; }}; }}"
    )
    mapping = opened_tcp(POOL_PORT)
    diverting.commit([mapping, Admitted(mapping.binding, SERVER)])
    with (
        connected(network.wan, FROM_SERVER, CONTACT) as calling,
        accepted(relay, CONTACT, FROM_SERVER) as far,
    ):
        check_passes(calling, far)
    network.router.run("nft", "add rule ip home_router postrouting ct status dnat masquerade")
    with (
        listening(network.lan, Endpoint(PHONE_2, 5060)) as local_server,
        connected(network.lan, FROM_PHONE, Endpoint(REMOTE_1, 5060)) as calling,
        local_server.accept()[0] as called,
    ):
        check_passes(calling, called)


@pytest.mark.parametrize("is_released", [False, True])
def test_A74_without_a_relay_connections_pass_and_go_on_beside_it(
    network: Network,
    diverting: KernelBackend,
    server: socket.socket,
    phone: socket.socket,
    is_released: bool,
) -> None:
    mapping = opened_tcp(POOL_PORT)
    diverting.commit([mapping, Admitted(mapping.binding, SERVER)])
    if is_released:
        network.router.call(diverting.release_capture)
    with (
        connected(network.lan, FROM_PHONE, SIP_SERVER) as out,
        accepted(server, SIP_SERVER, Endpoint(EXTERNAL, FROM_PHONE.port)) as answering,
        connected(network.wan, FROM_SERVER, CONTACT) as calling,
        accepted(phone, PHONE, FROM_SERVER) as called,
    ):
        check_silent(network.wan, Endpoint(STRANGER, 50000), CONTACT)
        network.router.call(diverting.install)
        with listening(network.router, RELAY, is_transparent=True) as relay:
            check_passes(out, answering)
            check_passes(calling, called)
            with (
                connected(network.lan, FROM_OTHER_PHONE, SIP_SERVER) as diverted,
                accepted(relay, SIP_SERVER, FROM_OTHER_PHONE) as near,
            ):
                check_passes(diverted, near)
                diverting.commit([opened_tcp(POOL_PORT + 1, port=FROM_PHONE.port)])
                check_passes(out, answering)


def test_A74_hold_drops_new_connections_while_nobody_listens(
    network: Network, server: socket.socket, phone: socket.socket
) -> None:
    backend = install(network, replace(SETTINGS, is_fail_open=False))
    mapping = opened_tcp(POOL_PORT)
    backend.commit([mapping, Admitted(mapping.binding, SERVER)])
    check_silent(network.lan, FROM_PHONE, SIP_SERVER)
    check_silent(network.wan, FROM_SERVER, CONTACT)
    network.router.call(backend.release_capture)
    with (
        connected(network.lan, FROM_OTHER_PHONE, SIP_SERVER),
        accepted(server, SIP_SERVER, Endpoint(EXTERNAL, FROM_OTHER_PHONE.port)),
    ):
        pass


def test_A69_release_keeps_the_relays_connections(
    network: Network, diverting: KernelBackend, relay: socket.socket
) -> None:
    with (
        connected(network.lan, FROM_PHONE, SIP_SERVER) as calling,
        accepted(relay, SIP_SERVER, FROM_PHONE) as near,
    ):
        network.router.call(diverting.release_capture)
        check_passes(calling, near)
        network.router.call(diverting.release_capture)
        assert "tproxy" not in network.ruleset()


def test_A22_only_connections_that_leave_for_a_server_are_relayed(
    network: Network, relay: socket.socket
) -> None:
    """Not to other ports, the router itself, networks that are reached without NAT, or the LAN."""
    install(network, replace(SETTINGS, routed=("203.0.113.11/32",)))
    for target in (
        Endpoint(SERVER, 5061),
        Endpoint(EXTERNAL, 5060),
        Endpoint(LAN_ROUTER, 5060),
        Endpoint(REMOTE_1, 5060),
        CONTACT,
    ):
        check_refused(network.lan, FROM_PHONE, target)
    check_refused(network.router, Endpoint(EXTERNAL, 40000), SIP_SERVER)


def test_A86_unmapped_port_is_refused_by_the_router(network: Network, relay: socket.socket) -> None:
    install(network, SETTINGS)
    for port in (5060, POOL_PORT):
        check_refused(network.wan, FROM_SERVER, Endpoint(EXTERNAL, port))


def test_A86_stranger_is_kept_out_and_listed_by_the_external_endpoint(
    network: Network, diverting: KernelBackend, relay: socket.socket
) -> None:
    mapping = opened_tcp(POOL_PORT)
    diverting.commit([mapping, Admitted(mapping.binding, SERVER)])
    check_silent(network.wan, Endpoint(STRANGER, 50000), CONTACT)
    assert diverting.refused() == [Refusal(STRANGER, Transport.TCP, CONTACT)]
    assert counted(diverting) == {"refused_signalling": 1}


def test_A86_servers_and_an_open_filter_admit(network: Network, relay: socket.socket) -> None:
    backend = install(network, replace(SETTINGS, servers=(SERVER,)))
    backend.commit([opened_tcp(POOL_PORT)])
    with (
        connected(network.wan, FROM_SERVER, CONTACT),
        accepted(relay, CONTACT, FROM_SERVER),
    ):
        pass
    install(network, replace(SETTINGS, signalling_filter=Filtering.ENDPOINT_INDEPENDENT))
    stranger = Endpoint(STRANGER, 50000)
    with connected(network.wan, stranger, CONTACT), accepted(relay, CONTACT, stranger):
        pass


def test_A77_one_source_may_not_flood_with_connections(
    network: Network, relay: socket.socket
) -> None:
    backend = install(network, replace(SETTINGS, flood_rate=1))
    mapping = opened_tcp(POOL_PORT)
    backend.commit([mapping, Admitted(mapping.binding, SERVER)])
    with connected(network.wan, FROM_SERVER, CONTACT):
        check_silent(network.wan, Endpoint(SERVER, 50001), CONTACT)
    assert counted(backend) == {"diverted": 1, "answered": 1, "flooded": 1}


def test_A53_media_over_tcp_is_the_kernels_own_nat(
    network: Network, diverting: KernelBackend, relay: socket.socket
) -> None:
    diverting.commit([opened_tcp(POOL_PORT, port=9000, kind=Kind.RTP)])
    with (
        listening(network.lan, Endpoint(PHONE_1, 9000)) as passive,
        connected(network.wan, FROM_SERVER, CONTACT) as calling,
        accepted(passive, Endpoint(PHONE_1, 9000), FROM_SERVER) as called,
    ):
        check_passes(calling, called)


def test_A57_media_over_tcp_reaches_another_phone_by_its_mapping(
    network: Network, diverting: KernelBackend
) -> None:
    """The sender, being active, has no mapping of its own (RFC 4145)."""
    diverting.commit([opened_tcp(POOL_PORT, port=9000, kind=Kind.RTP)])
    with (
        listening(network.lan, Endpoint(PHONE_1, 9000)) as passive,
        connected(network.lan, FROM_OTHER_PHONE, CONTACT) as calling,
        passive.accept()[0] as called,
    ):
        assert called.getpeername()[0] == EXTERNAL
        check_passes(calling, called)


def test_A88_tls_and_other_transports_are_counted_and_pass(
    network: Network, diverting: KernelBackend
) -> None:
    secure = Endpoint(SERVER, 5061)
    with (
        listening(network.wan, secure) as listener,
        connected(network.lan, FROM_PHONE, secure) as calling,
        accepted(listener, secure, Endpoint(EXTERNAL, FROM_PHONE.port)) as called,
    ):
        check_passes(calling, called)
    with (
        network.wan.udp_socket(*secure) as far,
        network.lan.udp_socket(*FROM_PHONE) as near,
    ):
        near.sendto(b"\x16\xfe\xfd", secure)
        assert far.recv(64) == b"\x16\xfe\xfd"
    assert counted(diverting) == {"tls": 2}


def test_A88_sctp_is_counted_and_passes(network: Network, diverting: KernelBackend) -> None:
    ports = SCTP(sport=FROM_PHONE.port, dport=5060)
    packet = IP(src=PHONE_1, dst=SERVER) / ports / SCTPChunkInit(init_tag=1, n_out_streams=1)
    with (
        network.wan.call(lambda: sniffing(IPPROTO_SCTP)) as far,
        network.lan.call(lambda: sniffing(IPPROTO_SCTP)) as near,
    ):
        near.sendto(bytes(packet[SCTP]), (SERVER, 0))
        assert bytes(packet[SCTPChunkInit]) in far.recv(256)
    assert counted(diverting) == {"other_transports": 1}


def sniffing(protocol: int) -> socket.socket:
    """Returns a socket for whole packets of an IP protocol."""
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol)
    raw.settimeout(TIMEOUT)
    return raw


@pytest.mark.parametrize("setting", ["rp_filter", "src_valid_mark"])
def test_A69_strict_searches_for_the_way_back_do_not_stop_the_relay(
    network: Network, diverting: KernelBackend, relay: socket.socket, setting: str
) -> None:
    for interface in ("all", INTERNAL_INTERFACE, EXTERNAL_INTERFACE):
        network.router.set_sysctl(f"net.ipv4.conf.{interface}.rp_filter", "1")
        if setting == "src_valid_mark":
            network.router.set_sysctl(f"net.ipv4.conf.{interface}.src_valid_mark", "1")
    with (
        connected(network.lan, FROM_PHONE, SIP_SERVER) as calling,
        accepted(relay, SIP_SERVER, FROM_PHONE) as near,
    ):
        check_passes(calling, near)
