"""`sipnat why` and `sipnat ladder` as a user meets them, from a gateway and from captures."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner, Result

from alg.cli import app
from tests.alg.conftest import Serve
from tests.alg.observe.test_ring import call
from tests.alg.observe.test_story import rows_of
from tests.alg.observe.wire import udp, write_pcap
from tests.alg.playbook import Playbook, invite, request, response, sdp
from tests.alg.terminal import on_terminal

HERE, THERE = "10.0.0.20:5060", "203.0.113.10:5060"
NETWORK = ["--internal", "10.0.0.0/24", "--external", "203.0.113.1"]


def sipnat(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)], prog_name="sipnat")


def test_why_prints_the_story_or_its_rows(serve: Serve) -> None:
    rows = rows_of(call())
    control = serve(rows)
    result = sipnat("why", "call-1", "--control", control)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "the re-INVITE was refused (488): its offer is rolled back" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert json.loads(sipnat("why", "call-1", "--json", "--control", control).stdout) == rows
    assert json.loads(
        sipnat("why", "--internal", "10.0.0.20", "--json", "--control", control).stdout
    )
    shown = on_terminal("why", "call-1", "--control", control)
    assert "\x1b[" in shown and "rolled back" in shown


def test_ladder_prints_text_or_writes_a_picture(serve: Serve, tmp_path: Path) -> None:
    control = serve(rows_of(call()))
    result = sipnat("ladder", "call-1", "--control", control)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "|----INVITE (offer)---->|-5 edits->|----INVITE (offer)---->|" in result.stdout
    picture = tmp_path / "call.svg"
    result = sipnat("ladder", "call-1", "--control", control, "--svg", picture)
    assert (result.exit_code, result.output) == (0, "")
    assert ElementTree.fromstring(picture.read_text()).tag.endswith("svg")
    piped = sipnat("ladder", "call-1", "--control", control, "--svg", "-")
    assert piped.stdout.strip() == picture.read_text().strip()


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["why"], 2, "name a call or give --internal, and not both"),
        (
            ["why", "x", "--internal", "10.0.0.20"],
            2,
            "name a call or give --internal, and not both",
        ),
        (["why", "x", "--control", "/nowhere"], 1, "no sipnat is running: nobody answers at"),
        (["ladder"], 2, "name a call, or give --capture"),
        (["ladder", "x", "--internal", "10.0.0.0/8"], 2, "--internal and --external are for"),
        (["ladder", "--capture", "/nowhere.pcap"], 2, "internal is missing: give --internal"),
        (["ladder", "--capture", "/nowhere.pcap", *NETWORK], 1, "/nowhere.pcap: cannot be read"),
    ],
)
def test_what_cannot_be_told_is_one_sentence(
    arguments: list[str], status: int, sentence: str
) -> None:
    result = sipnat(*arguments)
    assert (result.exit_code, result.stdout) == (status, "")
    assert result.stderr.startswith(f"sipnat: {sentence}")
    assert result.stderr.count("\n") == 1


def test_rows_that_are_not_understood_and_files_that_cannot_be_written(
    serve: Serve, tmp_path: Path
) -> None:
    control = serve(rows_of(call()))
    result = sipnat("ladder", "call-1", "--control", control, "--svg", tmp_path)
    assert (result.exit_code, result.stderr) == (
        1,
        f"sipnat: {tmp_path}: cannot be written: Is a directory\n",
    )


@pytest.mark.parametrize("command", ["why", "ladder"])
def test_rows_of_something_else_are_one_sentence(serve: Serve, command: str) -> None:
    result = sipnat(command, "x", "--control", serve([{"event": 7}]))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("sipnat: a row of the gateway is not understood: ")


def test_a_beginning_that_several_calls_share_names_them(serve: Serve) -> None:
    rows = rows_of(call("call-1")) + rows_of(call("call-2"))
    result = sipnat("ladder", "call~", "--control", serve(rows))
    assert result.exit_code == 1
    assert result.stderr == "sipnat: there are several calls, name one of call-1, call-2\n"


def test_of_many_calls_with_long_names_a_few_are_named(serve: Serve) -> None:
    rows = [{**rows_of(call())[0], "call_id": f"call-{i}{'x' * 9000}"} for i in range(30)]
    result = sipnat("ladder", "call~", "--control", serve(rows))
    assert result.exit_code == 1 and result.stderr.endswith(" and 20 more\n")
    assert len(result.stderr) < 2000


def capture(path: Path) -> Path:
    """Writes a call as it is seen on the internal side, with media both ways, and a second one."""
    play = Playbook()
    sent = invite(body=sdp("10.0.0.20", 4000))
    answer = response(play.outbound(sent).payload, 200, body=sdp("203.0.113.10", 40000))
    taken = play.inbound(answer).payload
    bye = request("BYE", cseq=2, to_tag="b")
    ended = play.inbound(response(play.outbound(bye).payload, 200)).payload
    media = [udp("10.0.0.20:4000", "203.0.113.10:40000", b"\x80" * 20)] * 7
    media += [udp("203.0.113.10:40000", "10.0.0.20:4000", b"\x80" * 20)] * 3
    frames = [udp(HERE, THERE, sent), udp(THERE, HERE, taken)]
    frames += [udp(HERE, THERE, request("ACK", to_tag="b")), *media]
    frames += [udp(HERE, THERE, bye), udp(THERE, HERE, ended)]
    frames.append(udp(HERE, THERE, invite(call_id="call-2")))
    return write_pcap(path, frames)


def test_a_ladder_of_a_capture_counts_its_media(tmp_path: Path) -> None:
    file = capture(tmp_path / "call.pcap")
    result = sipnat("ladder", "call-1", "--capture", file, *NETWORK)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "INVITE (offer)" in result.stdout and "|-5 edits->|" in result.stdout
    assert "=rtp 7 packets=" in result.stdout and "=rtp 3 packets=" in result.stdout
    lines = result.stdout.splitlines()
    media, bye = (
        next(i for i, line in enumerate(lines) if text in line) for text in ("rtp 7", "--BYE--")
    )
    assert media < bye


def test_a_ladder_of_a_capture_of_several_calls_names_them(tmp_path: Path) -> None:
    file = capture(tmp_path / "call.pcap")
    result = sipnat("ladder", "--capture", file, *NETWORK)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "sipnat: there are several calls, name one of call-1, call-2\n"
    result = sipnat("ladder", "nobody", "--capture", file, *NETWORK)
    assert result.stderr == "sipnat: there is no call nobody\n"


def test_a_capture_of_both_sides_tells_each_message_once(tmp_path: Path) -> None:
    play = Playbook()
    sent = invite(body=sdp("10.0.0.20", 4000))
    left = play.outbound(sent).payload
    rings = response(left, 180)
    frames = [udp(HERE, THERE, sent), udp("203.0.113.1:5060", THERE, left)]
    # A response that comes twice is drawn twice.
    frames += [
        udp(THERE, "203.0.113.1:5060", rings),
        udp(THERE, HERE, play.inbound(rings).payload),
    ] * 2
    both = write_pcap(tmp_path / "both.pcap", frames)
    shown = sipnat("ladder", "--capture", both, *NETWORK).stdout
    assert (shown.count("INVITE"), shown.count("180 Ringing")) == (2, 4), "an arrow on either side"

    outside = write_pcap(tmp_path / "outside.pcap", [udp("203.0.113.1:5060", THERE, left)])
    result = sipnat("ladder", "--capture", outside, *NETWORK)
    assert result.exit_code == 1
    assert result.stderr == (
        "sipnat: no message of the call crosses the gateway: capture the internal side\n"
    )
