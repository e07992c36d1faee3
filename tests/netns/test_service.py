"""The gateway as systemd runs it: what it is told, and with no right but those of the unit."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from nat_table.endpoint import Endpoint
from tests.lab.agents import wait_until
from tests.lab.gateway import SIPNAT, Gateway
from tests.lab.network import PHONE_1, SERVER, Network
from tests.lab.site import SERVER_MEDIA_1, Site
from tests.netns.streams import CONTACT, call_in, register

pytestmark = [pytest.mark.netns, pytest.mark.timeout(90)]

TIMEOUT = 1.5
BEAT = "WATCHDOG=1"
NOBODY = "65534"
UNIT = Path(__file__).resolve().parents[2] / "alg" / "deploy" / "systemd" / "sipnat.service"
[CAPABILITIES] = re.findall(r"^AmbientCapabilities=(.*)$", UNIT.read_text(), re.MULTILINE)
RIGHTS = ",".join(f"+{each.lower().removeprefix('cap_')}" for each in CAPABILITIES.split())
DEAF = (
    "from alg import cli; from alg.io.queue import PacketQueue; "
    "PacketQueue.serve = lambda queue: None; cli.main()"
)


class Manager:
    """What systemd would hear of the service."""

    def __init__(self, address: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(address))
        address.chmod(0o666)

    def close(self) -> None:
        self._socket.close()

    def hear(self, timeout: float = 30.0) -> str:
        """Returns what comes next; raises TimeoutError."""
        self._socket.settimeout(timeout)
        return self._socket.recv(4096).decode()

    def expect(self, *wanted: str) -> None:
        """Returns when all this has been heard, in any order and with other things between."""
        left = set(wanted)
        while left:
            left.discard(self.hear())

    def hear_no_beat(self) -> None:
        """Checks that there is none for so long that systemd would have acted."""
        while True:
            try:
                assert self.hear(TIMEOUT) != BEAT
            except TimeoutError:
                return

    def forget(self) -> None:
        """Throws away what was told before."""
        self._socket.setblocking(False)
        try:
            while self._socket.recv(4096):
                pass
        except BlockingIOError:
            pass


class Unprivileged(Gateway):
    """The gateway as a user who has nothing but the capabilities of the unit."""

    def __init__(self, network: Network, **keys: object) -> None:
        super().__init__(network.router, **keys)
        subprocess.run(["chown", NOBODY, Path(self.control).parent], check=True)

    def arguments(self) -> list[str]:
        return [*as_nobody("--inh-caps", RIGHTS, "--ambient-caps", RIGHTS), *super().arguments()]


class Deaf(Gateway):
    """A gateway whose loop runs, and that serves no packet."""

    def arguments(self) -> list[str]:
        return [sys.executable, "-c", DEAF, *super().arguments()[1:]]


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    address = tmp_path / "notify"
    monkeypatch.setenv("NOTIFY_SOCKET", str(address))
    monkeypatch.setenv("WATCHDOG_USEC", str(int(TIMEOUT * 1e6)))
    with closing(Manager(address)) as manager:
        yield manager


@pytest.fixture
def unprivileged(network: Network) -> Iterator[Unprivileged]:
    readable = subprocess.run([*as_nobody(), SIPNAT, "version"], capture_output=True, check=False)
    if readable.returncode:
        pytest.skip("the checkout is not readable by other users")
    with Unprivileged(network, install_accept="auto") as gateway:
        yield gateway


def as_nobody(*rights: str) -> list[str]:
    identity = ["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]
    return ["setpriv", *identity, *rights]


def test_systemd_is_told_that_packets_are_handled_how_it_stands_and_when_it_stops(
    network: Network, manager: Manager
) -> None:
    with Gateway(network.router) as gateway, Site(network) as site:
        assert manager.hear() == "READY=1"
        manager.expect(BEAT, "STATUS=in service: calls 0, registrations 0, mappings 0")
        site.call_out(site.phone_1)
        manager.expect("STATUS=in service: calls 1, registrations 0, mappings 3", BEAT)
        gateway.ask("drain")
        manager.expect("STATUS=draining: calls 1, registrations 0, mappings 3")
        assert gateway.stop() == 0
        manager.expect("STOPPING=1")


def test_a_gateway_that_is_stopped_sends_no_beat(network: Network, manager: Manager) -> None:
    with Gateway(network.router) as gateway:
        manager.expect("READY=1", BEAT)
        os.kill(gateway.pid, signal.SIGSTOP)
        manager.forget()
        manager.hear_no_beat()
        os.kill(gateway.pid, signal.SIGCONT)
        manager.expect(BEAT)


def test_a_gateway_that_serves_no_packet_sends_no_beat(network: Network, manager: Manager) -> None:
    with Deaf(network.router) as gateway:
        manager.expect("READY=1")
        for _ in range(4):
            manager.expect(BEAT)
        with network.lan.udp_socket(PHONE_1) as phone:
            phone.sendto(b"OPTIONS sip:example.com SIP/2.0\r\n\r\n", (SERVER, 5060))
            # A look or two may go by, and beats of before may not have been heard yet.
            assert wait_until(lambda: any("none is handled" in line for line in gateway.log), 20)
            manager.forget()
            manager.hear_no_beat()


def test_where_it_hung_is_said_when_the_watchdog_ends_it(network: Network) -> None:
    with Gateway(network.router) as gateway:
        assert gateway.stop(signal.SIGABRT) == -signal.SIGABRT
        assert any("Fatal Python error: Aborted" in line for line in gateway.log)
        assert any("process.py" in line for line in gateway.log)


def test_two_capabilities_are_enough(network: Network, unprivileged: Unprivileged) -> None:
    assert unprivileged.log[-1] == "ready", unprivileged.log
    assert not [line for line in unprivileged.log if "denied" in line or "not permitted" in line]
    assert network.router.run("sysctl", "-n", "net.netfilter.nf_conntrack_acct").strip() == "1"
    with Site(network) as site:
        site.register(site.phone_2)
        _, offer = site.call_out(site.phone_1)
        talk = site.talk(site.phone_1, offer, SERVER_MEDIA_1)
        assert talk.flows_on()
        unprivileged.kill()
        assert talk.flows_on()
        unprivileged.start()
        assert talk.flows_on()
        assert len(unprivileged.show_mappings("rtp", "rtcp")) == 2
        assert unprivileged.stop() == 0
        assert talk.flows_on()


def test_a_server_whose_port_is_privileged_reaches_a_phone_over_tcp(
    network: Network, unprivileged: Unprivileged
) -> None:
    caller = Endpoint(SERVER, 1001)
    with call_in(network, caller, register(network), CONTACT) as line:
        assert line.phone.peer == caller


def test_root_starts_no_second_gateway_beside_that_of_another_user(
    network: Network, unprivileged: Unprivileged
) -> None:
    with closing(Gateway(network.router, queue=77)) as second:
        done = subprocess.run(
            network.router.command(*second.arguments()), capture_output=True, text=True, timeout=20
        )
    assert done.returncode == 1 and "another sipnat is running" in done.stderr


def test_it_goes_on_where_root_has_crashed_in_its_directory(
    network: Network, unprivileged: Unprivileged
) -> None:
    root = Gateway.arguments(unprivileged)
    assert unprivileged.stop() == 0
    directory = Path(unprivileged.control).parent
    for path in directory.glob("state.db*"):
        path.unlink()
    with subprocess.Popen(
        network.router.command(*root), stdout=subprocess.PIPE, text=True
    ) as foreground:
        assert foreground.stdout is not None and foreground.stdout.readline() == "ready\n"
        foreground.kill()
    assert {each.name for each in directory.iterdir()} >= {"state.db", "control.sock"}
    unprivileged.start()
    assert not [line for line in unprivileged.log if "store" in line], unprivileged.log
