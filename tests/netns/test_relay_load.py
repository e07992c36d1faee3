"""The relay under load: many connections that say nothing, and one whose reader has stopped."""

from __future__ import annotations

import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from alg.io.relay import OTHER_FILES
from nat_table.endpoint import Endpoint
from tests.lab.agents import wait_until
from tests.lab.gateway import Gateway
from tests.lab.network import PHONE_1, PHONE_2, SERVER, Network
from tests.netns.streams import PHONE, PROXY, Stream, connect, request

pytestmark = [pytest.mark.netns, pytest.mark.timeout(180)]

IDLE = 10_000
KILOBYTES_PER_CONNECTION = 20
FIRST_PORT = 25_000
STALL = 30.0
STALLED_KILOBYTES = 4096
# Accepts all connections at one place, and keeps them.
HOLD = f"""
import socket
held, listener = [], socket.create_server(("{SERVER}", 5060), backlog=4096)
print("listening", flush=True)
while True:
    held.append(listener.accept()[0])
"""


def memory(gateway: Gateway, field: str) -> int:
    """Returns a field of the process's status in kilobytes: "VmRSS", or at its highest "VmHWM"."""
    for line in Path(f"/proc/{gateway.pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    raise AssertionError(field)


@contextmanager
def server_that_holds(network: Network) -> Iterator[None]:
    """Runs a server that accepts and is silent, in a process with descriptors of its own."""
    command = network.wan.command(sys.executable, "-c", HOLD)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None and server.stdout.readline() == "listening\n"
            yield
        finally:
            server.kill()


@pytest.mark.configured(max_mappings_per_host=20_000, max_new_mappings_per_second=20_000)
def test_ten_thousand_idle_connections_take_little_memory(
    network: Network, gateway: Gateway
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(IDLE, (hard - OTHER_FILES) // 2)  # a container may have fewer than they need
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    before = memory(gateway, "VmRSS")
    started_at = time.monotonic()
    with ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        stack.enter_context(server_that_holds(network))

        def connect_all() -> None:
            for number in range(count):
                phone = stack.enter_context(socket.socket())
                phone.bind(((PHONE_1, PHONE_2)[number % 2], FIRST_PORT + number))
                phone.connect(PROXY)

        network.lan.call(connect_all)
        assert wait_until(lambda: states(gateway) == ["sip"] * count, 60.0)
        grown = memory(gateway, "VmRSS") - before
        print(f"{count} connections in {time.monotonic() - started_at:.1f} s, {grown} kB")
        assert grown < count * KILOBYTES_PER_CONNECTION
        stopping_at = time.monotonic()
        assert gateway.stop() == 0
        print(f"ended in {time.monotonic() - stopping_at:.1f} s")


# What the last messages are kept in is not what this is about.
@pytest.mark.configured(trace_megabytes=0)
@pytest.mark.parametrize("is_sip", [True, False], ids=["sip", "opaque"])
def test_a_reader_that_stops_for_half_a_minute_takes_no_memory(
    network: Network, gateway: Gateway, is_sip: bool
) -> None:
    burst = b"".join(request(PHONE, number) for number in range(100))
    if not is_sip:
        burst = b"\0" + burst
    with connect(network) as line, connect(network, Endpoint(PHONE_1, 45001)) as other:
        other.exchange()
        before = memory(gateway, "VmHWM")
        is_over, sent = threading.Event(), [0]

        def flood() -> None:
            line.phone.tcp.settimeout(None)
            while not is_over.is_set():
                line.phone.send(burst)
                sent[0] += 1
            line.phone.tcp.shutdown(socket.SHUT_WR)

        flooding = threading.Thread(target=flood)
        flooding.start()
        try:
            time.sleep(STALL)
            other.exchange(2)
            assert memory(gateway, "VmHWM") - before < STALLED_KILOBYTES
            stalled_at = sent[0]
        finally:
            is_over.set()
            received = drain(line.server)
            flooding.join()
        assert sent[0] >= stalled_at
        if is_sip:
            assert received.count(b"OPTIONS sip:") == 100 * sent[0]
        else:
            assert received == burst * sent[0]
        assert memory(gateway, "VmHWM") - before < STALLED_KILOBYTES


def drain(stream: Stream) -> bytes:
    parts = []
    while part := stream.tcp.recv(1 << 20):
        parts.append(part)
    return b"".join(parts)


def states(gateway: Gateway) -> list[str]:
    return [row["state"] for row in gateway.show_connections()]
