"""State on disk: the rows that changed go in, and after a restart all of them come out.

A row is opaque here: a key and bytes. Nothing but this file knows SQLite; whatever has `load`,
`save`, `save_all`, `is_incomplete` and `close` can stand in its place.

- `save` merges what changed into the batch that waits and returns. One thread owns the connection;
  it takes the waiting batch only when it has the file's write lock and commits it as a whole, so a
  slow disk costs neither packets nor rows, and what waits is at most one value a key.
- Rows are worth nothing after a reboot, nor to another version: the file is then made anew.
- No trouble with the file keeps the gateway from running. A damaged file, or one that may not be
  opened, is renamed to `<path>.damaged`, over an older one. What is not ours (any other file, a
  directory, a device) is left alone, whatever the configuration says: somebody lives there. Where
  there can be no file, batches are dropped, and a file is tried for again now and then.
- A file is ours if it says so in its header or if `<path>.lock` stands beside it: damage may have
  taken the header, but a lock is only ever made where a file of ours is or will be.
- Whenever a batch was dropped the file cannot catch up by changes: `is_incomplete` asks for all
  rows, and `save_all` puts them in place of the old ones in one transaction.
- `<path>.lock` is flocked, not the file itself: closing any descriptor of a file drops the locks
  that SQLite holds on it (fcntl(2)), and the file may be renamed.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from alg.io.store_rows import CREATE_ROWS, Batch, Key, read_rows, write_rows

MAX_WAITING = 50_000  # changed rows in memory; with more, writing all of them anew is cheaper
RETRY_INTERVAL = 10.0
BUSY_TIMEOUT = 1.0
CLOSE_TIMEOUT = 10.0
REST = 50.0
"""How many times as long as a write the pause after it is: a row is written once for all of it."""

MAX_REST = 1.0

_APPLICATION_ID = 0x73697061  # "sipa"
_APPLICATION_ID_AT = 68  # in the header of an SQLite file
_FORMAT = 1
_WAL_SIZE = 4 << 20
_CREATE = f"""
    BEGIN IMMEDIATE;
    PRAGMA application_id = {_APPLICATION_ID};
    PRAGMA user_version = {_FORMAT};
    CREATE TABLE origin (boot_id TEXT NOT NULL, version INTEGER NOT NULL) STRICT;
    {CREATE_ROWS};
"""
_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_READONLY}
_DAMAGE |= {sqlite3.SQLITE_ERROR}  # our tables are not there, or not ours

log = logging.getLogger(__name__)


class StoreInUse(Exception):
    """Another process has the store; the text is one sentence."""


class _NotOurs(Exception):
    """Something that another owns stands at the store's path."""


_FAILURES = (sqlite3.Error, OSError, _NotOurs)


