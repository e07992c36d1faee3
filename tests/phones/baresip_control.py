"""Remote control of a running baresip by its module ctrl_tcp: JSON in netstrings over TCP.

baresip speaks to one client at a time, and tells it, unasked, what happens; nobody needs that here.
"""

from __future__ import annotations

import json
import socket
import time
from typing import Any

from tests.lab.closable import Closable

PORT = 4444
MAX_LENGTH_DIGITS = 8


class ControlFailed(Exception):
    """baresip refused a command, did not answer in time, or has gone."""


class BaresipControl(Closable):
    """A connection to ctrl_tcp."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = bytearray()

    def close(self) -> None:
        """Closes the connection; baresip runs on."""
        self._connection.close()

    def command(self, name: str, parameters: str = "", timeout: float = 5.0) -> str:
        """Has baresip do a command of its menu, such as "dial"; returns what it printed.

        Raises ControlFailed, OSError.
        """
        message = {"command": name, "params": parameters, "token": name}
        self._connection.sendall(encode_netstring(json.dumps(message).encode()))
        ends_at = time.monotonic() + timeout
        while True:
            answer = self._receive(ends_at)
            if answer is None:
                raise ControlFailed(f"baresip did not answer {name!r}")
            if not answer.get("response"):
                continue
            if not answer["ok"]:
                raise ControlFailed(f"baresip refused {name!r}: {answer['data']}")
            return str(answer["data"])

    def _receive(self, ends_at: float) -> dict[str, Any] | None:
        """Returns the next message, or None where there is none in time."""
        while (message := self._take()) is None:
            self._connection.settimeout(max(ends_at - time.monotonic(), 0.001))
            try:
                chunk = self._connection.recv(65536)
            except TimeoutError:
                return None
            if not chunk:
                raise ControlFailed("baresip has gone")
            self._buffer += chunk
        decoded: dict[str, Any] = json.loads(message)
        return decoded

    def _take(self) -> bytes | None:
        """Takes one whole netstring from what has come."""
        end = self._buffer.find(b":", 0, MAX_LENGTH_DIGITS + 1)
        if end < 0:
            return None
        length = int(self._buffer[:end])
        start = end + 1
        if len(self._buffer) < start + length + 1:
            return None
        message = bytes(self._buffer[start : start + length])
        del self._buffer[: start + length + 1]
        return message


def encode_netstring(message: bytes) -> bytes:
    """Frames a message as `LENGTH:MESSAGE,`."""
    return b"%d:%s," % (len(message), message)
