"""SIP over TCP through the real gateway: what both ends see, and what opens nothing.

Everything is real but the people: sockets, TPROXY, the process. The relay on its own is tested in
tests/alg/io, the rules in test_kernel_tcp.py.
"""

from __future__ import annotations

import os
import signal
import time

import pytest

from nat_table.endpoint import Endpoint
from tests.lab.agents import wait_until
from tests.lab.gateway import Gateway
from tests.lab.message import uri_endpoint, via_sent_by
from tests.lab.network import EXTERNAL, PHONE_1, PHONE_2, REMOTE_1, SERVER, Network
from tests.lab.sdp import media_endpoint, render_sdp
from tests.netns.connections import check_refused, connected, listening, tcp_socket
from tests.netns.streams import (
    CONTACT,
    PHONE,
    PROXY,
    Line,
    Stream,
    answer,
    call_in,
    connect,
    register,
    request,
)

pytestmark = [pytest.mark.netns, pytest.mark.timeout(90)]

CALLER = Endpoint(SERVER, 33333)
TLS = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"


def test_both_ends_see_each_other_as_through_a_nat(network: Network, gateway: Gateway) -> None:
    with connect(network) as line:
        assert line.server.peer == Endpoint(EXTERNAL, PHONE.port)
        assert line.phone.peer == PROXY
        asked, answered = line.exchange()
        assert via_sent_by(asked["Via"]) == line.server.peer
        assert uri_endpoint(asked["Contact"].strip("<>")) == line.server.peer
        assert via_sent_by(answered["Via"]) == PHONE
        [row] = gateway.show_connections()
        assert row.pop("age", None) is not None
        assert row == {
            "phone": str(PHONE),
            "server": str(PROXY),
            "mapping": str(line.server.peer),
            "from_phone": 1,
            "to_phone": 1,
            "state": "sip",
        }
    assert wait_until(lambda: gateway.show_connections() == [], 5.0)


def test_two_phones_with_the_same_port_have_mappings_of_their_own(
    network: Network, gateway: Gateway
) -> None:
    with (
        connect(network) as one,
        connect(network, Endpoint(PHONE_2, PHONE.port)) as other,
    ):
        assert one.server.peer != other.server.peer
        for line in (one, other):
            asked, _ = line.exchange()
            assert via_sent_by(asked["Via"]) == line.server.peer


def test_a68_segments_do_not_matter(network: Network, gateway: Gateway) -> None:
    with connect(network) as line:
        for octet in request(PHONE):
            line.phone.send(bytes((octet,)))
        assert via_sent_by(line.server.expect()["Via"]) == line.server.peer
        line.phone.send(b"\r\n\r\n".join(request(PHONE, number) for number in range(50)))
        for number in range(50):
            assert line.server.expect()["CSeq"] == f"{number} OPTIONS"


def test_a_server_that_connects_to_the_contact_reaches_the_phone(
    network: Network, gateway: Gateway
) -> None:
    mapping = register(network)
    assert mapping == Endpoint(EXTERNAL, 5060)
    with call_in(network, CALLER, mapping, CONTACT) as line:
        assert line.phone.peer == CALLER
        line.server.send(request(CALLER, uri=f"sip:p@{mapping};transport=tcp"))
        asked = line.phone.expect()
        assert uri_endpoint(asked.uri) == CONTACT
        line.phone.send(answer(asked))
        line.server.expect()
        [row] = gateway.show_connections()
        assert (row["phone"], row["server"], row["mapping"]) == (
            str(CONTACT),
            str(CALLER),
            str(mapping),
        )
        assert (row["from_phone"], row["to_phone"]) == (1, 1)


def test_a13_a_phone_that_connects_to_anothers_mapping_comes_from_its_own(
    network: Network, gateway: Gateway
) -> None:
    mapping = register(network)
    with call_in(network, Endpoint(PHONE_2, 45001), mapping, CONTACT) as line:
        assert line.phone.peer == Endpoint(EXTERNAL, 45001)
        line.server.send(request(Endpoint(PHONE_2, 45001), uri=f"sip:p@{mapping};transport=tcp"))
        asked = line.phone.expect()
        assert uri_endpoint(asked.uri) == CONTACT
        assert via_sent_by(asked["Via"]) == Endpoint(EXTERNAL, 45001)


