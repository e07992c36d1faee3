"""The commands as a user meets them: what is printed where, and the exit status."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from typer.testing import CliRunner, Result

from alg.cli import app, doctor
from alg.config import Config
from tests.alg.conftest import Row, Serve
from tests.alg.terminal import on_terminal

SIPNAT = [sys.executable, "-m", "alg"]
SIDES = ["--internal", "lan0", "--external", "wan0"]
HOSTILE = "[bold]\x1b]0;owned\x07\x9b31m\u202e%s\n"

SIP: dict[str, object] = {
    "transport": "udp",
    "internal": "10.0.0.20:5060",
    "external": "203.0.113.1:5060",
    "kind": "sip",
    "remote": None,
    "call_id": None,
    "state": "registered",
    "expires_in": 3599.96,
}
RTP: dict[str, object] = SIP | {
    "internal": "10.0.0.20:4000",
    "external": "203.0.113.1:4000",
    "kind": "rtp",
    "remote": "203.0.113.10:4000",
    "call_id": "a84b4c76e6",
    "state": "call",
    "expires_in": 299.5,
}


class FakeDaemon(ModuleType):
    """Stands for alg.daemon, and fails at will."""

    class StartError(Exception):
        pass

    def __init__(self) -> None:
        super().__init__("alg.daemon")
        self.fault: str | None = None
        self.seen: Config | None = None

    def run_daemon(self, config: Config, reread: Callable[[], Config]) -> int:
        self.ruleset_text(config)
        return 0

    def ruleset_text(self, config: Config) -> str:
        self.seen = config
        if self.fault:
            raise self.StartError(self.fault)
        return "table inet sipnat {\n}\n"


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> FakeDaemon:
    fake = FakeDaemon()
    monkeypatch.setitem(sys.modules, "alg.daemon", fake)
    return fake


def sipnat(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, prog_name="sipnat")


def show(path: str, *options: str) -> Result:
    return sipnat("show", "mappings", "--control", path, *options)


def test_run_gives_the_daemon_what_file_and_options_say(daemon: FakeDaemon, tmp_path: Path) -> None:
    file = tmp_path / "sipnat.toml"
    file.write_text('internal = ["lan9"]\nexternal = "wan0"\nqueue = 7\n')
    options = ["--internal", "lan0", "--internal", "lan1", "--control", "/tmp/c", "--log-level"]
    result = sipnat("run", "--config", str(file), *options, "debug")
    assert (result.exit_code, result.output) == (0, "")
    assert daemon.seen == Config(
        internal=("lan0", "lan1"), external="wan0", queue=7, control="/tmp/c", log_level="debug"
    )


def test_rules_prints_the_ruleset_and_nothing_else(daemon: FakeDaemon) -> None:
    result = sipnat("rules", *SIDES)
    assert (result.exit_code, result.output) == (0, "table inet sipnat {\n}\n")
    assert daemon.seen == Config(internal=("lan0",), external="wan0")


@pytest.mark.parametrize("command", ["run", "rules"])
def test_what_cannot_start_says_why_and_exits_1(daemon: FakeDaemon, command: str) -> None:
    daemon.fault = "there is no interface wan0"
    result = sipnat(command, *SIDES)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "sipnat: there is no interface wan0\n"


def test_a_crash_has_an_exit_status_of_its_own_and_says_where(
    daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(FakeDaemon, "ruleset_text")
    result = sipnat("run", *SIDES)
    assert result.exit_code == 70
    assert "in run_daemon" in result.stderr
    assert "AttributeError" in result.stderr


@pytest.mark.parametrize("command", ["run", "rules"])
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], "internal is missing: give --internal"),
        (SIDES[:2], "external is missing: give --external"),
        (["--internal", "lan0", "--external", "lan0"], '--external is "lan0", allowed is an '),
        (["--config", "/missing.toml"], "/missing.toml: cannot be read: No such file"),
        ([*SIDES, "--log-level", "loud"], '--log-level is "loud", allowed is "debug", "info"'),
    ],
)
def test_a_wrong_configuration_is_one_sentence_and_exit_2(
    daemon: FakeDaemon, command: str, options: list[str], expected: str
) -> None:
    result = sipnat(command, *options)
    assert (result.exit_code, result.stdout, daemon.seen) == (2, "", None)
    assert result.stderr.startswith(f"sipnat: {expected}")
    assert result.stderr.count("\n") == 1


def test_an_unknown_option_exits_2(daemon: FakeDaemon) -> None:
    result = sipnat("run", *SIDES, "--extrenal", "wan1")
    assert (result.exit_code, result.stdout, daemon.seen) == (2, "", None)
    assert "--extrenal" in result.stderr


def test_the_plain_table_is_aligned_and_stable(serve: Serve) -> None:
    result = show(serve([SIP, RTP, RTP | {"kind": "rtcp", "remote": None, "expires_in": -5}]))
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == (
        "kind     internal       external         remote            ends state\n"
        "sip/udp  10.0.0.20:5060 203.0.113.1:5060 -                 59m  registered\n"
        "rtp/udp  10.0.0.20:4000 203.0.113.1:4000 203.0.113.10:4000 299s call a84b4c76e6\n"
        "rtcp/udp 10.0.0.20:4000 203.0.113.1:4000 -                 0s   call a84b4c76e6\n"
    )


def test_a_long_call_id_is_cut_at_80_columns(serve: Serve) -> None:
    wide: dict[str, object] = {
        "internal": "192.168.100.20:16384",
        "external": "203.0.113.254:16384",
        "call_id": "c" * 60_000,
    }
    lines = show(serve([RTP | wide, SIP])).stdout.splitlines()
    assert [len(line) for line in lines[:2]] == [77, 80]
    assert lines[1].endswith(" call cc~")
    assert "203.0.113.10:4000 299s" in lines[1]


def test_no_endpoint_is_ever_cut(serve: Serve) -> None:
    internal, external, remote = (f"[2001:db8:1111:2222:3333:4444:5:666{n}]:16384" for n in "123")
    ends: dict[str, object] = {"internal": internal, "external": external, "remote": remote}
    control = serve([RTP | ends])
    line = show(control).stdout.splitlines()[1]
    assert line.split() == ["rtp/udp", internal, external, remote, "299s", "call", "a8~"]
    shown = on_terminal("show", "mappings", "--control", control)
    assert all(end in shown for end in (internal, external, remote, "call a8"))


def test_an_external_endpoint_that_is_the_internal_one_is_not_said_again(serve: Serve) -> None:
    phone = "[2001:db8:1::20]:5060"
    ends: dict[str, object] = dict.fromkeys(("internal", "external"), phone)
    line = show(serve([SIP | ends])).stdout.splitlines()[1]
    assert line.split() == ["sip/udp", phone, "same", "-", "59m", "registered"]


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(999.9, "999s"), (1000, "16m"), (59_999, "999m"), (60_000, "16h"), (42 * 86400, "42d")],
)
def test_time_left_takes_four_characters(serve: Serve, seconds: float, expected: str) -> None:
    assert f" {expected} " in show(serve([SIP | {"expires_in": seconds}])).stdout


def test_rows_of_another_version_are_shown_as_far_as_known(serve: Serve) -> None:
    result = show(serve([{"kind": "sip", "colour": "green"}]))
    assert result.exit_code == 0
    assert result.stdout.splitlines()[1].split() == ["sip/-", "-", "-", "-", "-", "-"]


def test_json_is_the_rows_as_sent(serve: Serve) -> None:
    rows: list[Row] = [SIP, RTP | {"call_id": HOSTILE, "new": [1]}]
    result = show(serve(rows), "--json")
    assert json.loads(result.stdout) == rows
    assert result.stdout.isascii()
    assert "\x1b" not in result.stdout


def test_an_empty_table(serve: Serve) -> None:
    path = serve([])
    assert show(path).stdout == "no mappings\n"
    assert show(path, "--json").stdout == "[]\n"


def test_connections_are_a_table_and_what_is_not_known_is_a_dash(serve: Serve) -> None:
    row: Row = {
        "phone": "10.0.0.20:45000",
        "server": "203.0.113.10:5060",
        "mapping": None,
        "age": 61.5,
        "from_phone": 3,
        "to_phone": 4,
        "state": "opaque",
    }
    path = serve([row])
    lines = sipnat("show", "connections", "--control", path).stdout.splitlines()
    assert lines[1].split() == f"{row['phone']} {row['server']} - 61s 3 4 opaque".split()
    assert json.loads(sipnat("show", "connections", "--json", "--control", path).stdout) == [row]


@pytest.mark.parametrize(
    ("kept", "said"), [("kept", "kept "), ("changed", "changed"), (None, "-    ")]
)
def test_what_is_above_is_a_table(serve: Serve, kept: str | None, said: str) -> None:
    row: Row = {
        "public": "203.0.113.1",
        "wire": "192.168.1.2",
        "known_by": "stun",
        "nat": "port restricted cone",
        "ports": kept,
        "granted": 0,
        "state": "in use",
    }
    ports = "ports".ljust(len(said))
    lines = sipnat("show", "upstream", "--control", serve([row])).stdout.splitlines()
    assert lines == [
        f"public      here        known by nat above            {ports} granted state",
        f"203.0.113.1 192.168.1.2 stun     port restricted cone {said} 0       in use",
    ]


def test_reasons_are_a_table(serve: Serve) -> None:
    path = serve([{"reason": "not-sip", "count": 7, "counted_by": "gateway"}])
    lines = sipnat("show", "reasons", "--control", path).stdout.splitlines()
    assert [line.split() for line in lines] == [
        ["reason", "counted", "by", "count"],
        ["not-sip", "gateway", "7"],
    ]


def test_a_hostile_call_id_is_harmless_in_the_plain_table(serve: Serve) -> None:
    text = show(serve([RTP | {"call_id": HOSTILE, "remote": None}])).stdout
    assert text.count("\n") == 2
    assert text.replace("\n", "").isprintable()
    assert r"call [bold]\x1b]0;owned\x07" in text


def test_without_a_gateway_show_says_so_and_exits_1(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    result = show(str(path), "--json")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"sipnat: no sipnat is running: nobody answers at {path}\n"


def test_half_an_answer_is_not_printed(serve: Serve) -> None:
    def rows() -> Iterator[Row]:
        yield RTP
        raise KeyError

    result = show(serve(rows()), "--json")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "sipnat: the request failed, and the gateway's log says why\n"


def test_version_is_one_line_and_needs_little() -> None:
    code = (
        "import sys; sys.argv[1:] = ['version']\n"
        "from alg.cli import main\n"
        "try: main()\n"
        "finally: print(*sorted({'rich', 'asyncio', 'pyroute2'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert re.fullmatch(r"sipnat \S.*\n\n", result.stdout)
    assert (result.returncode, result.stderr) == (0, "")


def test_help_is_plain_when_piped() -> None:
    result = subprocess.run([*SIPNAT, "run", "--help"], capture_output=True, text=True)
    assert result.returncode == 0
    assert result.stdout.startswith("Usage: sipnat run [OPTIONS]\n")
    assert result.stdout.isascii()
    assert result.stdout.replace("\n", "").isprintable()


@pytest.mark.parametrize("count", [1, 5000])
def test_a_closed_pipe_ends_silently(serve: Serve, count: int) -> None:
    command = [*SIPNAT, "show", "mappings", "--control", serve([RTP] * count)]
    environment = os.environ | {"PYTHONUNBUFFERED": ""}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout and process.stderr
        process.stdout.close()
        assert process.stderr.read() == b""


def test_ctrl_c_ends_a_client_with_130(tmp_path: Path) -> None:
    path = str(tmp_path / "control.sock")
    with socket.socket(socket.AF_UNIX) as hung:
        hung.bind(path)
        hung.listen()
        command = [*SIPNAT, "show", "mappings", "--control", path]
        with subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=_heed_interrupts,
        ) as process:
            with hung.accept()[0] as client:
                client.recv(4096)
                process.send_signal(signal.SIGINT)
                assert process.wait(5) == 130
            assert process.stdout and process.stderr
            assert (process.stdout.read(), process.stderr.read()) == (b"", b"")


def _heed_interrupts() -> None:
    """Undoes what a shell does to jobs in the background, which ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_a_terminal_gets_a_rich_table(serve: Serve) -> None:
    shown = on_terminal("show", "mappings", "--control", serve([SIP, RTP]))
    assert "\x1b[1mkind" in shown
    assert "203.0.113.10:4000" in shown