def boot_id() -> str:
    """Returns what the kernel calls this boot of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


class Store:
    """Keeps rows in a file from one run to the next, until the machine is rebooted.

    The caller saves what changed, and all it has when asked to:
    `store.save_all(rows()) if store.is_incomplete else store.save(changed)`.
    """

    def __init__(self, path: str | Path, boot_id: str, version: int) -> None:
        self._file = _File(Path(path).absolute(), boot_id, version)
        self._path = path
        self._changed = threading.Condition()
        self._waiting: dict[Key, bytes | None] = {}
        self._is_whole = False  # what waits is every row, not those that changed
        self._is_open = False
        self._is_closing = False
        self._has_warned = False
        self._writer = threading.Thread(target=self._write_on, name="store", daemon=True)
        self.is_incomplete = False
        self.dropped = 0  # batches

    def load(self) -> dict[Key, bytes]:
        """Opens or makes the file and returns the last run's rows, once; raises StoreInUse."""
        rows: dict[Key, bytes] = {}
        try:
            rows = self._file.open()
            self._is_open = True
        except _FAILURES as error:
            self._warn("the store %s cannot be used, sipnat runs without: %s", error)
        self._writer.start()
        return rows

    def save(self, batch: Batch) -> None:
        """Takes over the newest value of each row that changed; ignored while incomplete."""
        with self._changed:
            if not self._is_open:
                self.dropped += 1
            elif not self.is_incomplete:
                self._merge(batch)
                self._changed.notify()

    def save_all(self, rows: Mapping[Key, bytes]) -> None:
        """Takes over every row that there is: any other that was saved before is gone."""
        with self._changed:
            if not self._is_open:
                self.dropped += 1
                return
            self._waiting, self._is_whole = dict(rows), True
            self.is_incomplete = False
            self._changed.notify()

    def close(self) -> None:
        """Returns when what was saved is on disk, or after CLOSE_TIMEOUT with a warning."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._writer.join(CLOSE_TIMEOUT)
        if self._writer.is_alive():
            log.warning("the store %s lacks the last changes: the disk is too slow", self._path)

    def _merge(self, batch: Batch) -> None:
        self._waiting.update(batch)
        if self._is_whole:
            for key in [key for key, value in batch.items() if value is None]:
                del self._waiting[key]
        elif len(self._waiting) > MAX_WAITING:
            self._forget()
            self.is_incomplete = True

    def _forget(self) -> None:
        self._waiting, self._is_whole = {}, False

    def _write_on(self) -> None:
        while self._await_work():
            try:
                if self._is_open:
                    began = time.thread_time()
                    self._file.write(self._take)
                    self._has_warned = False
                    self._rest(REST * (time.thread_time() - began))
                else:
                    self._file.open()
                    with self._changed:
                        self._is_open = self.is_incomplete = True
                    log.info("the store %s is in use again", self._path)
            except (*_FAILURES, StoreInUse) as error:
                self._fail(error)
        self._file.close()

    def _await_work(self) -> bool:
        """Returns whether the writer shall go on: to write what waits, or to open the file."""
        with self._changed:
            timeout = None if self._is_open else RETRY_INTERVAL
            self._changed.wait_for(lambda: self._is_closing or self._has_work(), timeout)
            return self._has_work() or not self._is_closing

    def _rest(self, seconds: float) -> None:
        """Lets rows gather, unless somebody waits for the last of them."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closing, min(MAX_REST, seconds))

    def _has_work(self) -> bool:
        return bool(self._waiting) or self._is_whole

    def _take(self) -> tuple[Batch, bool]:
        with self._changed:
            taken = self._waiting, self._is_whole
            self._forget()
        return taken

    def _fail(self, error: Exception) -> None:
        if self._is_open and _code(error) == sqlite3.SQLITE_BUSY:
            self._warn("the store %s waits for another program: %s", error)
            return
        with self._changed:
            self._forget()
            self._is_open = self.is_incomplete = False
        if _is_damage(error):
            try:
                self._file.set_aside(error)
                return
            except OSError as refused:
                error = refused
        self._file.disconnect()
        self._warn("the store %s cannot be written, sipnat runs without: %s", error)

    def _warn(self, text: str, error: Exception) -> None:
        """Warns once until something has been written again."""
        if not self._has_warned:
            log.warning(text, self._path, error)
        self._has_warned = True


