"""A HEP collector beside the gateway: a real one gets both sides, a missing one harms nobody."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from alg.observe.capture import Arrival, Capture
from tests.lab.agents import wait_until
from tests.lab.gateway import Gateway
from tests.lab.network import EXTERNAL, PHONE_1, SERVER, Network
from tests.lab.site import Site

pytestmark = [pytest.mark.netns, pytest.mark.timeout(90)]

COLLECTOR = "127.0.0.1:9060"
PASSWORD = "secret"
MESSAGES_OF_A_CALL = 6


@contextmanager
def sngrep(network: Network, written: Path, password: str) -> Iterator[None]:
    """Runs sngrep, which listens for HEP on the router and writes what it takes to a file."""
    settings = written.with_suffix(".rc")
    settings.write_text(f"set eep.listen.pass {password}\n")
    command = ["sngrep", "-N", "-f", str(settings), "-L", f"udp:{COLLECTOR}", "-O", str(written)]
    process = subprocess.Popen(
        network.router.command(*command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        assert wait_until(lambda: ":9060" in network.router.run("ss", "-lun"), 5)
        yield
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=10)
    finally:
        process.kill()
        process.communicate()


def is_found(gateway: Gateway) -> bool:
    return wait_until(lambda: any("messages are copied" in line for line in gateway.log), 5)


def captured(written: Path) -> list[Arrival]:
    return list(Capture(written)) if written.exists() else []


@pytest.mark.configured(**{"hep.server": COLLECTOR, "hep.password": PASSWORD})
def test_sngrep_gets_a_call_from_both_sides(
    network: Network, gateway: Gateway, site: Site, tmp_path: Path
) -> None:
    written = tmp_path / "heard.pcap"
    with sngrep(network, written, PASSWORD):
        assert is_found(gateway)
        sent, _ = site.call_out(site.phone_1)
        site.hang_up(site.phone_1, site.server, sent)
        wait_until(lambda: len(captured(written)) >= 2 * MESSAGES_OF_A_CALL, 5)
    heard = captured(written)
    assert len(heard) == 2 * MESSAGES_OF_A_CALL
    hosts = [(each.source.address, each.destination.address) for each in heard]
    assert hosts[:4] == [
        (PHONE_1, SERVER),
        (EXTERNAL, SERVER),
        (SERVER, EXTERNAL),
        (SERVER, PHONE_1),
    ]
    assert heard[0].payload == sent.raw
    assert b"10.0.0.20" not in heard[1].payload.partition(b"\r\n\r\n")[2]


@pytest.mark.configured(**{"hep.server": COLLECTOR, "hep.password": "wrong"})
def test_sngrep_refuses_another_password(
    network: Network, gateway: Gateway, site: Site, tmp_path: Path
) -> None:
    written = tmp_path / "heard.pcap"
    with sngrep(network, written, PASSWORD):
        assert is_found(gateway)
        site.call_out(site.phone_1)
    assert captured(written) == []


@pytest.mark.configured(**{"hep.server": COLLECTOR})
def test_a_collector_that_is_down_harms_nobody(gateway: Gateway, site: Site) -> None:
    assert is_found(gateway)
    sent, _ = site.call_out(site.phone_1)
    site.hang_up(site.phone_1, site.server, sent)
    assert gateway.stop() == 0


@pytest.mark.configured(**{"hep.server": "collector.invalid"})
def test_a_name_that_is_not_found_holds_up_neither_calls_nor_the_end(
    gateway: Gateway, site: Site
) -> None:
    sent, _ = site.call_out(site.phone_1)
    site.hang_up(site.phone_1, site.server, sent)
    assert gateway.stop(timeout=5) == 0
