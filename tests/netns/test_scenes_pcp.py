"""PCP and NAT-PMP through the running gateway: Debian's natpmpc, a client of our own, packets."""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from alg.port_manager import natpmp, pcp
from alg.port_manager.pcp import Opcode, Options, PortSet, Request, Response, Result
from nat_table.binding import Permit
from nat_table.endpoint import TCP, Endpoint
from tests.lab.agents import wait_until
from tests.lab.gateway import Gateway
from tests.lab.network import (
    EXTERNAL,
    EXTERNAL6,
    EXTERNAL_INTERFACE,
    INTERNAL_INTERFACE,
    LAN_ROUTED6,
    LAN_ROUTER,
    PHONE_1,
    PHONE_2,
    REMOTE_1,
    REMOTE_2,
    SERVER,
    SERVER6,
    STATEFUL_FIREWALL6,
    Network,
)
from tests.netns.kernel import Peer
from tests.netns.pcp_client import (
    NONCE,
    SILENCE,
    PcpClient,
    external_of,
    heard,
    listen_for_news,
)

pytestmark = [pytest.mark.netns, pytest.mark.timeout(60)]

NEW_EXTERNAL = "203.0.113.2"
WITHIN_PORTS = (
    f'oifname "{EXTERNAL_INTERFACE}" ip saddr {PHONE_1} udp sport 4000 masquerade to :20000-30000'
)
ARRIVAL = 0.5
DROPPING = """
table inet filter {
    chain input {
        type filter hook input priority filter; policy drop;
    }
}
"""


@pytest.fixture
def client(network: Network, gateway: Gateway) -> Iterator[PcpClient]:
    """Yields a client on the first phone; the gateway runs."""
    with PcpClient(network.lan, PHONE_1, LAN_ROUTER) as client:
        yield client


def natpmpc(network: Network, *arguments: str) -> str:
    """Returns what Debian's natpmpc prints, run on the phones' host."""
    return network.lan.run("natpmpc", "-g", LAN_ROUTER, *arguments)


def test_natpmpc_maps_lists_and_unmaps(
    network: Network, gateway: Gateway, peers: dict[str, Peer]
) -> None:
    assert f"Public IP address : {EXTERNAL}" in natpmpc(network)
    told = natpmpc(network, "-a", "7000", "4000", "udp", "300")
    assert "Mapped public port 7000 protocol UDP to local port 4000 liftime 300" in told
    (row,) = gateway.show_mappings()
    assert (row["source"], row["external"]) == ("nat-pmp", f"{EXTERNAL}:7000")
    phone, _, _ = str(row["internal"]).partition(":")
    assert reaches(peers[SERVER], Endpoint(EXTERNAL, 7000), peers[phone])

    assert "liftime 0" in natpmpc(network, "-a", "0", "4000", "udp", "0")
    assert gateway.show_mappings() == []
    assert not reaches(peers[REMOTE_1], Endpoint(EXTERNAL, 7000), peers[phone])

    for port in ("4000", "4002"):
        natpmpc(network, "-a", port, port, "tcp", "300")
    assert len(gateway.show_mappings()) == 2
    natpmpc(network, "-a", "0", "0", "tcp", "0")
    assert gateway.show_mappings() == []


def test_what_map_gives_lets_packets_in_and_out(
    client: PcpClient, gateway: Gateway, peers: dict[str, Peer]
) -> None:
    external = external_of(client.map(4000, external=7000))
    assert external == Endpoint(EXTERNAL, 7000)
    (row,) = gateway.show_mappings()
    assert (row["kind"], row["source"], row["state"]) == ("any", "pcp", "leased")
    assert reaches(peers[SERVER], external, peers[PHONE_1])
    assert reaches(peers[PHONE_1], Endpoint(REMOTE_1, 7000), peers[REMOTE_1]) == external
    assert client.map(4000, nonce=bytes(12), lifetime=0).result is Result.NOT_AUTHORIZED
    assert client.map(4000, lifetime=0).result is Result.SUCCESS
    assert not reaches(peers[REMOTE_2], external, peers[PHONE_1])


def test_what_listens_for_connections_is_connected_to(network: Network, client: PcpClient) -> None:
    with network.lan.tcp_socket(PHONE_1, 8080) as listener:
        listener.listen()
        listener.settimeout(2.0)
        external = external_of(client.map(8080, protocol=TCP.value, external=7000))
        with network.wan.tcp_socket(SERVER) as caller:
            caller.settimeout(2.0)
            caller.connect(external)
            connection, source = listener.accept()
            with connection:
                assert source == caller.getsockname()
        client.map(8080, protocol=TCP.value, lifetime=0)
        with network.wan.tcp_socket(SERVER) as caller:
            caller.settimeout(0.5)
            with pytest.raises(OSError):
                caller.connect(external)


