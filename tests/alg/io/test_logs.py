"""The log in each of its forms: what strangers wrote does no harm in any, and no user is named."""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from alg.io.logs import (
    JOURNAL,
    JournalHandler,
    JsonLines,
    LogFormat,
    TextLines,
    encode_entry,
    set_up_logging,
)

HOSTILE = "\x1b]0;owned\x07\n\x9b31m\u202e"
CALL_ID = "a84b@10.0.0.20" + HOSTILE
JOURNALD = "/lib/systemd/systemd-journald"


def record(text: str, level: int = logging.INFO, **fields: object) -> logging.LogRecord:
    made = logging.makeLogRecord({"name": "sipnat", "msg": text, "levelno": level})
    made.levelname = logging.getLevelName(level)
    made.__dict__.update(fields)
    return made


def failure(text: str) -> logging.LogRecord:
    try:
        raise ValueError(text)
    except ValueError:
        return record("it failed", logging.ERROR, exc_info=sys.exc_info())


def test_a_line_of_text_is_one_line_whatever_is_in_it() -> None:
    line = TextLines().format(record(f"opened {HOSTILE}"))
    assert line == r"sipnat: opened \x1b]0;owned\x07\n\x9b31m\u202e"


def test_a_trace_stands_below_its_line_and_cannot_forge_one() -> None:
    first, *trace = TextLines().format(failure(f"{HOSTILE}")).split("\n")
    assert first == "sipnat: it failed"
    assert trace[0].startswith("Traceback")
    assert all(line.isprintable() for line in trace)
    assert not any(line.startswith("sipnat:") for line in trace)


def test_a_line_of_json_has_the_fields_it_was_given() -> None:
    made = record("opened rtp", call_id=CALL_ID, internal="10.0.0.20:4000", reason=None)
    line = JsonLines().format(made)
    assert line.isascii() and line.isprintable()
    row = json.loads(line)
    assert row["time"].endswith("Z")
    assert (row["level"], row["logger"], row["message"]) == ("info", "sipnat", "opened rtp")
    assert (row["call_id"], row["internal"]) == (CALL_ID, "10.0.0.20:4000")
    assert not row.keys() & {"reason", "trace"}


def test_a_field_is_cut_before_it_fills_the_disk() -> None:
    row = json.loads(JsonLines().format(record("opened rtp", call_id="x" * 60_000)))
    assert len(row["call_id"]) < 300


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("refused sip:alice@example.com", "refused sip:*@example.com"),
        ("<SIPS:+49301234:pw@192.0.2.1;x=y>", "<SIPS:*@192.0.2.1;x=y>"),
        ("tel:+49301234;phone-context=x", "tel:*;phone-context=x"),
        ("opened sip 10.0.0.20:5060", "opened sip 10.0.0.20:5060"),
    ],
)
def test_nothing_above_debug_names_a_user(text: str, shown: str) -> None:
    assert TextLines().format(record(text, logging.WARNING)) == f"sipnat: {shown}"
    assert json.loads(JsonLines().format(record("x", call_id=text)))["call_id"] == shown
    assert TextLines().format(record(text, logging.DEBUG)) == f"sipnat: {text}"
    assert shown in TextLines().format(failure(text))


def test_an_entry_of_the_journal_has_values_of_any_kind() -> None:
    entry = encode_entry([("MESSAGE", "one"), ("SIPNAT_CALL_ID", "two\nlines")])
    length = (9).to_bytes(8, "little")
    assert entry == b"MESSAGE=one\nSIPNAT_CALL_ID\n" + length + b"two\nlines\n"


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(tmp_path / "journal"))
        journal.settimeout(5)
        yield journal


def test_a_full_journal_is_not_waited_for_and_what_it_lacks_is_said(
    journal: socket.socket,
) -> None:
    handler = JournalHandler(journal.getsockname())
    for _ in range(1000):
        handler.emit(record("one of many"))
    journal.setblocking(False)
    taken = 0
    with pytest.raises(BlockingIOError):
        while journal.recv(1 << 16):
            taken += 1
    handler.emit(record("later"))
    entry = journal.recv(1 << 16).decode()
    assert entry.startswith(f"MESSAGE=later ({1000 - taken} entries before it are lost)\n")
    assert "\nPRIORITY=6\nSYSLOG_IDENTIFIER=sipnat\n" in entry
    handler.close()


def test_without_a_journal_lines_go_to_standard_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    handler = JournalHandler(str(tmp_path / "none"))
    handler.emit(record("opened rtp"))
    handler.close()
    assert capsys.readouterr().err == "sipnat: opened rtp\n"


@pytest.mark.parametrize(
    ("form", "expected"), [("text", "sipnat: hello"), ("auto", "sipnat: hello"), ("json", "{")]
)
def test_the_form_can_be_set_again_and_again(
    form: LogFormat, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        set_up_logging("error", "json")
        set_up_logging("info", form)
        logging.getLogger("sipnat").info("hello")
        logging.getLogger("sipnat").debug("too much")
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(expected)
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


SCRIPT = f"""
set -e
mount -t tmpfs none /run/systemd
mkdir -p /run/systemd/journal /run/log/journal
mount -t tmpfs none /run/log/journal
{JOURNALD} & journald=$!
trap 'kill $journald' EXIT
for _ in $(seq 50); do [ -S {JOURNAL} ] && break; sleep 0.1; done
"$PYTHON" -c '
import logging
from alg.io.logs import set_up_logging
set_up_logging("info", "journal")
log = logging.getLogger("sipnat")
log.warning("opened rtp", extra={{"call_id": "a\\nb", "internal": "10.0.0.20:4000"}})
log.error("x" * 1000000)
'
for _ in $(seq 50); do
    found=$(journalctl -D /run/log/journal -o json SIPNAT_INTERNAL=10.0.0.20:4000 2>/dev/null)
    [ -n "$found" ] && break; sleep 0.1
done
printf '%s' "$found"
"""


@pytest.mark.netns
def test_journald_itself_has_the_fields() -> None:
    if not os.path.exists(JOURNALD) or shutil.which("journalctl") is None:
        pytest.skip("there is no journald")
    ran = subprocess.run(
        ["unshare", "--mount", "sh", "-c", SCRIPT],
        env=os.environ | {"PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=40,
    )
    assert ran.returncode == 0, ran.stderr
    entry = json.loads(ran.stdout)
    assert entry["MESSAGE"] == "opened rtp"
    assert entry["PRIORITY"] == "4"
    assert entry["SIPNAT_CALL_ID"] == "a\nb"
    assert entry["SYSLOG_IDENTIFIER"] == "sipnat"
    assert "sipnat:" not in ran.stderr, "what is too long is cut, and not refused"
