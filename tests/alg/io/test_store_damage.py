"""No file keeps the gateway from running: damage is set aside, what is another's is left."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from alg.io import store as store_module
from alg.io.store import Store
from tests.alg.io.test_store import (
    BOOT,
    CALL,
    MAPPING,
    ROWS,
    locked,
    opened,
    run_once,
    wait_until,
    warnings,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lib" / "state.db"


# Files that cannot be used


def cut(share: float) -> Callable[[Path], None]:
    return lambda path: os.truncate(path, int(path.stat().st_size * share))


def overwrite(start: float, content: bytes) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        with path.open("r+b") as file:
            file.seek(int(path.stat().st_size * start))
            file.write(content)

    return damage


def drop_table(path: Path) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("DROP TABLE state")
    other.close()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "text": lambda path: path.write_text("not a database\n"),
    "zeros": lambda path: path.write_bytes(bytes(100_000)),
    "cut in half": cut(0.5),
    "cut in the header": cut(0.001),
    "a page of zeros": overwrite(0.5, bytes(4096)),
    "a page of noise": overwrite(0.5, random.Random(1).randbytes(4096)),
    "one byte of a row": overwrite(0.5, b"\xff"),
    "the header": overwrite(0, bytes(100)),
    "no table": drop_table,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_set_aside(
    path: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    run_once(path, dict(ROWS))
    damage(path)
    damaged = path.read_bytes()
    aside = Path(f"{path}.damaged")
    aside.write_text("an older one")
    assert run_once(path, {CALL: b"one"}) == {}
    (warning,) = warnings(caplog)
    assert "is damaged and is now" in warning and "\n" not in warning
    assert aside.read_bytes() == damaged
    assert run_once(path) == {CALL: b"one"}
    assert len(warnings(caplog)) == 1


def test_no_damage_makes_rows_that_were_not_saved(tmp_path: Path) -> None:
    """Bytes anywhere in the file are changed: what is loaded is what was saved, or nothing."""
    path = tmp_path / "state.db"
    run_once(path, dict(ROWS))
    whole = path.read_bytes()
    draw = random.Random(2)
    outcomes = set()
    for _ in range(150):
        at = draw.choice([draw.randrange(200), draw.randrange(len(whole))])
        content = draw.randbytes(draw.choice([1, 1, 8, 600]))
        path.write_bytes((whole[:at] + content + whole[at + len(content) :])[: len(whole)])
        rows = run_once(path)
        assert rows in (ROWS, {}), at
        outcomes.add(len(rows))
        run_once(path, {CALL: b"usable"})
    assert outcomes == {0, len(ROWS)}


def test_a_damaged_log_gives_an_earlier_state(tmp_path: Path) -> None:
    path, copy = tmp_path / "state.db", tmp_path / "copy.db"
    with opened(path) as store:
        states = []
        for number in range(5):
            states.append({key: b"%d" % number for key in ROWS})
            store.save_all(states[-1])
            wait_until(lambda: not store._has_work())
        with locked(path):  # the last transaction is over
            content, wal = path.read_bytes(), Path(f"{path}-wal").read_bytes()
    draw = random.Random(3)
    found = []
    for _ in range(30):
        copy.write_bytes(content)
        at = draw.randrange(len(wal))
        Path(f"{copy}-wal").write_bytes(wal[:at] + draw.randbytes(8) + wal[at + 8 :])
        found.append(run_once(copy))
        assert found[-1] in [{}, *states], at
    assert len({len(rows) for rows in found}) == 2


def other_database(path: Path) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.executescript("PRAGMA application_id = 7; CREATE TABLE addresses (name)")
    other.close()


def plain_database(path: Path) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("CREATE TABLE addresses (name)")
    other.close()


def text(path: Path) -> None:
    path.write_text("root:x:0:0:root:/root:/bin/sh\n" * 5)


def directory(path: Path) -> None:
    path.mkdir()
    (path / "letters").touch()


@pytest.mark.parametrize("make", [other_database, plain_database, text, directory, os.mkfifo])
def test_what_is_not_ours_is_left_alone(
    path: Path, make: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    path.parent.mkdir()
    make(path)
    before = path.stat(), path.read_bytes() if path.is_file() else b""
    for _ in range(2):
        caplog.clear()
        assert run_once(path, {CALL: b"one"}, {MAPPING: b"one"}) == {}
    after = path.stat(), path.read_bytes() if path.is_file() else b""
    assert (after[0].st_ino, after[0].st_mode, after[1]) == (
        before[0].st_ino,
        before[0].st_mode,
        before[1],
    )
    assert {each.name for each in path.parent.iterdir()} == {"state.db"}
    (warning,) = warnings(caplog)
    assert "sipnat runs without: it is" in warning


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_set_aside(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run_once(path, {CALL: b"one"})
    path.chmod(0)
    assert run_once(path, {MAPPING: b"two"}) == {}
    assert run_once(path) == {MAPPING: b"two"}
    assert len(warnings(caplog)) == 1


def test_where_nothing_can_be_written_there_is_no_store_until_it_can(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "RETRY_INTERVAL", 0.02)
    path.parent.write_text("a file where the directory should be")
    store = Store(path, BOOT, 1)
    assert store.load() == {}
    store.save({CALL: b"one"})
    store.save_all(ROWS)
    assert store.dropped == 2 and not store.is_incomplete
    time.sleep(0.1)
    (warning,) = warnings(caplog)
    assert "cannot be used, sipnat runs without" in warning
    path.parent.unlink()
    caplog.set_level("INFO")
    wait_until(lambda: store.is_incomplete)
    store.save_all(ROWS)
    store.save({CALL: b"one"})
    store.close()
    assert caplog.messages[-1] == f"the store {path} is in use again"
    assert run_once(path) == {**ROWS, CALL: b"one"}
    assert store.dropped == 2 and len(warnings(caplog)) == 1


def test_a_file_that_is_removed_while_running_is_made_again(
    path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "RETRY_INTERVAL", 0.02)
    with opened(path) as store:
        path.parent.rename(tmp_path / "elsewhere")
        path.parent.touch()
        store.save({CALL: b"one"})
        wait_until(lambda: warnings(caplog))
        assert not store._waiting
        path.parent.unlink()
        wait_until(lambda: store.is_incomplete)
        store.save_all(ROWS)
    assert run_once(path) == ROWS
    assert len(warnings(caplog)) == 1


def test_damage_found_while_writing_begins_a_new_file(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "RETRY_INTERVAL", 0.02)
    run_once(path, dict(ROWS))
    with opened(path) as store:
        store.save({CALL: b"one"})
        wait_until(lambda: not store._has_work())
        drop_table(path)
        store.save({MAPPING: b"one"})
        wait_until(lambda: store.is_incomplete)
        store.save({MAPPING: b"ignored"})
        store.save_all(ROWS)
        store.save({MAPPING: b"two"})
    assert run_once(path) == {**ROWS, MAPPING: b"two"}
    (warning,) = warnings(caplog)
    assert "is damaged and is now" in warning
    assert Path(f"{path}.damaged").exists()


FULL_DISK = """
import logging, resource, sys, time
from alg.io import store as module
logging.basicConfig(stream=sys.stdout, format="%(levelname)s %(message)s")
module.RETRY_INTERVAL = 0.05
store = module.Store(sys.argv[1], "boot", 1)
store.load()
store.save({("call", "first"): b"1"})
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
rows = {("call", str(number)): bytes(300) for number in range(1000)}
store.save(rows)
while not store.is_incomplete: time.sleep(0.01)
for attempt in range(3):
    store.save_all(rows)
    while not store.is_incomplete: time.sleep(0.01)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
store.save_all(rows)
store.close()
"""


def test_a_full_disk_is_written_again_when_there_is_room(path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", FULL_DISK, path], capture_output=True, text=True, timeout=50
    )
    assert ran.returncode == 0, ran.stderr
    (warning,) = ran.stdout.splitlines()
    assert warning.startswith("WARNING") and "cannot be written, sipnat runs without" in warning
    assert len(run_once(path, boot="boot")) == 1000
