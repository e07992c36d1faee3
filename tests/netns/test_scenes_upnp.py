"""Hosts inside that ask for ports by UPnP: Debian's upnpc, and some that do not behave."""

from __future__ import annotations

import random
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from tests.lab.agents import wait_until
from tests.lab.gateway import Gateway
from tests.lab.network import (
    EXTERNAL,
    LAN_ROUTER,
    PHONE_1,
    PHONE_2,
    REMOTE_1,
    SERVER,
    STRANGER,
    Network,
)
from tests.netns.control_point import (
    CONTROL,
    EVENTS,
    GATEWAY_TYPE,
    GROUP,
    PORT,
    Listening,
    add,
    code_of,
    is_hung_up_on,
    request,
    search,
    search_all,
    send_http,
    send_http_cut,
    soap,
    status_of,
    told,
    upnpc,
)

OTHER_EXTERNAL = "203.0.113.2"

pytestmark = [
    pytest.mark.netns,
    pytest.mark.timeout(90),
    pytest.mark.configured(upnp=True),
]


def test_upnpc_finds_maps_lists_and_unmaps(network: Network, gateway: Gateway) -> None:
    found = upnpc(network, "-e", "a game", "-a", PHONE_1, "4000", "5000", "UDP", "3600")
    assert found.status == 0, found.text
    assert f"ExternalIPAddress = {EXTERNAL}" in found.text
    assert (
        f"external {EXTERNAL}:5000 UDP is redirected to internal {PHONE_1}:4000 (duration=3600)"
        in found.text
    )
    (row,) = gateway.show_mappings()
    assert (row["internal"], row["external"]) == (f"{PHONE_1}:4000", f"{EXTERNAL}:5000")
    assert (row["kind"], row["transport"], row["source"]) == ("any", "udp", "upnp")
    assert 3500 < row["expires_in"] <= 3600
    assert told(network, "-a", PHONE_1, "4002", "5002", "TCP").status == 0
    listed = told(network, "-l").text
    assert re.search(rf" 0 UDP  5000->{PHONE_1}:4000  'a game' '' 3[56]\d\d\n", listed), listed
    assert re.search(rf" 1 TCP  5002->{PHONE_1}:4002  'libminiupnpc' '' 86\d\d\d\n", listed)
    assert "Status : Connected" in listed
    assert told(network, "-d", "5000", "UDP").status == 0
    assert "failed with code : 714" in told(network, "-d", "5000", "UDP").text
    assert told(network, "-N", "5000", "5010", "TCP").status == 0
    assert gateway.show_mappings() == []


def test_a_mapping_by_upnp_lets_anybody_in_and_no_longer_than_it_stands(
    network: Network, gateway: Gateway
) -> None:
    with (
        closing(network.lan.udp_socket(PHONE_1, 4000)) as phone,
        closing(network.wan.udp_socket(STRANGER)) as stranger,
    ):
        phone.settimeout(1.0)
        stranger.settimeout(1.0)
        assert told(network, "-a", PHONE_1, "4000", "5000", "UDP").status == 0
        stranger.sendto(b"knock", (EXTERNAL, 5000))
        data, source = phone.recvfrom(100)
        assert (data, source) == (b"knock", stranger.getsockname())
        phone.sendto(b"come in", source)
        assert stranger.recvfrom(100) == (b"come in", (EXTERNAL, 5000))
        assert told(network, "-d", "5000", "UDP").status == 0
        assert wait_until(lambda: not arrives(stranger, phone), 20.0)


def arrives(stranger: socket.socket, phone: socket.socket) -> bool:
    """Tells whether a packet to the external endpoint gets in."""
    stranger.sendto(b"again", (EXTERNAL, 5000))
    try:
        return bool(phone.recv(100))
    except TimeoutError:
        return False


def test_an_entry_for_a_remote_host_lets_nobody_else_in(network: Network, gateway: Gateway) -> None:
    with (
        closing(network.lan.udp_socket(PHONE_1, 4000)) as phone,
        closing(network.wan.udp_socket(STRANGER)) as stranger,
        closing(network.wan.udp_socket(REMOTE_1)) as remote,
    ):
        phone.settimeout(1.0)
        assert (
            status_of(send_http(network, add(5000, PHONE_1, 4000, NewRemoteHost=REMOTE_1))) == 200
        )
        assert not arrives(stranger, phone)
        assert arrives(remote, phone)
        assert f"'test' '{REMOTE_1}'" in told(network, "-l").text


def test_a_port_that_is_anothers_leaves_upnp_out(network: Network) -> None:
    with closing(network.router.tcp_socket(LAN_ROUTER, PORT)) as other:
        other.listen()
        with Gateway(network.router, upnp=True) as gateway:
            (warning,) = [line for line in gateway.log if "not served" in line]
            assert warning == (
                "sipnat: UPnP on lan0 is not served: another program has TCP port 2869 of lan0"
            )
            assert gateway.stop() == 0