def test_a_hostile_call_id_is_harmless_on_a_terminal(serve: Serve) -> None:
    rows = [RTP | {"call_id": HOSTILE, "remote": None}]
    shown = on_terminal("show", "mappings", "--control", serve(rows))
    text = re.sub(r"\x1b\[[0-9;]*m", "", shown).replace("\r\n", "")
    assert text.isprintable()
    assert r"call [bold]\x1b]0;owned\x07" in text


@pytest.mark.parametrize(
    ("source", "state", "shown"),
    [
        ("pcp", "leased", "pcp"),
        ("static", "registered", "static registered"),
        ("sip", "registered", "registered"),
    ],
)
def test_who_asked_for_a_mapping_stands_beside_its_state(
    serve: Serve, source: str, state: str, shown: str
) -> None:
    text = show(serve([SIP | {"source": source, "state": state, "expires_in": None}])).stdout
    assert text.splitlines()[1].endswith(f" -    {shown}")


def test_before_the_first_start_the_doctor_reads_what_was_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "sipnat.toml"
    monkeypatch.setattr(doctor, "_SERVICE", path)
    monkeypatch.setattr(doctor, "DEFAULT_CONTROL", str(tmp_path / "control.sock"))
    missing = CliRunner().invoke(app, ["doctor"], prog_name="sipnat")
    assert missing.stderr.startswith("sipnat: no sipnat is running: nobody answers at ")
    path.write_text('internal = ["nolan0"]\nexternal = "nowan0"\n')
    read = CliRunner().invoke(app, ["doctor"], prog_name="sipnat")
    assert read.stderr == f"sipnat: none is running, so {path} is read\n"
    assert (read.exit_code, "there is no interface no" in read.stdout) == (2, True)
    named = CliRunner().invoke(app, ["doctor", "--control", str(tmp_path / "other.sock")])
    assert (named.exit_code, named.stdout) == (2, "")
