"""The rows of the store's file: written many at a time, and checked when they are read.

With every step of a statement Python lets other threads run, and then waits for its turn again: a
row each would wait as often as there are rows, for the thread that looks after packets. So one
statement takes many.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TypeVar
from zlib import crc32

Key = tuple[str, str]  # kind and name
Batch = Mapping[Key, bytes | None]  # None: the row is gone

CREATE_ROWS = """CREATE TABLE state (
    kind BLOB NOT NULL, name BLOB NOT NULL, value BLOB NOT NULL, checksum INTEGER NOT NULL,
    PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID"""

_AT_A_TIME = 50

Item = TypeVar("Item")


def write_rows(connection: sqlite3.Connection, batch: Batch) -> None:
    """Puts rows in the place of those of their keys, and deletes those that are gone."""
    gone: dict[bytes, list[bytes]] = {}  # names by kind
    rows: list[tuple[bytes, bytes, bytes, int]] = []
    for key, value in batch.items():
        kind, name = _encode(key)
        if value is None:
            gone.setdefault(kind, []).append(name)
        else:
            rows.append((kind, name, value, _checksum(kind, name, value)))
    for kind, names in gone.items():
        for some in _pieces(names):
            places = ", ".join("?" * len(some))
            command = f"DELETE FROM state WHERE kind = ? AND name IN ({places})"
            connection.execute(command, (kind, *some))
    for these in _pieces(rows):
        places = ", ".join(["(?, ?, ?, ?)"] * len(these))
        values = [value for row in these for value in row]
        connection.execute(f"INSERT OR REPLACE INTO state VALUES {places}", values)


def read_rows(connection: sqlite3.Connection) -> dict[Key, bytes]:
    """Returns all rows; raises sqlite3.DatabaseError where one is damaged."""
    rows = {}
    for kind, name, value, checksum in connection.execute("SELECT * FROM state"):
        if _checksum(kind, name, value) != checksum:
            raise sqlite3.DatabaseError("a row has a wrong checksum")
        rows[kind.decode("utf-8", "surrogatepass"), name.decode("utf-8", "surrogatepass")] = value
    return rows


def _pieces(items: Sequence[Item]) -> Iterator[tuple[Item, ...]]:
    left = iter(items)
    while some := tuple(islice(left, _AT_A_TIME)):
        yield some


def _encode(key: Key) -> tuple[bytes, bytes]:
    """Returns the key as bytes, whatever the network has put into it."""
    kind, name = key
    return kind.encode("utf-8", "surrogatepass"), name.encode("utf-8", "surrogatepass")


def _checksum(kind: bytes, name: bytes, value: bytes) -> int:
    """Returns what tells a changed row: SQLite looks after its pages, not after their content."""
    return crc32(b"%d %d " % (len(kind), len(name)) + kind + name + value)