def test_an_unmapped_port_is_refused(network: Network, gateway: Gateway) -> None:
    register(network)
    check_refused(network.wan, CALLER, Endpoint(EXTERNAL, 5062))


def test_ends_and_resets_reach_the_other_side_as_what_they_are(
    network: Network, gateway: Gateway
) -> None:
    with connect(network) as line:
        line.exchange()
        line.phone.tcp.shutdown(1)
        assert line.server.is_at_end()
        line.server.send(b"\r\n")
        line.phone.expect_octets(b"\r\n")
        line.server.close()
        assert line.phone.is_at_end()
    for is_by_phone in (True, False):
        with connect(network, Endpoint(PHONE_1, 45010 + is_by_phone)) as line:
            line.exchange()
            one, other = (line.phone, line.server) if is_by_phone else (line.server, line.phone)
            reset(one)
            with pytest.raises(ConnectionResetError):
                other.is_at_end()


def test_a_server_that_does_not_listen_resets_the_phone(network: Network, gateway: Gateway) -> None:
    with tcp_socket(network.lan, PHONE) as phone, pytest.raises(ConnectionResetError):
        phone.connect(PROXY)
        phone.recv(1)
    assert wait_until(lambda: gateway.show_reasons()["unreachable"] == 1, 5)
    assert wait_until(lambda: gateway.show_mappings() == [], 5)


def test_a_phone_may_connect_anew_from_the_same_port_at_once(
    network: Network, gateway: Gateway
) -> None:
    with listening(network.wan, PROXY) as listener:
        for _ in range(3):
            with tcp_socket(network.lan, PHONE) as phone:
                phone.connect(PROXY)
                accepted, _ = listener.accept()
                with Stream(accepted) as server, Stream(phone) as stream:
                    stream.send(request(PHONE))
                    server.expect()
                    server.tcp.shutdown(1)
                    assert stream.is_at_end()
                    reset(stream)
                    time.sleep(0.1)


@pytest.mark.parametrize(
    "octets", [TLS, b"POST / HTTP/1.1\r\nContent-Length: 400\r\n\r\n"], ids=["tls", "web"]
)
def test_a81_a88_another_protocol_passes_as_it_is_and_opens_nothing(
    network: Network, gateway: Gateway, octets: bytes
) -> None:
    hostile = octets + request(PHONE, 1, "REGISTER", CONTACT)
    with connect(network) as line:
        line.phone.send(hostile)
        line.server.expect_octets(hostile)
        line.server.send(octets)
        line.phone.expect_octets(octets)
        [row] = gateway.show_connections()
        assert (row["state"], row["mapping"]) == ("opaque", None)
        assert gateway.show_mappings() == []
        check_refused(network.wan, CALLER, Endpoint(EXTERNAL, CONTACT.port))
        check_refused(network.wan, CALLER, Endpoint(EXTERNAL, PHONE.port))
    assert gateway.show_reasons()["opaque"] == 1


def test_a_call_over_tcp_has_media_mappings_as_any_other(
    network: Network, gateway: Gateway
) -> None:
    with connect(network) as line, network.lan.udp_socket(PHONE_1, 4000) as audio:
        offer = render_sdp(Endpoint(PHONE_1, 4000))
        line.phone.send(request(PHONE, 1, "INVITE", CONTACT, offer))
        asked = line.server.expect()
        media = media_endpoint(asked.body)
        assert media.address == EXTERNAL
        line.server.send(answer(asked, render_sdp(Endpoint(SERVER, 40000))))
        line.phone.expect()
        with network.wan.udp_socket(SERVER, 40000) as remote:
            remote.sendto(b"audio", media)
            audio.settimeout(5.0)
            assert audio.recvfrom(64) == (b"audio", (SERVER, 40000))
        assert {row["transport"] for row in gateway.show_mappings("rtp", "rtcp")} == {"udp"}


