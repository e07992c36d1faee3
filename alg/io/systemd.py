"""What systemd is told by a service, and what it wants to be told (sd_notify(3))."""

from __future__ import annotations

import contextlib
import os
import socket

_ADDRESS = "NOTIFY_SOCKET"


def is_listening() -> bool:
    """Tells whether systemd wants to be told."""
    return bool(os.environ.get(_ADDRESS))


def notify(state: str) -> None:
    """Tells systemd, if it listens and has room; never waits."""
    if not is_listening():
        return
    address = os.environ[_ADDRESS]
    if address.startswith("@"):
        address = "\0" + address[1:]
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        sender.connect(address)
        sender.send(state.encode())


def watchdog_timeout() -> float | None:
    """Returns after how many seconds without a beat this process is ended, None if after none.

    A beat is WATCHDOG=1 (sd_watchdog_enabled(3)).
    """
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        return int(os.environ["WATCHDOG_USEC"]) / 1e6 or None
    except (KeyError, ValueError):
        return None
