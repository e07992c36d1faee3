"""`sipnat show`, beside what test_cli.py says of mappings: filters, new kinds, blocks, --watch."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from alg.cli import app
from alg.cli.rates import Rates
from alg.cli.tables import BLOCK
from alg.io.control import ControlServer
from tests.alg.test_cli import HOSTILE, RTP, SIP, _heed_interrupts

SHOW = [sys.executable, "-m", "alg", "show"]

Row = dict[str, object]
Rows = Callable[[Mapping[str, object]], Iterable[Row]]

COUNTED: Row = {"sent": 1000, "sent_bytes": 172_000, "received": 0, "received_bytes": 0}


class Shower:
    """A gateway that shows what it is told to; `asked` are the requests it was sent."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.asked: list[Row] = []
        self.rows: Rows = lambda request: []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._server = ControlServer(path, {"show": self._show})
        asyncio.run_coroutine_threadsafe(self._server.start(), self._loop).result(5)

    def close(self) -> None:
        """Stops answering."""
        asyncio.run_coroutine_threadsafe(self._server.stop(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def command(self, *arguments: str) -> list[str]:
        """Returns the command line that asks this gateway."""
        return [*SHOW, *arguments, "--control", self.path]

    def print(self, *arguments: str) -> Result:
        """Runs `sipnat show ARGUMENTS`."""
        options = ["show", *arguments, "--control", self.path]
        return CliRunner().invoke(app, options, prog_name="sipnat")

    def _show(self, request: Mapping[str, object]) -> Iterable[Row]:
        self.asked.append(dict(request))
        return self.rows(request)


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Shower]:
    shower = Shower(tmp_path / "control.sock")
    yield shower
    shower.close()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["mappings"], {"what": "mappings"}),
        (
            ["mappings", "--internal", "10.0.0.20", "--kind", "rtp", "--source", "pcp"],
            {"what": "mappings", "internal": "10.0.0.20", "kind": "rtp", "source": "pcp"},
        ),
        (
            ["mappings", "--call-id", "[bold]é"],
            {"what": "mappings", "call_id": "[bold]é"},
        ),
        (["mappings", "--counters"], {"what": "mappings", "counters": True}),
        (
            ["connections", "--internal", "[2001:db8::1]:5060"],
            {"what": "connections", "internal": "[2001:db8::1]:5060"},
        ),
        (["registrations", "--users"], {"what": "registrations", "users": True}),
        (["limits", "--internal", "2001:db8::1"], {"what": "limits", "internal": "2001:db8::1"}),
        (["kernel"], {"what": "kernel"}),
    ],
)
def test_the_gateway_is_asked_for_what_is_wanted(
    gateway: Shower, arguments: list[str], expected: Row
) -> None:
    assert gateway.print(*arguments).exit_code == 0
    assert gateway.asked == [{"version": 1, "command": "show", **expected}]


@pytest.mark.parametrize(
    "arguments",
    [
        ["mappings", "--internal", "phone.example.com"],
        ["mappings", "--internal", "10.0.0.20:0x10"],
        ["mappings", "--kind", "video"],
        ["connections", "--source", "pcp"],
        ["reasons", "--internal", "10.0.0.20"],
    ],
)
def test_a_wrong_filter_exits_2_and_asks_nobody(gateway: Shower, arguments: list[str]) -> None:
    result = gateway.print(*arguments)
    assert (result.exit_code, result.stdout, gateway.asked) == (2, "", [])


def test_counters_are_columns(gateway: Shower) -> None:
    gateway.rows = lambda request: [
        RTP | COUNTED | {"received": 12_345, "received_bytes": 2_123_456_789_012_345},
        SIP | dict.fromkeys(COUNTED),
    ]
    assert gateway.print("mappings", "--counters").stdout == (
        "kind    internal       external         sent bytes got bytes state\n"
        "rtp/udp 10.0.0.20:4000 203.0.113.1:4000 1000 172k  12k 2123T call a84b4c76e6\n"
        "sip/udp 10.0.0.20:5060 203.0.113.1:5060 -    -     -   -     registered\n"
    )


