"""`sipnat trace` on live calls: lines, JSON, captures, filters, and clients that go away."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from alg.observe.capture import Capture
from nat_table.endpoint import Endpoint
from tests.lab.agents import wait_until
from tests.lab.gateway import SIPNAT, Gateway
from tests.lab.message import Message
from tests.lab.network import EXTERNAL, PHONE_1, PHONE_2, SERVER, Network
from tests.lab.site import Site

pytestmark = [pytest.mark.netns, pytest.mark.timeout(90)]

CALL = ["INVITE", "180 INVITE", "200 INVITE", "ACK", "BYE", "200 BYE"]
WIDTH = 80


class Tracer:
    """`sipnat trace` in the background; `read` is what it has printed by now."""

    def __init__(self, network: Network, gateway: Gateway, output: Path, *options: str) -> None:
        self._output = output
        self._file = output.open("wb")
        command = [SIPNAT, "trace", "--control", gateway.control, *options]
        self.process = subprocess.Popen(
            network.router.command(*command), stdout=self._file, stderr=subprocess.PIPE, text=True
        )

    def read(self) -> str:
        return self._output.read_text()

    def wait_for(self, count: int, of: str = "\n") -> str:
        assert wait_until(lambda: self.read().count(of) >= count, 10), self.read()
        return self.read()

    def stop(self) -> tuple[int, str]:
        """Ends it as Ctrl-C does; returns its status and what it said."""
        self.process.send_signal(signal.SIGINT)
        _, said = self.process.communicate(timeout=10)
        return self.process.returncode, said

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        self._file.close()


@contextmanager
def tracing(network: Network, gateway: Gateway, output: Path, *options: str) -> Iterator[Tracer]:
    """Traces; the gateway has it among its watchers when this returns."""
    before = clients(network, gateway)
    tracer = Tracer(network, gateway, output, *options)
    try:
        assert wait_until(lambda: clients(network, gateway) > before, 10)
        gateway.show("reasons")  # whoever came first is answered first
        yield tracer
    finally:
        tracer.close()


def clients(network: Network, gateway: Gateway) -> int:
    """Returns how many are connected with the control socket."""
    return network.router.run("ss", "-xH", "state", "established").count(gateway.control)


def make_call(site: Site) -> Message:
    sent, _ = site.call_out(site.phone_1)
    site.hang_up(site.phone_1, site.server, sent)
    return sent


def rows(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def messages(text: str) -> list[dict[str, Any]]:
    return [row for row in rows(text) if row["event"] == "message"]


def test_a_call_is_a_line_a_message_in_80_columns(
    network: Network, gateway: Gateway, site: Site, tmp_path: Path
) -> None:
    with tracing(network, gateway, tmp_path / "trace") as tracer:
        make_call(site)
        lines = tracer.wait_for(len(CALL)).splitlines()
        assert tracer.stop()[0] == 130
    assert [what in line for what, line in zip(CALL, lines, strict=True)] == [True] * len(CALL)
    assert all(len(line) <= WIDTH for line in lines)
    assert lines[0][13:].startswith(f"{PHONE_1}:5060 -> {SERVER}:5060 INVITE")
    assert "rewritten +3" in lines[0]
    assert f"{PHONE_1}:5060 <- {SERVER}:5060 200 BYE" in lines[-1]
    assert " -2 " in lines[-1]


def test_full_shows_messages_before_and_after(
    network: Network, gateway: Gateway, site: Site, tmp_path: Path
) -> None:
    with tracing(network, gateway, tmp_path / "trace", "--full", "--count", "1") as tracer:
        make_call(site)
        assert tracer.process.wait(10) == 0
        text = tracer.read()
    assert f"    - c=IN IP4 {PHONE_1}\n    + c=IN IP4 {EXTERNAL}\n" in text
    assert "\n      Max-Forwards: 70\n" in text


def test_json_has_a_row_a_line_and_filters_choose(
    network: Network, gateway: Gateway, site: Site, tmp_path: Path
) -> None:
    site.register(site.phone_2)
    with (
        tracing(network, gateway, tmp_path / "all", "--json") as everything,
        tracing(network, gateway, tmp_path / "bye", "--json", "--method", "bye") as byes,
        tracing(network, gateway, tmp_path / "two", "--json", "--internal", PHONE_2) as two,
    ):
        sent = make_call(site)
        call, _ = site.call_in(site.phone_2)
        site.hang_up(site.server, site.phone_2, call)
        everything.wait_for(2 * len(CALL), '"message"')
        byes.wait_for(4, '"message"')
        two.wait_for(len(CALL), '"message"')
        first = rows(everything.read())[0]
        assert first["event"] == "watching"
        assert (first["internal"], first["external"]) == (["lan0"], "wan0")
        assert {row["method"] for row in messages(byes.read())} == {"BYE"}
        assert {row["call_id"] for row in messages(two.read())} == {call.call_id}
        heard = messages(everything.read())
        assert [row["number"] for row in heard] == list(range(1, 2 * len(CALL) + 1))
        assert {row["call_id"] for row in heard} == {sent.call_id, call.call_id}


def test_recent_begins_with_what_is_remembered(
    network: Network, gateway: Gateway, site: Site, tmp_path: Path
) -> None:
    remembered = make_call(site)
    options = ("--json", "--recent", "--count", str(len(CALL) + 1))
    with tracing(network, gateway, tmp_path / "trace", *options) as tracer:
        tracer.wait_for(len(CALL), '"message"')
        live = make_call(site)
        assert tracer.process.wait(10) == 0
        heard = messages(tracer.read())
    assert [row["call_id"] for row in heard] == [remembered.call_id] * len(CALL) + [live.call_id]


@pytest.mark.parametrize("is_piped", [False, True], ids=["file", "pipe"])
def test_a_capture_has_both_sides(
    network: Network, gateway: Gateway, site: Site, tmp_path: Path, is_piped: bool
) -> None:
    path, printed = tmp_path / "both.pcapng", tmp_path / "printed"
    written = printed if is_piped else path
    where = "-" if is_piped else str(path)
    with tracing(network, gateway, printed, "--pcap", where) as tracer:
        sent = make_call(site)
        assert wait_until(lambda: len(list(Capture(written))) == 2 * len(CALL), 10)
        status, said = tracer.stop()
    assert status == 130
    assert f"{len(CALL)} messages captured" in said
    came, left, *_ = list(Capture(written))
    assert (came.source, came.destination) == (Endpoint(PHONE_1, 5060), Endpoint(SERVER, 5060))
    assert came.payload == sent.raw
    assert left.source.address == EXTERNAL
    assert b"c=IN IP4 " + EXTERNAL.encode() in left.payload


def test_a_call_over_tcp_is_captured_from_both_sides(
    network: Network, gateway: Gateway, tmp_path: Path
) -> None:
    path = tmp_path / "both.pcapng"
    with (
        Site(network, transport="tcp") as site,
        tracing(network, gateway, tmp_path / "printed", "--pcap", str(path)),
    ):
        sent = make_call(site)
        assert wait_until(lambda: len(messages_in(path)) == 2 * len(CALL), 10)
    found = messages_in(path)
    assert {call_id for _, _, call_id in found} == {sent.call_id}
    assert [source for _, source, _ in found[:4]] == [PHONE_1, EXTERNAL, SERVER, SERVER]
    assert {interface for interface, _, _ in found} == {"lan0", "wan0"}


def messages_in(path: Path) -> list[tuple[str, str, str]]:
    """Returns interface, source and Call-ID of the SIP messages that tshark finds."""
    command = ["tshark", "-r", str(path), "-Y", "sip", "-T", "fields"]
    for field in ("frame.interface_name", "ip.src", "sip.Call-ID"):
        command += ["-e", field]
    ran = subprocess.run(command, capture_output=True, text=True)
    lines = [line.split("\t") for line in ran.stdout.splitlines()]
    return [(interface, source, call_id) for interface, source, call_id in lines]


def test_a_capture_of_nothing_spares_a_file_that_stands(network: Network, tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("precious")
    command = [SIPNAT, "trace", "--control", str(tmp_path / "none"), "--pcap", str(path)]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 1
    assert ran.stderr.startswith("sipnat: no sipnat is running")
    assert path.read_text() == "precious"


def test_a_client_that_reads_nothing_delays_no_message_and_learns_what_it_lost(
    network: Network, gateway: Gateway, site: Site
) -> None:
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        deaf.connect(gateway.control)
        deaf.sendall(b'{"version":1,"command":"trace","full":true}\n')
        assert b"watching" in deaf.recv(1000)
        for _ in range(5):
            make_call(site)
        assert gateway.show_mappings("rtp") == []


def test_a_client_that_has_gone_is_forgotten(
    network: Network, gateway: Gateway, tmp_path: Path
) -> None:
    with tracing(network, gateway, tmp_path / "trace") as tracer:
        tracer.process.kill()
        assert wait_until(lambda: clients(network, gateway) == 0, 10)
    assert gateway.is_running


def test_the_end_of_the_gateway_ends_a_trace(
    network: Network, gateway: Gateway, tmp_path: Path
) -> None:
    with tracing(network, gateway, tmp_path / "trace") as tracer:
        assert gateway.stop() == 0
        _, said = tracer.process.communicate(timeout=10)
        assert tracer.process.returncode == 1
    assert "ended its answer early" in said