def test_upnpc_is_refused_what_it_may_not_have(network: Network, gateway: Gateway) -> None:
    for arguments in ((PHONE_2, "4000", "5000"), (PHONE_1, "4000", "80"), (PHONE_1, "80", "5000")):
        refused = told(network, "-a", *arguments, "UDP")
        assert refused.status != 0
        assert "failed with code 606 (Action not authorized)" in refused.text
    assert gateway.show_mappings() == []
    assert told(network, "-a", PHONE_1, "4000", "5000", "UDP").status == 0
    assert code_of(send_http(network, add(5000, PHONE_2, 4000), PHONE_2)) == 718
    taken = told(network, "-a", PHONE_1, "4002", "5000", "UDP")
    assert "failed with code 718 (ConflictInMappingEntry)" in taken.text
    another = told(network, "-n", PHONE_1, "4002", "5000", "UDP", "600")
    assert another.status == 0, another.text
    ports = {row["internal"]: row["external"] for row in gateway.show_mappings()}
    assert ports[f"{PHONE_1}:4000"] == f"{EXTERNAL}:5000"
    assert len(ports) == 2


@pytest.mark.configured(upnp=True, secure_mode=False)
def test_without_secure_mode_a_host_may_map_for_another(network: Network, gateway: Gateway) -> None:
    assert told(network, "-a", PHONE_2, "4000", "5000", "UDP").status == 0
    (row,) = gateway.show_mappings()
    assert row["internal"] == f"{PHONE_2}:4000"


def test_leases_outlive_a_restart(network: Network, gateway: Gateway) -> None:
    assert told(network, "-e", "a game", "-a", PHONE_1, "4000", "5000", "UDP").status == 0
    gateway.stop()
    gateway.start()
    assert f"5000->{PHONE_1}:4000  'a game'" in told(network, "-l").text
    assert told(network, "-d", "5000", "UDP").status == 0
    assert gateway.show_mappings() == []


@pytest.mark.parametrize("version", [1, 2])
def test_who_searches_a_version_gets_it(network: Network, gateway: Gateway, version: int) -> None:
    kind = GATEWAY_TYPE.format(version)
    (answer,) = search(network.lan, PHONE_1, GROUP, kind)
    assert f"\r\nST: {kind}\r\n" in answer
    (location,) = re.findall(rf"LOCATION: http://{LAN_ROUTER}:{PORT}(\S+)", answer)
    described = send_http(network, request("GET", location)).decode()
    assert f"<deviceType>{kind}</deviceType>" in described
    assert f"WANIPConnection:{version}</serviceType>" in described
    for path in re.findall(r"<SCPDURL>(.*?)</SCPDURL>", described):
        assert b"<scpd " in send_http(network, request("GET", path))


def test_the_external_side_finds_nothing(network: Network, gateway: Gateway) -> None:
    network.wan.run("ip", "route", "replace", "10.0.0.0/24", "via", EXTERNAL)
    for target in (GROUP, (EXTERNAL, 1900), (LAN_ROUTER, 1900)):
        assert search(network.wan, SERVER, target, "ssdp:all") == []
    for address in (EXTERNAL, LAN_ROUTER):
        with closing(network.wan.tcp_socket(SERVER)) as tcp, pytest.raises(OSError):
            tcp.settimeout(2.0)
            tcp.connect((address, PORT))
    names = {re.search("USN: (.*)\r", each)[1] for each in search_all(network)}  # type: ignore[index]
    assert len(names) == len(search_all(network)) == 9


@pytest.mark.configured(upnp=False)
def test_nothing_is_served_unless_it_is_wanted(network: Network, gateway: Gateway) -> None:
    assert search_all(network) == []
    assert send_http(network, request("GET", "/2/device.xml")) == b""


def test_garbage_is_refused_by_number_and_opens_nothing(network: Network, gateway: Gateway) -> None:
    """A85"""
    log = list(gateway.log)
    rng = random.Random(1)
    good = add(5000, PHONE_1, 4000)
    assert (
        send_http(network, good.replace(f"{LAN_ROUTER}:{PORT}".encode(), b"evil.example"))[9:12]
        == b"400"
    )
    huge = add(5000, PHONE_1, 4000, NewPortMappingDescription="x" * 20000)
    assert status_of(send_http(network, huge)) == 400
    assert (
        status_of(send_http(network, request("POST", CONTROL, "SOAPACTION: a#b", body=b"<"))) == 400
    )
    assert status_of(send_http(network, request("GET", "/etc/passwd"))) == 404
    assert status_of(send_http(network, request("DELETE", CONTROL))) == 405
    assert code_of(send_http(network, soap("Reboot", {}))) == 401
    assert code_of(send_http(network, add(5000, PHONE_1, 4000, NewProtocol="GRE"))) == 402
    assert code_of(send_http(network, add(5000, SERVER, 4000))) == 606
    for _ in range(30):
        send_http(network, rng.randbytes(rng.randint(1, 3000)) + b"\r\n\r\n")
        time.sleep(0.02)
    for cut in range(0, len(good), 97):
        send_http_cut(network, good[:cut])
        time.sleep(0.02)
    with closing(network.lan.udp_socket(PHONE_1)) as udp:
        for _ in range(300):
            udp.sendto(rng.randbytes(rng.randint(0, 1400)), (LAN_ROUTER, 1900))
    assert gateway.show_mappings() == []
    assert gateway.log == log, gateway.log[len(log) :]
    time.sleep(1.0)
    assert status_of(send_http(network, good)) == 200
    assert status_of(send_http(network, b"GET /\0 HTTP/1.1\r\n\r\n")) == 400
    assert not any("Traceback" in line for line in gateway.log), "once a request was a good one"


