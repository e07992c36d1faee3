"""A real SIP stack (SIPp) on both ends of the real gateway, over TCP.

`t1` has one connection for all calls of an end, `tn` one for each call; there the answering SIPp
would take the end of the connection, right after the call, for a failure (-reconnect_close).
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nat_table.endpoint import Endpoint
from tests.lab.agents import wait_until
from tests.lab.gateway import Gateway
from tests.lab.namespace import Namespace
from tests.lab.network import PHONE_1, SERVER, Network
from tests.netns.streams import CONTACT, PROXY, register

pytestmark = [
    pytest.mark.netns,
    pytest.mark.timeout(90),
    pytest.mark.skipif(not shutil.which("sipp"), reason="needs sipp (the package sip-tester)"),
]

CALLS = 50
RATE = 25


def sipp(namespace: Namespace, scenario: str, transport: str, where: Endpoint) -> list[str]:
    """Returns the command line of SIPp at an endpoint, with a scenario of its own."""
    ends = ("-i", where.address, "-p", str(where.port), "-m", str(CALLS), "-t", transport)
    options = ("-nostdin", "-timeout", "40s", "-max_socket", "1000", "-reconnect_close", "false")
    return namespace.command("sipp", "-sn", scenario, *ends, *options)


@contextmanager
def answering(command: list[str], place: Path) -> Iterator[subprocess.Popen[str]]:
    """Runs the SIPp that answers."""
    with subprocess.Popen(command, cwd=place, stdout=subprocess.DEVNULL, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def call(command: list[str], answerer: subprocess.Popen[str], place: Path) -> None:
    """Runs the SIPp that calls, and checks that all its calls went as they should, on both ends."""
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert answerer.wait(timeout=20) == 0


def is_listening(namespace: Namespace, where: Endpoint) -> bool:
    """Tells whether somebody listens at the endpoint."""
    return bool(namespace.run("ss", "-Hltn", "src", str(where)))


@pytest.mark.parametrize("transport", ["t1", "tn"])
def test_a_sip_stack_calls_out(
    network: Network, gateway: Gateway, tmp_path: Path, transport: str
) -> None:
    phone = Endpoint(PHONE_1, 5060)
    with answering(sipp(network.wan, "uas", transport, PROXY), tmp_path) as server:
        assert wait_until(lambda: is_listening(network.wan, PROXY), 10.0)
        command = sipp(network.lan, "uac", transport, phone)
        call([*command, "-r", str(RATE), str(PROXY)], server, tmp_path)
    check_relayed(gateway, CALLS)


@pytest.mark.parametrize("transport", ["t1", "tn"])
def test_a_sip_stack_is_called_at_its_contact(
    network: Network, gateway: Gateway, tmp_path: Path, transport: str
) -> None:
    mapping = register(network)
    caller = Endpoint(SERVER, 5070)
    with answering(sipp(network.lan, "uas", transport, CONTACT), tmp_path) as phone:
        assert wait_until(lambda: is_listening(network.lan, CONTACT), 10.0)
        command = sipp(network.wan, "uac", transport, caller)
        call([*command, "-r", str(RATE), str(mapping)], phone, tmp_path)
    check_relayed(gateway, CALLS)


def check_relayed(gateway: Gateway, calls: int) -> None:
    """Checks that the INVITE and the 200 of every call at least were rewritten, and none left."""
    counts = gateway.show_reasons()
    assert counts["rewritten"] >= 2 * calls
    assert counts["opaque"] == counts["malformed"] == counts["error"] == 0