def test_peer_keeps_the_port_that_the_flow_has(
    network: Network, client: PcpClient, gateway: Gateway, peers: dict[str, Peer]
) -> None:
    phone, server = peers[PHONE_1], peers[SERVER]
    # Left to itself, masquerade may draw a port that is not one of `ports`.
    network.router.run("nft", "insert rule ip home_router postrouting", WITHIN_PORTS)
    peers[PHONE_2].send(b"first", SERVER, 5060)
    taken = server.expect(b"first")
    phone.send(b"mine", SERVER, 5060)
    mine = server.expect(b"mine")
    assert taken.port == 4000 != mine.port
    assert external_of(client.peer(4000, Endpoint(SERVER, 5060))) == mine
    assert reaches(server, mine, phone)
    assert reaches(phone, Endpoint(SERVER, 5060), server) == mine


def test_only_the_internal_side_is_answered_and_from_where_it_asked(
    network: Network, client: PcpClient
) -> None:
    announce = Request(Opcode.ANNOUNCE, SERVER)
    with PcpClient(network.wan, SERVER, EXTERNAL) as outside:
        assert outside.send(pcp.encode_request(announce), SILENCE) is None
        assert outside.send(b"\0\0", SILENCE) is None
    network.add_address(network.router, INTERNAL_INTERFACE, "10.0.0.2")
    for router in ("10.0.0.2", EXTERNAL):
        with PcpClient(network.lan, PHONE_1, router) as inside:
            assert inside.epoch() >= 0  # it insists on an answer from there
    with PcpClient(network.lan, PHONE_2, "10.0.0.255") as crier:
        crier.allow_broadcast()
        assert crier.send(b"\0\0", SILENCE) is None


def test_what_is_wrong_has_its_code_or_no_answer_and_opens_nothing(
    client: PcpClient, gateway: Gateway
) -> None:
    body = pcp.Body(NONCE, 17, 4000, Endpoint("0.0.0.0", 0))
    good = pcp.encode_request(Request(Opcode.MAP, PHONE_2, 600, body))
    for data, result in (
        (good, Result.ADDRESS_MISMATCH),
        (b"\1" + good[1:], Result.UNSUPP_VERSION),
        (b"\2\5" + good[2:], Result.UNSUPP_OPCODE),
        (good[:-2], Result.MALFORMED_REQUEST),
        (good[:3], Result.MALFORMED_REQUEST),
        (good + bytes(2000), Result.MALFORMED_REQUEST),
        (good + b"\5\0\0\0", Result.UNSUPP_OPTION),
        (good + b"\2\0\0\4", Result.MALFORMED_OPTION),
    ):
        answer = client.send(data)
        assert answer is not None
        assert (answer[0], answer[3]) == (pcp.VERSION, result)
    for data in (b"", b"\2", b"\2\x81" + good[2:], b"\0", b"\0\x80", b"\0\1" + bytes(9)):
        assert client.send(data, SILENCE) is None
    assert client.send(b"\0\x05") == b"\0\x85\0\5" + client.epoch().to_bytes(4, "big")
    assert gateway.show_mappings() == []
    assert gateway.is_running


@pytest.mark.configured(max_requests_per_host=5)
def test_who_asks_too_often_is_not_answered(client: PcpClient) -> None:
    answers = [client.send(b"\0\0", 0.02) for _ in range(20)]
    assert 5 <= sum(answer is not None for answer in answers) <= 10
    assert wait_until(lambda: client.send(b"\0\0", 0.1) is not None, 3.0)


def test_a_busy_port_costs_the_protocol_alone(network: Network) -> None:
    with network.router.udp_socket(LAN_ROUTER, pcp.SERVER_PORT), Gateway(network.router) as gateway:
        said = [line for line in gateway.log if "PCP" in line]
        assert said == [
            "sipnat: PCP and NAT-PMP is not served: another program has UDP port 5351 of lan0"
        ]


@pytest.mark.configured(pcp=False)
def test_switched_off_nobody_listens(client: PcpClient) -> None:
    with pytest.raises(ConnectionRefusedError):
        client.connect_and_send(b"\0\0")


