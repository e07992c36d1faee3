"""RTP as a phone sends it: 172 bytes, 50 times a second, each packet numbered.

Both ends count what arrives by sequence number and by source, so that a lost, doubled or
wrongly translated packet shows.
"""

from __future__ import annotations

import secrets
import struct
import threading
import time
from collections import Counter
from contextlib import suppress

from nat_table.endpoint import Endpoint
from tests.lab.closable import Closable
from tests.lab.namespace import Namespace

INTERVAL = 0.02
SAMPLES = 160
HEADER = struct.Struct("!BBHII")
VERSION = 0x80


class RtpStream(Closable):
    """One end of an audio stream: counts from the start, sends from `send_to` until `stop`."""

    def __init__(self, namespace: Namespace, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.sent = 0
        self.sources: Counter[Endpoint] = Counter()
        self._received: set[tuple[int, int]] = set()
        self._remote: Endpoint | None = None
        self._source_id = secrets.randbits(32)
        self._socket = namespace.udp_socket(*endpoint)
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, name=f"rtp {endpoint}", daemon=True)
        self._thread.start()

    @property
    def received(self) -> int:
        """How many different packets arrived."""
        return len(self._received)

    def send_to(self, remote: Endpoint) -> None:
        """Begins to send."""
        self._remote = remote

    def stop(self) -> None:
        """Stops sending; what is under way is still counted."""
        self._remote = None

    def close(self) -> None:
        """Stops everything and closes the socket."""
        self._is_closing = True
        self._thread.join()
        self._socket.close()

    def _run(self) -> None:
        next_at = time.monotonic()
        while not self._is_closing:
            now = time.monotonic()
            if now >= next_at:
                next_at = max(next_at + INTERVAL, now - 1.0)
                remote = self._remote
                if remote is not None:
                    self._send(remote)
            else:
                self._receive(next_at - now)

    def _send(self, remote: Endpoint) -> None:
        header = HEADER.pack(
            VERSION, 0, self.sent & 0xFFFF, (self.sent * SAMPLES) & 0xFFFFFFFF, self._source_id
        )
        self.sent += 1
        # Without a route the packet is lost like any other.
        with suppress(OSError):
            self._socket.sendto(header + b"\xff" * SAMPLES, remote)

    def _receive(self, timeout: float) -> None:
        self._socket.settimeout(timeout)
        try:
            raw, source = self._socket.recvfrom(2048)
        except OSError:
            return
        if len(raw) < HEADER.size:
            return
        _, _, sequence, _, source_id = HEADER.unpack_from(raw)
        self._received.add((source_id, sequence))
        self.sources[Endpoint(*source[:2])] += 1


class LatchingStream(RtpStream):
    """An end that believes no SDP: it sends to whom it hears first (RFC 7362)."""

    def _receive(self, timeout: float) -> None:
        super()._receive(timeout)
        if self._remote is None and self.sources:
            self.send_to(next(iter(self.sources)))