def test_slow_clients_are_cut_and_leave_room_for_others(network: Network, gateway: Gateway) -> None:
    with ExitStack() as stack:
        slow = [stack.enter_context(closing(network.lan.tcp_socket(PHONE_1))) for _ in range(20)]
        for each in slow:
            each.settimeout(15.0)
            each.connect((LAN_ROUTER, PORT))
        slow[-1].settimeout(3.0)
        assert is_hung_up_on(slow[-1])
        assert status_of(send_http(network, add(5000, PHONE_2, 4000), PHONE_2)) == 200
        slow[0].sendall(b"POST ")
        assert is_hung_up_on(slow[0])
    assert status_of(send_http(network, add(5002, PHONE_1, 4000))) == 200


@pytest.mark.configured(upnp=True, max_requests_per_host=5)
def test_a_host_that_asks_too_often_is_hung_up_on(network: Network, gateway: Gateway) -> None:
    answers = [send_http(network, request("GET", "/1/device.xml")) for _ in range(40)]
    assert b"" in answers
    assert status_of(send_http(network, add(5000, PHONE_2, 4000), PHONE_2)) == 200


def test_a_slow_client_does_not_hold_up_the_stop(network: Network, gateway: Gateway) -> None:
    with closing(network.lan.tcp_socket(PHONE_1)) as tcp:
        tcp.connect((LAN_ROUTER, PORT))
        tcp.sendall(add(5000, PHONE_1, 4000)[:-10])
        assert gateway.stop(timeout=5.0) == 0


def test_byebye_is_said_at_the_stop(network: Network, gateway: Gateway) -> None:
    with Listening(network.lan) as heard:
        gateway.stop()
        assert wait_until(lambda: len(heard) >= 9, 5.0)
    assert all("NTS: ssdp:byebye" in each for each in heard)


@pytest.fixture
def subscriber(network: Network) -> Iterator[list[tuple[str, str]]]:
    """Yields the numbers and bodies of the events that phone 1 gets at port 4444."""
    events: list[tuple[str, str]] = []

    class Events(BaseHTTPRequestHandler):
        def do_NOTIFY(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            events.append((self.headers["SEQ"], body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Says nothing."""

    server = network.lan.call(lambda: HTTPServer((PHONE_1, 4444), Events))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield events
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_subscriber_is_told_the_external_address(
    network: Network, gateway: Gateway, subscriber: list[tuple[str, str]]
) -> None:
    lines = (f"CALLBACK: <http://{PHONE_1}:4444/>", "NT: upnp:event", "TIMEOUT: Second-1800")
    answer = send_http(network, request("SUBSCRIBE", EVENTS, *lines))
    (sid,) = re.findall(rb"SID: (uuid:\S+)", answer)
    assert b"TIMEOUT: Second-1800" in answer
    assert wait_until(lambda: len(subscriber) == 1, 5.0)
    assert subscriber[0][0] == "0"
    assert f"<ExternalIPAddress>{EXTERNAL}<" in subscriber[0][1]
    ended = send_http(network, request("UNSUBSCRIBE", EVENTS, f"SID: {sid.decode()}"))
    assert status_of(ended) == 200


def test_nobody_is_made_to_tell_others(network: Network, gateway: Gateway) -> None:
    """CallStranger (CVE-2020-12695): an event's address is the subscriber's own."""
    lines = (f"CALLBACK: <http://{SERVER}:80/>", "NT: upnp:event")
    assert status_of(send_http(network, request("SUBSCRIBE", EVENTS, *lines))) == 412


def test_a_subscriber_is_told_another_external_address(
    network: Network, gateway: Gateway, subscriber: list[tuple[str, str]]
) -> None:
    lines = (f"CALLBACK: <http://{PHONE_1}:4444/>", "NT: upnp:event")
    assert status_of(send_http(network, request("SUBSCRIBE", EVENTS, *lines))) == 200
    assert told(network, "-a", PHONE_1, "4000", "5000", "UDP").status == 0
    network.replace_external(OTHER_EXTERNAL)
    assert wait_until(lambda: len(subscriber) == 2, 10.0)
    assert subscriber[1][0] == "1"
    assert f"<ExternalIPAddress>{OTHER_EXTERNAL}<" in subscriber[1][1]
    listed = told(network, "-l").text
    assert f"ExternalIPAddress = {OTHER_EXTERNAL}" in listed
    assert f"5000->{PHONE_1}:4000" in listed