def test_a_router_that_drops_what_is_for_itself_needs_one_rule(
    network: Network, client: PcpClient
) -> None:
    network.router.run("nft", "-f", "-", text=DROPPING)
    assert client.send(b"\0\0", SILENCE) is None
    network.router.run("nft", "add rule inet filter input iifname lan0 udp dport 5351 accept")
    assert client.send(b"\0\0") is not None


def test_an_internal_interface_that_is_made_anew_is_served(
    network: Network, client: PcpClient
) -> None:
    client.map(4000)
    network.remake_internal()
    with PcpClient(network.lan, PHONE_1, LAN_ROUTER) as again:
        assert again.map(4000).result is Result.SUCCESS


def test_an_address_that_is_not_behind_the_router_gets_nothing(
    network: Network, gateway: Gateway
) -> None:
    network.add_address(network.lan, "eth0", "192.0.2.77")
    with PcpClient(network.lan, "192.0.2.77", LAN_ROUTER) as client:
        body = pcp.Body(NONCE, 17, 4000, Endpoint("0.0.0.0", 0))
        asking = Request(Opcode.MAP, "192.0.2.77", 600, body)
        assert client.send(pcp.encode_request(asking), SILENCE) is None
        assert client.send(b"\0\1" + bytes.fromhex("0000 0fa0 0000 00000e10"), SILENCE) is None
    assert gateway.show_mappings() == []


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_after_a_restart_clients_go_on_as_if_nothing_had_been(
    client: PcpClient, gateway: Gateway, peers: dict[str, Peer], end: signal.Signals
) -> None:
    external = external_of(client.map(4000, external=7000))
    assert wait_until(lambda: client.epoch() >= 1, 3.0)  # saved meanwhile, too
    if end == signal.SIGTERM:
        gateway.stop()
    else:
        gateway.kill()
    assert reaches(peers[SERVER], external, peers[PHONE_1])
    gateway.start()
    assert client.epoch() >= 1
    assert client.map(4000, nonce=bytes(12)).result is Result.NOT_AUTHORIZED
    assert external_of(client.map(4000)) == external


def test_a_lease_that_the_store_has_not_learned_of_is_lost_to_the_client_too(
    gateway: Gateway, client: PcpClient
) -> None:
    external = external_of(client.map(4000, external=7000))
    assert wait_until(lambda: client.epoch() >= 2, 4.0)
    gateway.stop()
    with closing(sqlite3.connect(gateway.store, isolation_level=None)) as stored:
        stored.execute("DELETE FROM state WHERE kind = ?", (b"mapping",))
    gateway.start()
    assert client.epoch() < 2
    assert external_of(client.map(4000, nonce=bytes(12))) == external


def test_a_cold_start_is_announced_and_begins_anew(
    network: Network, gateway: Gateway, client: PcpClient
) -> None:
    assert wait_until(lambda: client.epoch() >= 1, 3.0)
    gateway.stop()
    gateway.configure(store="")
    with listen_for_news(network.lan, PHONE_1, "eth0") as news:
        gateway.start()
        first, second = heard(news, 2)
    announced = Response(Opcode.ANNOUNCE, Result.SUCCESS, 0, 0)
    assert pcp.parse_response(first) == announced
    told = natpmp.Response(natpmp.Opcode.ADDRESS, natpmp.Result.SUCCESS, 0, EXTERNAL)
    assert natpmp.parse_response(second) == told


def test_an_address_that_changed_while_the_gateway_was_down_is_told(
    network: Network, gateway: Gateway, client: PcpClient
) -> None:
    client.map(4000, external=7000)
    gateway.stop()
    network.replace_external(NEW_EXTERNAL)
    with listen_for_news(network.lan, PHONE_1, "eth0") as news:
        gateway.start()
        *_, update = heard(news, 3)
    assert external_of(pcp.parse_response(update)) == Endpoint(NEW_EXTERNAL, 7000)


def test_another_external_address_is_told_to_all_and_each_what_it_has(
    network: Network, gateway: Gateway, client: PcpClient, peers: dict[str, Peer]
) -> None:
    external_of(client.map(4000, external=7000))
    assert wait_until(lambda: client.epoch() >= 2, 4.0)
    with listen_for_news(network.lan, PHONE_1, "eth0") as news:
        network.replace_external(NEW_EXTERNAL)
        assert wait_until(lambda: NEW_EXTERNAL in str(gateway.show_mappings()), 3.0)
        seen = heard(news, 9)
    told = [natpmp.parse_response(data) for data in seen if data[0] == natpmp.VERSION]
    assert {each.address for each in told if each.epoch < 2} == {NEW_EXTERNAL}
    fresh = [
        each
        for data in seen
        if data[0] == pcp.VERSION
        if (each := pcp.parse_response(data)).epoch < 2
    ]
    assert {each.opcode for each in fresh} == {Opcode.ANNOUNCE, Opcode.MAP}
    bodies = {each.body for each in fresh if each.body is not None}
    moved = Endpoint(NEW_EXTERNAL, 7000)
    assert bodies == {pcp.Body(NONCE, 17, 4000, moved)}
    assert reaches(peers[SERVER], moved, peers[PHONE_1])