class _File:
    """The SQLite file: made, read, written, and set aside where it is damaged."""

    def __init__(self, path: Path, boot_id: str, version: int) -> None:
        self._path = path
        self._origin = (boot_id, version)
        self._lock: int | None = None
        self._connection: sqlite3.Connection | None = None

    def open(self) -> dict[Key, bytes]:
        """Returns the rows of this boot; raises StoreInUse, or _FAILURES if there is no file."""
        self._path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        self._take_lock()
        try:
            return self._read()
        except (sqlite3.Error, PermissionError) as error:
            if not _is_damage(error):
                raise
            self.set_aside(error)
            return self._read()

    def write(self, take: Callable[[], tuple[Batch, bool]]) -> None:
        """Commits what `take` gives once the file is locked; raises sqlite3.Error or OSError."""
        assert self._connection
        os.stat(self._path)  # SQLite would go on writing to a file that was removed
        with self._connection as connection:
            connection.execute("BEGIN EXCLUSIVE")  # from here on nobody can make it wait
            batch, is_whole = take()
            if is_whole:
                connection.execute("DELETE FROM state")
            write_rows(connection, batch)

    def set_aside(self, error: Exception) -> None:
        """Renames the damaged file; raises OSError."""
        self.disconnect()
        aside = f"{self._path}.damaged"
        os.replace(self._path, aside)
        self._remove()
        log.warning("the store %s is damaged and is now %s: %s", self._path, aside, error)

    def disconnect(self) -> None:
        """Closes the file but keeps others out."""
        if self._connection:
            self._connection.close()
            self._connection = None

    def close(self) -> None:
        """Closes the file, whose log SQLite then writes back into it, and lets others in."""
        self.disconnect()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _take_lock(self) -> None:
        if self._lock is not None:
            return
        self._refuse_what_is_not_ours()
        lock = _open(Path(f"{self._path}.lock"))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            if isinstance(error, BlockingIOError):
                raise StoreInUse(f"another sipnat has the store {self._path}") from None
            raise
        self._lock = lock

    def _refuse_what_is_not_ours(self) -> None:
        if not self._path.exists():
            return
        if not self._path.is_file():
            raise _NotOurs("it is not a file")
        if Path(f"{self._path}.lock").exists():
            return
        with self._path.open("rb") as file:
            header = file.read(_APPLICATION_ID_AT + 4)
        if header and header[_APPLICATION_ID_AT:] != _APPLICATION_ID.to_bytes(4, "big"):
            raise _NotOurs("it is another program's file")

    def _read(self) -> dict[Key, bytes]:
        connection = self._connect()
        if _only(connection, "PRAGMA application_id") and not self._is_of_this_run(connection):
            log.info("the store %s is of an earlier boot or another version: emptied", self._path)
            self.disconnect()
            self._remove()
            connection = self._connect()
        if not _only(connection, "PRAGMA application_id"):
            with connection:
                connection.executescript(_CREATE)
                connection.execute("INSERT INTO origin VALUES (?, ?)", self._origin)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA journal_size_limit = {_WAL_SIZE}")
        os.chmod(self._path, 0o600)
        if _only(connection, "PRAGMA quick_check(1)") != "ok":
            raise sqlite3.DatabaseError("its pages are no tree")
        return read_rows(connection)

    def _connect(self) -> sqlite3.Connection:
        """Opens the file, new or of any sipnat's; raises _NotOurs for all else."""
        self.disconnect()
        if self._path.exists() and not self._path.is_file():
            raise _NotOurs("it is not a file")
        # SQLite gives the files that it adds the mode and the owner of this one.
        os.close(_open(self._path))
        self._connection = connection = sqlite3.connect(
            self._path, BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
        )
        application = _only(connection, "PRAGMA application_id")
        if application != _APPLICATION_ID and (
            application or _only(connection, "SELECT count(*) FROM sqlite_master")
        ):
            self.disconnect()
            raise _NotOurs("it is another program's database")
        return connection

    def _is_of_this_run(self, connection: sqlite3.Connection) -> bool:
        if _only(connection, "PRAGMA user_version") != _FORMAT:
            return False
        found = connection.execute("SELECT boot_id, version FROM origin").fetchone()
        return bool(found == self._origin)

    def _remove(self) -> None:
        for suffix in ("", "-wal", "-shm", "-journal"):
            Path(f"{self._path}{suffix}").unlink(missing_ok=True)


def _open(path: Path) -> int:
    """Opens a file, or makes it for whoever has the directory: the next run may not be root's."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return os.open(path, os.O_RDWR)
    home = path.parent.stat()
    with contextlib.suppress(PermissionError):
        os.fchown(descriptor, home.st_uid, home.st_gid)
    return descriptor


def _only(connection: sqlite3.Connection, query: str) -> object:
    """Returns the only column of the only row."""
    (value,) = connection.execute(query).fetchone()
    return value


def _code(error: Exception) -> int:
    """Returns SQLite's primary result code; what SQLite has not raised about a row is damage."""
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
    return code & 0xFF


def _is_damage(error: Exception) -> bool:
    if isinstance(error, sqlite3.Error):
        return _code(error) in _DAMAGE
    return isinstance(error, PermissionError)
