"""Rows by the statement: many are written, replaced and deleted as each by itself would be."""

from __future__ import annotations

import random
import sqlite3

from alg.io.store_rows import CREATE_ROWS, Key, read_rows, write_rows


def test_what_is_read_is_what_was_written_last() -> None:
    rng = random.Random(9)
    connection = sqlite3.connect(":memory:")
    connection.execute(CREATE_ROWS)
    kept: dict[Key, bytes] = {}
    for size in (1, 49, 50, 51, 400, 400, 400):
        batch: dict[Key, bytes | None] = {}
        for _ in range(size):
            key = rng.choice(("call", "mapping")), f"{rng.randrange(300)} \udcff"
            batch[key] = rng.choice((None, rng.randbytes(rng.randrange(40))))
        write_rows(connection, batch)
        for key, value in batch.items():
            kept.pop(key, None)
            if value is not None:
                kept[key] = value
        assert read_rows(connection) == kept
