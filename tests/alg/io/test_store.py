"""The store on real files: what was saved comes back, whatever blocks and whoever is killed."""

from __future__ import annotations

import logging
import os
import random
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from alg.io import store as store_module
from alg.io.store import Store, StoreInUse, boot_id
from alg.io.store_rows import Key

BOOT = "6f1b2c1e-8a0e-4d52-9d2b-0c8f5f7f6c11"
MAPPING = ("mapping", "udp 10.0.0.20:5060")
CALL = ("call", "a84b4c76e66710@10.0.0.20")
ROWS: dict[Key, bytes] = {("call", str(number)): b"%d" % number * 100 for number in range(300)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lib" / "state.db"


def run_once(
    path: Path, *batches: dict[Key, bytes | None], boot: str = BOOT, version: int = 1
) -> dict[Key, bytes]:
    """Returns what one run loads that then saves the batches."""
    store = Store(path, boot, version)
    rows = store.load()
    for batch in batches:
        store.save(batch)
    store.close()
    return rows


@contextmanager
def opened(path: Path) -> Iterator[Store]:
    store = Store(path, BOOT, 1)
    store.load()
    try:
        yield store
    finally:
        store.close()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lets another program have the file's write lock."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]


# What was saved comes back


def test_what_was_saved_comes_back(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert run_once(path, {MAPPING: b"one", CALL: b"two"}, {MAPPING: b"three"}) == {}
    assert run_once(path, {CALL: None, ("call", "never there"): None}) == {
        MAPPING: b"three",
        CALL: b"two",
    }
    assert run_once(path) == {MAPPING: b"three"}
    assert caplog.records == []


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.dictionaries(
            st.tuples(
                st.sampled_from(["call", "mapping"]),
                st.text(st.characters(exclude_categories=()), max_size=3),
            ),
            st.none() | st.binary(),
        ),
        max_size=4,
    )
)
@example([{("call", "\0\udc80\ud800"): b"", ("", ""): b"\0"}])
def test_any_key_and_value_comes_back(
    tmp_path: Path, batches: list[dict[Key, bytes | None]]
) -> None:
    path = tmp_path / "any.db"
    path.unlink(missing_ok=True)
    run_once(path, *batches)
    newest = {key: value for batch in batches for key, value in batch.items()}
    assert run_once(path) == {key: value for key, value in newest.items() if value is not None}


def test_all_rows_take_the_place_of_the_old_ones(path: Path) -> None:
    run_once(path, dict(ROWS))
    with locked_store(path) as store:
        store.save({MAPPING: b"older"})
        store.save_all({CALL: b"one", ("call", "other"): b"two"})
        store.save({MAPPING: b"new", ("call", "other"): None, ("call", "unknown"): None})
    assert run_once(path) == {CALL: b"one", MAPPING: b"new"}
    with opened(path) as store:
        store.save_all({})
    assert run_once(path) == {}


@contextmanager
def locked_store(path: Path) -> Iterator[Store]:
    """Gives a store whose writer waits until the end."""
    with opened(path) as store, locked(path):
        yield store


