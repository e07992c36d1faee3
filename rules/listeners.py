"""Sockets of this router that wait for packets: those of UDP, and those of TCP that listen."""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_TABLES = tuple(Path("/proc/thread-self/net", each) for each in ("udp", "udp6", "tcp", "tcp6"))
_PROCESSES = Path("/proc")
_LISTENING = "0A"
_LOOPBACK = 127


class Listener(NamedTuple):
    """A socket; `protocol` is "udp" or "tcp"."""

    protocol: str
    port: int
    is_loopback: bool
    inode: str

    @property
    def program(self) -> str:
        """Returns the name of the program that has it, "" where that is not ours to see."""
        wanted = f"socket:[{self.inode}]"
        for descriptor in _PROCESSES.glob("[0-9]*/fd/*"):
            with contextlib.suppress(OSError):
                if os.readlink(descriptor) == wanted:
                    return (descriptor.parent.parent / "comm").read_text().strip()
        return ""


def listeners() -> Iterator[Listener]:
    """Yields every one, of both families."""
    for table in _TABLES:
        if not table.exists():
            continue
        for line in table.read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            protocol = table.name[:3]
            if protocol == "udp" or state == _LISTENING:
                address, _, port = local.partition(":")
                yield Listener(protocol, int(port, 16), _is_loopback(address), inode)


def local_ports() -> frozenset[int]:
    """Returns the ports of all but those that are bound to loopback alone."""
    return frozenset(each.port for each in listeners() if not each.is_loopback)


def _is_loopback(address: str) -> bool:
    """Parses "0100007F" (words in host byte order)."""
    words = [int(address[start : start + 8], 16) for start in range(0, len(address), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    return packed[0] == _LOOPBACK if len(packed) == 4 else packed == b"\0" * 15 + b"\x01"