def test_registrations_are_a_table_with_users_where_asked(gateway: Shower) -> None:
    row: Row = {
        "phone": "192.168.100.20:50600",
        "registrar": "203.0.113.210:5060",
        "mapping": "203.0.113.254:50600",
        "transport": "udp",
        "call_id": HOSTILE,
        "expires_in": 599.9,
        "user": f"sip:{HOSTILE}@example.com",
    }
    gateway.rows = lambda request: [row if request.get("users") else row | {"user": None}]
    assert gateway.print("registrations").stdout == (
        "phone                registrar          mapping             ends by\n"
        "192.168.100.20:50600 203.0.113.210:5060 203.0.113.254:50600 599s udp\n"
    )
    text = gateway.print("registrations", "--users").stdout
    assert text.replace("\n", "").isprintable()
    assert all(len(line) <= 80 for line in text.splitlines())
    assert r" udp sip:[bold" in text


def test_limits_and_the_kernel_are_tables(gateway: Shower) -> None:
    limit: Row = {"limit": "max_new_mappings_per_second", "counts": "new mappings", "of": None}
    gateway.rows = lambda request: [limit | {"used": 999, "max": 1000}]
    assert gateway.print("limits").stdout == (
        "limit                       counts       of used max  share\n"
        "max_new_mappings_per_second new mappings -  999  1000 99%\n"
    )
    gateway.rows = lambda request: [
        {"item": "rules", "value": "stand", "max": None},
        {"item": "queue waiting", "value": 3, "max": 8192},
    ]
    assert gateway.print("kernel").stdout == (
        "item          value max\nrules         stand -\nqueue waiting 3     8192\n"
    )
    assert json.loads(gateway.print("kernel", "--json").stdout)[1]["max"] == 8192


