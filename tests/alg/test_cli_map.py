"""`sipnat map` as a script meets it: what is sent, what is printed, and the exit status."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner, Result

from alg.cli import app
from tests.alg.conftest import LEASE, Serve

ENDS = ("10.0.0.20:4000", "203.0.113.1:4000")


def sipnat(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, prog_name="sipnat")


def test_map_sends_what_is_given_and_nothing_else(
    serve: Serve, asked: list[dict[str, object]]
) -> None:
    where = ("--internal", "10.0.0.20:4000", "--control", serve([]))
    for arguments in (
        ("add", *where, "--type", "rtp", "--external", "20000", "--lifetime", "60"),
        ("update", *where, "--transport", "tls", "--remote", "203.0.113.10:5060", "--name", "n"),
        ("list", *where[2:]),
    ):
        assert sipnat("map", *arguments).exit_code == 0
    base = {"version": 1, "command": "map"}
    ends = {"internal": "10.0.0.20:4000", "transport": "udp", "name": ""}
    assert asked == [
        base | ends | {"action": "add", "type": "rtp", "external": 20000, "lifetime": 60.0},
        base
        | {"action": "update", "internal": "10.0.0.20:4000", "transport": "tls", "name": "n"}
        | {"remote": "203.0.113.10:5060"},
        base | {"action": "list"},
    ]


def test_leases_are_a_table_and_json_as_sent(serve: Serve) -> None:
    path = serve([])
    lines = sipnat("map", "list", "--control", path).stdout.splitlines()
    assert lines[1].split() == [
        "any/tcp",
        "10.0.0.20:4000",
        "203.0.113.1:4000",
        "-",
        "-",
        "pcp",
        "00ff",
    ]
    assert json.loads(sipnat("map", "list", "--json", "--control", path).stdout) == [LEASE]


def test_what_the_gateway_refuses_exits_1_with_its_sentence(serve: Serve) -> None:
    where = ("--internal", "10.0.0.20:4000", "--control", serve([]))
    result = sipnat("map", "release", *where)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "sipnat: there is no such mapping\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("--type", "rtp"),
        ("--internal", "10.0.0.20:4000"),
        ("--internal", "10.0.0.20", "--type", "rtp"),
        ("--internal", "10.0.0.20:4000", "--type", "video"),
        ("--internal", "10.0.0.20:4000", "--type", "rtp", "--transport", "sctp"),
        ("--internal", "10.0.0.20:4000", "--type", "rtp", "--remote", "there"),
        ("--internal", "10.0.0.20:4000", "--type", "rtp", "--external", "0"),
        ("--internal", "10.0.0.20:4000", "--type", "rtp", "--lifetime", "0"),
    ],
)
def test_map_told_wrongly_exits_2_and_asks_for_nothing(
    serve: Serve, asked: list[dict[str, object]], arguments: tuple[str, ...]
) -> None:
    result = sipnat("map", "add", *arguments, "--control", serve([]))
    assert (result.exit_code, result.stdout, asked) == (2, "", [])
    assert result.stderr
