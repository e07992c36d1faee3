"""What another ALG in the path does is found by asking a SIP echo server, and cured there."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.lab.doctor import Doctor
from tests.lab.double_nat import WIRE, DoubleNat
from tests.lab.gateway import SIPNAT
from tests.lab.namespace import Namespace
from tests.lab.network import EXTERNAL, SERVER, Network

pytestmark = [pytest.mark.netns, pytest.mark.timeout(120)]

ALG = "-t raw -A PREROUTING -p udp --dport 5060 -j CT --helper sip"


@contextmanager
def echo_server(where: Namespace, command: str) -> Iterator[str]:
    """Runs a command of the doctor's on a host outside, and yields what it says when it is up."""
    program, *arguments = command.split()
    assert program == "sipnat"
    serving = subprocess.Popen(where.command(SIPNAT, *arguments), stdout=subprocess.PIPE, text=True)
    assert serving.stdout is not None
    try:
        yield serving.stdout.readline()
    finally:
        serving.kill()
        serving.wait()
        serving.stdout.close()


def test_a_clear_path_is_told_and_a_silent_server_is_a_warning_with_what_to_run_there(
    network: Network,
) -> None:
    network.router.run("ip", "route", "add", "default", "via", SERVER)
    with Doctor(network.router) as doctor:
        (silent,) = doctor.look("second-alg", "--echo", SERVER)
        assert silent["level"] == "warning" and "does not answer" in silent["text"]
        (command,) = silent["commands"]
        with echo_server(network.wan, command) as said:
            assert said == "answering at 0.0.0.0:5060\n"
            assert doctor.look("second-alg", "--echo", SERVER) == []
            doctor.configuration = [f'sip_echo = "{SERVER}:5060"']
            found = {row["check"]: row["text"] for row in doctor.examine()}
    assert f"comes to {SERVER}:5060 unchanged, from {EXTERNAL}:" in found["second-alg"]


def test_A79_A94_a_second_alg_on_the_router_above_is_found_from_below_and_cured_there() -> None:
    with (
        DoubleNat() as network,
        Doctor(network.router, *("--internal", "lan0", "--external", "wan0")) as below,
        Doctor(network.upper, *("--internal", "eth0", "--external", "wan0")) as above,
        echo_server(network.wan, "sipnat echo"),
    ):
        network.upper.run("iptables", *ALG.split())
        below.configuration = [f'sip_echo = "{SERVER}"']
        (found,) = below.look("second-alg")
        assert found["level"] == "error"
        assert f"'o=- 1 1 IN IP4 {WIRE}' came as 'o=- 1 1 IN IP4 {EXTERNAL}'" in found["text"]
        assert "the router 192.168.1.1" in found["text"]
        above.cure(above.look("sip-helper"))
        assert below.look("second-alg") == []

        (hidden,) = below.look("double-nat")
        assert hidden["configuration"] == [f'external_address = "{EXTERNAL}"']
        below.cure([hidden])
        assert below.look("double-nat") == []


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--listen", "nowhere"], 2, "--listen is nowhere, allowed is such as 0.0.0.0:5060"),
        (["--listen", "192.0.2.77:5060"], 1, "cannot listen at 192.0.2.77:5060: Cannot assign"),
    ],
)
def test_an_echo_server_that_cannot_be_had_is_one_sentence(
    network: Network, arguments: list[str], status: int, words: str
) -> None:
    done = subprocess.run(
        network.wan.command(SIPNAT, "echo", *arguments), capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr.startswith(f"sipnat: {words}") and done.stderr.count("\n") == 1


def test_a_server_that_cannot_be_resolved_is_a_warning(network: Network) -> None:
    with Doctor(network.router) as doctor:
        (found,) = doctor.look("second-alg", "--echo", "echo.invalid")
    assert (found["level"], "cannot be asked" in found["text"]) == ("warning", True)
