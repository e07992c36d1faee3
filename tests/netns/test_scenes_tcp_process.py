"""SIP over TCP while the gateway comes and goes: connections end cleanly, nothing stays behind."""

from __future__ import annotations

import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from nat_table.endpoint import Endpoint
from tests.lab.agents import wait_until
from tests.lab.gateway import Gateway
from tests.lab.message import via_sent_by
from tests.lab.network import EXTERNAL, PHONE_1, Network
from tests.netns.connections import TIMEOUT, connected, listening
from tests.netns.streams import CONTACT, PHONE, PROXY, call_in, connect, register, request

pytestmark = [pytest.mark.netns, pytest.mark.timeout(90)]

OTHER_PORT = Endpoint(PHONE_1, 45001)
IDLE = Endpoint(PHONE_1, 45002)
CALLER = Endpoint(PROXY.address, 33333)
NEW_EXTERNAL = "203.0.113.77"
STORED_AFTER = 1.0


def check_passes_untouched(network: Network, source: Endpoint) -> None:
    """Checks that a connection is not looked into."""
    with connect(network, source) as line:
        line.phone.send(request(source))
        line.server.expect_octets(request(source))


def test_a74_connections_made_while_the_gateway_is_down_outlive_its_start(
    network: Network,
) -> None:
    with connect(network) as older, Gateway(network.router):
        older.phone.send(request(PHONE))
        older.server.expect_octets(request(PHONE))
        older.server.send(b"\r\n")
        older.phone.expect_octets(b"\r\n")
        with connect(network, OTHER_PORT) as newer:
            asked, _ = newer.exchange()
            assert via_sent_by(asked["Via"]) == newer.server.peer


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_ends_connections_cleanly_and_new_ones_pass_untouched(
    network: Network, gateway: Gateway, number: signal.Signals
) -> None:
    with connect(network) as line, connect(network, IDLE) as idle:
        line.exchange()
        line.phone.send(request(PHONE)[:50])
        assert gateway.stop(number) == 0
        for end in (line.phone, line.server, idle.phone, idle.server):
            assert end.is_at_end()
    assert f"{EXTERNAL} . {IDLE.port}" in network.ruleset(), "mappings stand until the next start"
    check_passes_untouched(network, OTHER_PORT)


def test_a_stop_ends_a_connection_cleanly_whose_server_is_slow_to_read(
    network: Network, gateway: Gateway
) -> None:
    with connect(network) as line, ThreadPoolExecutor() as threads:
        line.phone.tcp.settimeout(0.5)
        with pytest.raises(TimeoutError):
            while True:
                line.phone.send(request(PHONE) * 100)
        line.phone.tcp.settimeout(TIMEOUT)
        stopping = threads.submit(gateway.stop)
        assert line.phone.is_at_end()
        while line.server.tcp.recv(1 << 20):
            pass
        assert stopping.result() == 0


def test_a74_after_a_crash_new_connections_pass_and_after_a_start_they_are_relayed(
    network: Network, gateway: Gateway
) -> None:
    with connect(network) as line:
        line.exchange()
        gateway.kill()
        assert line.phone.is_at_end()
        assert line.server.is_at_end()
    check_passes_untouched(network, OTHER_PORT)
    gateway.start()
    with connect(network, Endpoint(PHONE_1, 45003)) as line:
        asked, _ = line.exchange()
        assert via_sent_by(asked["Via"]) == line.server.peer


@pytest.mark.configured(on_failure="hold")
def test_a74_held_connections_wait_for_the_gateway(network: Network, gateway: Gateway) -> None:
    gateway.kill()
    with listening(network.wan, PROXY) as server:
        with pytest.raises(TimeoutError), connected(network.lan, PHONE, PROXY):
            pass
        gateway.start()
        with connected(network.lan, PHONE, PROXY):
            server.accept()[0].close()


@pytest.mark.parametrize("is_crash", [False, True], ids=["stop", "crash"])
def test_a_registered_contact_outlives_a_restart_and_what_a_connection_kept_does_not(
    network: Network, gateway: Gateway, is_crash: bool
) -> None:
    mapping = register(network)
    with connect(network, OTHER_PORT):
        assert internals(gateway) >= {str(CONTACT), str(OTHER_PORT)}
        time.sleep(STORED_AFTER)
        if is_crash:
            gateway.kill()
        else:
            gateway.stop()
    gateway.start()
    assert str(CONTACT) in internals(gateway)
    assert str(OTHER_PORT) not in internals(gateway)
    with call_in(network, CALLER, mapping, CONTACT) as line:
        line.server.send(request(CALLER, uri=f"sip:p@{mapping};transport=tcp"))
        assert line.phone.expect().uri == f"sip:p@{CONTACT};transport=tcp"


def test_a33_another_external_address_resets_connections_so_that_phones_connect_anew(
    network: Network, gateway: Gateway
) -> None:
    with connect(network) as line:
        line.exchange()
        network.replace_external(NEW_EXTERNAL)
        with pytest.raises(ConnectionResetError):
            line.phone.is_at_end()
    network.wan.run("ip", "route", "replace", "10.0.0.0/24", "via", NEW_EXTERNAL)
    with connect(network, OTHER_PORT) as line:
        assert line.server.peer.address == NEW_EXTERNAL
        line.exchange()


@pytest.mark.configured(tcp=False)
def test_with_tcp_off_connections_pass_untouched(network: Network, gateway: Gateway) -> None:
    check_passes_untouched(network, PHONE)
    assert gateway.show_connections() == []


def test_a_relay_port_that_is_taken_is_one_sentence(network: Network) -> None:
    with (
        listening(network.router, Endpoint("127.0.0.1", 15060)),
        closing(Gateway(network.router)) as refused,
    ):
        before = network.ruleset()
        done = subprocess.run(
            network.router.command(*refused.arguments()), capture_output=True, text=True, timeout=20
        )
        assert (done.returncode, done.stdout) == (1, "")
        sentence = done.stderr.splitlines()[-1]
        assert sentence.startswith("sipnat: ") and "relay_port" in sentence
        assert network.ruleset() == before


def test_a_connection_that_is_idle_for_long_is_not_forgotten_by_the_table(
    network: Network, gateway: Gateway
) -> None:
    with connect(network) as line:
        [row] = gateway.show_mappings()
        assert (row["state"], row["external"]) == ("connected", f"{EXTERNAL}:{PHONE.port}")
        assert row["expires_in"] > 3000
        assert line.server.peer.port == PHONE.port
    assert wait_until(lambda: gateway.show_mappings() == [], 3.0)


def internals(gateway: Gateway) -> set[str]:
    return {row["internal"] for row in gateway.show_mappings()}