@pytest.mark.configured(secure_mode=False)
def test_a_third_party_is_mapped_where_that_is_allowed(
    client: PcpClient, peers: dict[str, Peer]
) -> None:
    external = external_of(client.map(4000, options=Options(PHONE_2)))
    assert reaches(peers[SERVER], external, peers[PHONE_2])
    refused = client.map(4000, options=Options(LAN_ROUTER))
    assert refused.result is Result.NOT_AUTHORIZED


def test_a_pair_of_ports_has_one_behind_the_other(
    network: Network, client: PcpClient, gateway: Gateway, peers: dict[str, Peer]
) -> None:
    client.map(4000, nonce=bytes(12), protocol=TCP.value)
    wish = Options(port_set=PortSet(2, 4000, True))
    given = client.map(4000, options=wish)
    address, port = external_of(given)
    assert given.options == wish
    assert reaches(peers[SERVER], Endpoint(address, port), peers[PHONE_1])
    with network.lan.udp_socket(PHONE_1, 4001) as second:
        assert reaches(peers[SERVER], Endpoint(address, port + 1), Peer(second))
    client.map(4000, options=wish, lifetime=0)
    assert len(gateway.show_mappings()) == 1


@pytest.mark.parametrize("permit", [f"{SERVER}/32", "203.0.113.8/30", "0.0.0.0/0"])
def test_a_filter_lets_in_whom_it_names(
    client: PcpClient, peers: dict[str, Peer], permit: str
) -> None:
    wish = Options(filters=(Permit(permit, 5060),))
    external = external_of(client.map(4000, options=wish))
    assert reaches(peers[SERVER], external, peers[PHONE_1])
    assert not reaches(peers[REMOTE_1], external, peers[PHONE_1])
    more = Options(filters=(Permit(f"{REMOTE_1}/32"),))
    assert external_of(client.map(4000, options=more)) == external
    assert reaches(peers[REMOTE_1], external, peers[PHONE_1])
    assert not reaches(peers[REMOTE_2], external, peers[PHONE_1])
    client.map(4000, options=Options(filters=(Permit(),)))
    assert reaches(peers[REMOTE_2], external, peers[PHONE_1])


def test_over_ipv6_a_port_is_opened_where_it_is() -> None:
    phone = f"{LAN_ROUTED6}20"
    with (
        Network(lan6=LAN_ROUTED6) as network,
        listen_for_news(network.lan, phone, "eth0") as news,
        Gateway(network.router) as gateway,
    ):
        (told,) = heard(news, 1)
        assert pcp.parse_response(told).opcode is Opcode.ANNOUNCE
        network.router.run("nft", "-f", "-", text=STATEFUL_FIREWALL6)
        inside = Peer(network.lan.udp_socket(phone, 4000))
        outside = Peer(network.wan.udp_socket(SERVER6, 6000))
        with inside.udp, outside.udp:
            assert not reaches(outside, Endpoint(phone, 4000), inside)
            with PcpClient(network.lan, phone, f"{LAN_ROUTED6}1") as client:
                assert external_of(client.map(4000)) == Endpoint(phone, 4000)
                assert reaches(outside, Endpoint(phone, 4000), inside)
                client.map(4000, lifetime=0)
            assert gateway.show_mappings() == []
            with PcpClient(network.wan, SERVER6, EXTERNAL6) as stranger:
                request = Request(Opcode.ANNOUNCE, SERVER6)
                assert stranger.send(pcp.encode_request(request), SILENCE) is None


def reaches(sender: Peer, to: Endpoint, receiver: Peer) -> Endpoint | None:
    """Sends a packet; returns where it seems to come from, None where it does not arrive."""
    payload = f"to {to}".encode()
    sender.send(payload, *to)
    receiver.udp.settimeout(ARRIVAL)
    try:
        return receiver.expect(payload)
    except TimeoutError:
        return None