@pytest.mark.parametrize("is_phone_first", [True, False], ids=["phone", "server"])
def test_ends_that_call_each_other_at_the_same_moment_are_one_connection(
    network: Network, gateway: Gateway, is_phone_first: bool
) -> None:
    mapping = register(network)
    with (
        tcp_socket(network.lan, CONTACT) as phone,
        tcp_socket(network.wan, PROXY) as server,
    ):
        os.kill(gateway.pid, signal.SIGSTOP)  # both come in before the relay looks at either
        calls = [(phone, PROXY), (server, mapping)]
        for caller, called in calls if is_phone_first else reversed(calls):
            caller.connect(called)
        os.kill(gateway.pid, signal.SIGCONT)
        line = Line(Stream(phone), Stream(server))
        asked, _ = line.exchange()
        assert via_sent_by(asked["Via"]) == mapping
        assert len(gateway.show_connections()) == 1


def test_a_dial_that_meets_the_other_ends_own_is_one_connection(
    network: Network, gateway: Gateway
) -> None:
    mapping = register(network)
    network.wan.run("nft", "-f", "-", text=DEAF)
    with (
        tcp_socket(network.lan, CONTACT) as phone,
        tcp_socket(network.wan, PROXY) as server,
    ):
        phone.connect(PROXY)  # the relay dials the server, which does not hear it
        time.sleep(0.3)
        server.connect(mapping)
        asked, _ = Line(Stream(phone), Stream(server)).exchange()
        assert via_sent_by(asked["Via"]) == mapping
        assert len(gateway.show_connections()) == 1


DEAF = """
table ip deaf {
    chain input {
        type filter hook input priority filter; policy accept;
        tcp flags & (syn | ack) == syn drop
    }
}
"""


@pytest.mark.configured(max_connections=2)
def test_beyond_the_limit_connections_are_reset_and_counted(
    network: Network, gateway: Gateway
) -> None:
    with connect(network) as one, connect(network, Endpoint(PHONE_2, 45000)) as other:
        one.exchange()
        third = Endpoint(PHONE_1, 45001)
        with (
            pytest.raises(ConnectionResetError),
            connected(network.lan, third, PROXY) as refused,
        ):
            refused.recv(1)
        other.exchange()
    assert gateway.show_reasons()["connection-limit"] == 1


@pytest.mark.configured(max_mappings_per_host=1)
def test_beyond_a_hosts_mappings_connections_pass_as_they_are(
    network: Network, gateway: Gateway
) -> None:
    with connect(network), connect(network, Endpoint(PHONE_1, 45001)) as second:
        octets = request(Endpoint(PHONE_1, 45001))
        second.phone.send(octets)
        second.server.expect_octets(octets)
        assert second.server.peer.address == EXTERNAL
    assert gateway.show_reasons()["quota"] == 1


def test_what_was_not_diverted_is_refused(network: Network, gateway: Gateway) -> None:
    local = Endpoint("127.0.0.1", 0)
    with tcp_socket(network.router, local) as stray, pytest.raises(ConnectionResetError):
        stray.connect(("127.0.0.1", 15060))
        stray.recv(1)
    assert gateway.show_reasons()["not-diverted"] == 1


def test_a_remote_that_nobody_has_dealt_with_is_kept_out(
    network: Network, gateway: Gateway
) -> None:
    mapping = register(network)
    with tcp_socket(network.wan, Endpoint(REMOTE_1, 0)) as stranger:
        stranger.settimeout(0.7)
        with pytest.raises((TimeoutError, ConnectionRefusedError)):
            stranger.connect(mapping)
    assert wait_until(lambda: gateway.show_reasons()["refused-signalling"] > 0, 3.0)


def reset(stream: Stream) -> None:
    """Closes a connection by a reset."""
    stream.tcp.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SO_LINGER, 0 s
    stream.tcp.close()
