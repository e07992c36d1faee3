"""Since when mappings on request have been kept: what tells clients that theirs were lost.

The clock goes on while the machine runs, and the beginning is stored with the mappings, so that a
restart which takes them over is none for the clients (RFC 6887 §8.5, RFC 6886 §3.6).
"""

from __future__ import annotations

import struct

_ROW = struct.Struct("!d")
_END = 1 << 32  # of what a response has room for


class Epoch:
    """A number of seconds that begins anew where mappings are lost or another address is theirs."""

    def __init__(self, started_at: float) -> None:
        self._started_at = started_at
        self._is_stored = False

    def at(self, now: float) -> int:
        """Returns the seconds since mappings were lost last."""
        return max(0, int(now - self._started_at))

    def reset(self, now: float) -> None:
        """Begins anew."""
        self._started_at, self._is_stored = now, False

    def restore(self, row: bytes) -> None:
        """Goes on with what an earlier run has stored; raises ValueError where it is malformed."""
        try:
            (started_at,) = _ROW.unpack(row)
        except struct.error as error:
            raise ValueError("the stored epoch cannot be read") from error
        if not 0 <= started_at < _END:
            raise ValueError("the stored epoch cannot be read")
        self._started_at, self._is_stored = started_at, True

    def take_row(self, *, has_all: bool) -> bytes | None:
        """Returns what is to be stored, None where the store knows it already."""
        if self._is_stored and not has_all:
            return None
        self._is_stored = True
        return _ROW.pack(self._started_at)