def test_a_reboot_starts_clean(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    run_once(path, {MAPPING: b"one"})
    assert run_once(path, {CALL: b"two"}, boot="another") == {}
    assert run_once(path, boot="another") == {CALL: b"two"}
    (record,) = caplog.records
    assert record.levelno == logging.INFO and "earlier boot" in record.getMessage()


def test_another_version_starts_clean(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    run_once(path, {MAPPING: b"one"})
    assert run_once(path, version=2) == {}
    (record,) = caplog.records
    assert record.levelno == logging.INFO and "another version" in record.getMessage()


def test_another_schema_starts_clean(path: Path) -> None:
    run_once(path, {MAPPING: b"one"})
    other = sqlite3.connect(path, isolation_level=None)
    other.executescript("PRAGMA user_version = 99; DROP TABLE origin; DROP TABLE state")
    other.close()
    assert run_once(path, {CALL: b"two"}) == {}
    assert run_once(path) == {CALL: b"two"}


def test_the_boot_has_a_name() -> None:
    assert len(boot_id()) == 36 and boot_id() == boot_id()


# The file among others


def test_only_the_owner_may_read(path: Path) -> None:
    path.parent.mkdir()
    path.touch(0o644)
    with opened(path) as store:
        store.save({CALL: b"one"})
        wait_until(lambda: Path(f"{path}-wal").stat().st_size)
        for each in path.parent.iterdir():
            assert stat.S_IMODE(each.stat().st_mode) & 0o077 == 0, each


def test_the_directory_is_made(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        run_once(tmp_path / "var" / "lib" / "state.db")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "var" / "lib").stat().st_mode) == 0o755


def test_a_second_process_is_refused(path: Path) -> None:
    run_once(path, {CALL: b"one"})
    with opened(path) as store:
        with pytest.raises(StoreInUse, match=r"another sipnat has the store .*state\.db"):
            Store(path, BOOT, 1).load()
        store.save({MAPPING: b"two"})
    assert run_once(path) == {CALL: b"one", MAPPING: b"two"}


def test_a_closed_store_leaves_only_the_file_and_its_lock(path: Path) -> None:
    run_once(path, {CALL: b"one"})
    assert {each.name for each in path.parent.iterdir()} == {"state.db", "state.db.lock"}


def test_the_file_stays_small_however_often_rows_change(path: Path) -> None:
    sizes = []
    with opened(path) as store:
        for number in range(60):
            store.save({("call", f"{number} {each}"): bytes(300) for each in range(1000)})
            wait_until(lambda: not store._has_work())
            store.save({("call", f"{number} {each}"): None for each in range(1000)})
            wait_until(lambda: not store._has_work())
            sizes.append(sum(each.stat().st_size for each in path.parent.iterdir()))
    assert max(sizes[10:]) <= 16 << 20
    assert path.stat().st_size < 1 << 20
    assert run_once(path) == {}


# A disk that blocks


def test_a_blocked_disk_holds_up_nobody_and_nothing_is_lost(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "BUSY_TIMEOUT", 0.05)
    with locked_store(path) as store:
        store.save({MAPPING: b"first", CALL: b"first"})
        wait_until(lambda: warnings(caplog))
        for number in range(20_000):  # each would take BUSY_TIMEOUT if it waited for the disk
            store.save({MAPPING: b"%d" % number, ("call", str(number % 7)): b"x"})
        store.save({CALL: None})
        assert len(store._waiting) == 9
        assert not store.is_incomplete
    assert run_once(path) == {
        MAPPING: b"19999",
        **{("call", str(number)): b"x" for number in range(7)},
    }
    (warning,) = warnings(caplog)
    assert "waits for another program" in warning


def test_what_waits_is_bounded_and_all_rows_are_asked_for_then(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "MAX_WAITING", 100)
    run_once(path, {CALL: b"old"})
    with locked_store(path) as store:
        for number in range(101):
            assert not store.is_incomplete
            store.save({("call", str(number)): None})
        assert store.is_incomplete and not store._waiting
        store.save({MAPPING: b"without the others this is worth nothing"})
        assert not store._waiting
        store.save_all(ROWS)
        for number in range(1000):
            store.save({("mapping", str(number)): b"x"})
            store.save({("mapping", str(number)): None})
        assert not store.is_incomplete and len(store._waiting) == len(ROWS)
    assert run_once(path) == ROWS


def test_closing_does_not_wait_for_ever(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "CLOSE_TIMEOUT", 0.1)
    store = Store(path, BOOT, 1)
    store.load()
    with locked(path):
        store.save({CALL: b"one"})
        store.close()
    assert "lacks the last changes" in warnings(caplog)[-1]
    store._writer.join()
    assert run_once(path) == {CALL: b"one"}


# Killed at any moment


SAVES = """
import itertools, sys
from alg.io.store import Store
store = Store(sys.argv[1], "boot", 1)
rows = store.load()
start = int(rows.get(("number", ""), b"0"))
print("loaded", flush=True)
for number in itertools.count(start + 1):
    batch = {("row", str(each)): b"%d" % number * 50 for each in range(50)}
    batch |= {("new", str(number)): b"", ("new", str(number - 1)): None}
    batch["number", ""] = b"%d" % number
    if number % 100: store.save(batch)
    else: store.save_all({key: value for key, value in batch.items() if value is not None})
"""


def test_a_batch_is_whole_or_absent_whenever_the_process_is_killed(path: Path) -> None:
    draw = random.Random(4)
    last = 0
    for _ in range(20):
        with subprocess.Popen(
            [sys.executable, "-c", SAVES, path], stdout=subprocess.PIPE
        ) as process:
            assert process.stdout
            if draw.random() < 0.7:
                process.stdout.readline()
            time.sleep(draw.random() * 0.1)
            process.send_signal(signal.SIGKILL)
        rows = run_once(path, boot="boot")
        number = int(rows.get(("number", ""), b"0"))
        assert number >= last
        last = number
        if number:
            assert rows == {
                ("number", ""): b"%d" % number,
                ("new", str(number)): b"",
                **{("row", str(each)): b"%d" % number * 50 for each in range(50)},
            }
    assert last
