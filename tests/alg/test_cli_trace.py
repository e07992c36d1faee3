"""`sipnat trace` as a user meets it; tests/netns/test_trace.py has live calls."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from alg.cli import app
from alg.observe.capture import Capture
from alg.observe.story import passage_row
from tests.alg.conftest import Serve
from tests.alg.observe.test_ring import call
from tests.alg.terminal import on_terminal

HOSTILE = "\x1b]0;owned\x07\x9b31m\u202e<b>\n"
WATCHING = {"event": "watching", "time": 0.0, "internal": ["lan0"], "external": "wan0"}
PASSAGES = call().passages
MESSAGES = [
    dict(passage_row(each, 1e9, number, is_full=True)) for number, each in enumerate(PASSAGES, 1)
]
ROWS = [WATCHING, *MESSAGES, {"event": "lost", "count": 3}]


def sipnat(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)], prog_name="sipnat")


def test_lines_are_plain_where_piped_and_coloured_on_a_terminal(serve: Serve) -> None:
    control = serve(ROWS)
    result = sipnat("trace", "--control", control)
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert len(lines) == len(MESSAGES) + 1
    assert all(line.isprintable() and len(line) <= 80 for line in lines)
    assert lines[-1] == "... 3 more are not shown, because they came too fast"
    shown = on_terminal("trace", "--control", control)
    assert "\x1b[32m" in shown
    assert lines[0] in shown


def test_json_is_a_row_a_line(serve: Serve) -> None:
    result = sipnat("trace", "--json", "--control", serve(ROWS))
    assert [json.loads(line) for line in result.stdout.splitlines()] == ROWS


def test_a_capture_is_written_and_says_what_it_lacks(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "both.pcapng"
    result = sipnat("trace", "--pcap", path, "--control", serve(ROWS))
    assert result.exit_code == 0
    assert result.stdout == ""
    said = f"{len(MESSAGES)} messages captured, 3 are missing, because they came too fast"
    assert result.stderr == f"sipnat: {said}\n"
    assert len(list(Capture(path))) == 2 * len(MESSAGES)


def test_a_capture_that_cannot_be_written_is_a_sentence(serve: Serve) -> None:
    result = sipnat("trace", "--pcap", "/nowhere/x", "--control", serve(ROWS))
    assert result.exit_code == 1
    assert result.stderr == "sipnat: /nowhere/x cannot be written: No such file or directory\n"


@pytest.mark.parametrize("options", [(), ("--full",)])
def test_what_strangers_wrote_does_no_harm(serve: Serve, options: tuple[str, ...]) -> None:
    hostile = MESSAGES[0] | {"method": HOSTILE, "call_id": HOSTILE * 1000, "detail": HOSTILE}
    control = serve([WATCHING, hostile])
    result = sipnat("trace", *options, "--control", control)
    assert result.exit_code == 0
    assert all(line.isprintable() for line in result.stdout.splitlines())
    assert "\x1b]" not in on_terminal("trace", *options, "--control", control)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--pcap", "x", "--full"), "--pcap goes with neither --full nor --json"),
        (("--pcap", "x", "--json"), "--pcap goes with neither --full nor --json"),
        (("--count", "0"), "Invalid value for '--count'"),
        (("--internal", "phone1"), "allowed is such as 10.0.0.20 or 10.0.0.20:5060"),
    ],
)
def test_options_that_make_no_sense_are_said(options: tuple[str, ...], said: str) -> None:
    result = sipnat("trace", *options)
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())