@pytest.mark.parametrize("count", [BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 1])
def test_long_tables_come_in_blocks_and_lose_nothing(gateway: Shower, count: int) -> None:
    rows: list[Row] = [
        {"item": "x" * (9 - 3 * (number // BLOCK)), "value": f"v{number}", "max": None}
        for number in range(count)
    ]
    gateway.rows = lambda request: rows
    assert json.loads(gateway.print("kernel", "--json").stdout) == rows
    heading, *lines = gateway.print("kernel").stdout.splitlines()
    assert heading.split() == ["item", "value", "max"]
    assert [line.split()[1] for line in lines] == [f"v{number}" for number in range(count)]
    assert {line.index("v") for line in lines} == {10}


def test_a_failure_behind_the_first_block_is_told_and_the_array_stays_open(
    gateway: Shower,
) -> None:
    def rows(request: Mapping[str, object]) -> Iterator[Row]:
        yield from ({"item": "rules", "value": number} for number in range(3 * BLOCK))
        raise KeyError

    gateway.rows = rows
    result = gateway.print("kernel", "--json")
    assert result.exit_code == 1
    assert result.stdout.startswith('[{"item"') and not result.stdout.rstrip().endswith("]")
    assert result.stderr == "sipnat: the request failed, and the gateway's log says why\n"


def growing(gateway: Shower, rows: Iterable[Row]) -> None:
    """Has counts of traffic grow by 50 packets, and by 8600 bytes, with each request."""
    kept = list(rows)
    gateway.rows = lambda request: [
        row | {"sent": 50 * len(gateway.asked), "sent_bytes": 8600 * len(gateway.asked)}
        for row in kept
    ]


def interrupted(command: list[str], until: Callable[[bytes], bool]) -> tuple[bytes, int]:
    """Returns what a command has written until it was enough, and its status after Ctrl-C."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=_heed_interrupts
    ) as process:
        assert process.stdout and process.stderr
        written = b""
        while not until(written) and (piece := os.read(process.stdout.fileno(), 65536)):
            written += piece
        process.send_signal(signal.SIGINT)
        written += process.stdout.read()
        assert process.stderr.read() == b""
        return written, process.wait(5)


def test_piped_frames_are_tables_with_an_empty_line_after_each(gateway: Shower) -> None:
    growing(gateway, [RTP | COUNTED])
    command = gateway.command("mappings", "--watch", "--internal", "10.0.0.20")
    written, status = interrupted(command, lambda text: text.count(b"\n\n") >= 2)
    assert status == 130
    first, second = written.decode().split("\n\n")[:2]
    assert [line.split() for line in first.splitlines()] == [
        ["kind", "internal", "external", "sent/s", "B/s", "got/s", "B/s", "state"],
        [
            *[
                "rtp/udp",
                "10.0.0.20:4000",
                "203.0.113.1:4000",
                "-",
                "-",
                "-",
                "-",
                "call",
                "a84b4c76e6",
            ]
        ],
    ]
    rates = second.splitlines()[1].split()[3:7]
    assert 30 < int(rates[0]) <= 50
    assert rates[2:] == ["0", "0"]
    assert gateway.asked[0]["counters"] is True
    assert gateway.asked[0]["internal"] == "10.0.0.20"


def test_frames_of_json_are_arrays_with_rates(gateway: Shower) -> None:
    growing(gateway, [RTP | COUNTED])
    command = gateway.command("mappings", "--watch", "--json")
    written, status = interrupted(command, lambda text: text.count(b"]") >= 2)
    assert status == 130
    decoder = json.JSONDecoder()
    first, end = decoder.raw_decode(written.decode())
    second, _ = decoder.raw_decode(written.decode()[end:].lstrip())
    assert first[0]["sent_rate"] is None
    assert 30 < second[0]["sent_rate"] <= 50.1
    assert second[0]["received_rate"] == 0


def test_an_empty_frame_is_a_frame(gateway: Shower) -> None:
    command = gateway.command("connections", "-w")
    written, status = interrupted(command, lambda text: text.endswith(b"\n\n"))
    assert (written, status) == (b"no connections\n\n", 130)


def test_a_watch_ends_when_the_gateway_does(gateway: Shower) -> None:
    growing(gateway, [RTP | COUNTED])
    with subprocess.Popen(
        gateway.command("mappings", "--watch"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout and process.stderr
        os.read(process.stdout.fileno(), 65536)
        Path(gateway.path).unlink()
        assert b"no sipnat is running" in process.stderr.read()
        assert process.wait(5) == 1


def test_a_terminal_is_redrawn_in_place_and_left_as_it_was(gateway: Shower) -> None:
    wide: Row = {each: f"[{'2001:' * 7}{each[:4]}]:16384" for each in ("internal", "external")}
    hostile = RTP | COUNTED | {"call_id": HOSTILE}
    growing(gateway, [hostile, hostile | wide, *[SIP | COUNTED] * 39])
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "80", "LINES": "12"}
    with subprocess.Popen(
        gateway.command("mappings", "--watch"),
        stdout=theirs,
        env=environment,
        preexec_fn=_heed_interrupts,
    ) as process:
        os.close(theirs)
        written = b""
        while written.count(b"\x1b[H") < 2:
            written += os.read(ours, 65536)
        process.send_signal(signal.SIGINT)
        try:
            while piece := os.read(ours, 65536):
                written += piece
        except OSError:  # Linux's word for a terminal whose other end is closed
            pass
        finally:
            os.close(ours)
        assert process.wait(5) == 130
    text = written.decode()
    assert text.startswith("\x1b[?1049h\x1b[?25l")
    drawn, left = text.split("\x1b[?25h\x1b[?1049l")
    frames = drawn.split("\x1b[H")[1:]
    for frame in [*frames[:2], left]:
        shown = re.sub(r"\x1b\[[0-9;]*[mKJ]", "", frame).strip("\r\n").split("\r\n")
        assert len(shown) == 11
        assert all(len(line) <= 80 and line.isprintable() for line in shown)
        assert shown[-1] == "and 32 more mappings"
    assert frames[0].endswith("\x1b[J")


def test_rates_are_of_the_time_between_and_of_the_same_row() -> None:
    rates = Rates(("name",), ("sent",))
    assert list(rates.add([{"name": "a", "sent": 100}], 10.0)) == [
        {"name": "a", "sent": 100, "sent_rate": None}
    ]
    rows: list[Row] = [{"name": "b", "sent": 7}, {"name": "a", "sent": 175}]
    assert [row["sent_rate"] for row in rates.add(rows, 11.5)] == [None, 50.0]
    rows = [{"name": "a", "sent": 3}, {"name": "b", "sent": None}]
    assert [row["sent_rate"] for row in rates.add(rows, 12.0)] == [None, None]
    assert [row["sent_rate"] for row in rates.add(rows[:1], 13.0)] == [0.0]


def test_who_reads_slowly_gets_all_rows_long_after_the_gateway_has_sent_them(
    gateway: Shower,
) -> None:
    sent = threading.Event()
    count = 20 * BLOCK

    def rows(request: Mapping[str, object]) -> Iterator[Row]:
        yield from ({"item": "rules", "value": number} for number in range(count))
        sent.set()

    gateway.rows = rows
    with subprocess.Popen(gateway.command("kernel"), stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert sent.wait(10), "the gateway waits for the reader"
        assert sum(1 for _ in process.stdout) == count + 1
        assert process.wait(5) == 0
