"""Network namespaces, and the sockets and commands inside them.

One process plays every machine of the lab. A socket stays in the namespace it was made in, so a
short-lived thread joins the namespace, makes the socket and hands it over. Names carry the pid:
labs of parallel test workers never meet, and what a killed lab left behind is known by its dead
pid and removed by the next one. Nothing here forks this process (as pyroute2's netns does): a copy
of it would run its exit handlers.
"""

from __future__ import annotations

import atexit
import ctypes
import itertools
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import TypeVar

from pyroute2 import IPRoute

from nat_table.endpoint import is_ipv6
from tests.lab.closable import Closable

T = TypeVar("T")

PREFIX = "sipnat-lab-"
NAMESPACES = Path("/run/netns")
LOOPBACK = 1
CLONE_NEWNET = 0x40000000
SO_RCVBUFFORCE = 33
RECEIVE_BUFFER = 4 << 20

_libc = ctypes.CDLL(None, use_errno=True)
_numbers = itertools.count()
_open: dict[str, Namespace] = {}


class Namespace(Closable):
    """A network namespace that is removed on `close`, and at the latest when the process ends."""

    def __init__(self, role: str) -> None:
        self.name = f"{PREFIX}{os.getpid()}-{next(_numbers)}-{role}"
        _ip("netns", "add", self.name)
        _open[self.name] = self
        # A new namespace has what this machine has; a container engine switches it on.
        self.set_sysctl("net.ipv4.ip_forward", "0")
        self.edit_links(lambda links: links.link("set", index=LOOPBACK, state="up"))

    def close(self) -> None:
        """Removes the namespace; a second call does nothing."""
        if _open.pop(self.name, None):
            _ip("netns", "delete", self.name)

    def edit_links(self, edit: Callable[[IPRoute], T]) -> T:
        """Hands the namespace's links, addresses and routes to `edit`."""

        def open_and_edit() -> T:
            with IPRoute() as links:
                return edit(links)

        return self.call(open_and_edit)

    def call(self, function: Callable[[], T]) -> T:
        """Runs a function inside the namespace, in a thread of its own."""

        def join_and_call() -> T:
            with open(NAMESPACES / self.name) as handle:
                if _libc.setns(handle.fileno(), CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), f"cannot join {self.name}")
            return function()

        with ThreadPoolExecutor(max_workers=1) as thread:
            return thread.submit(join_and_call).result()

    def udp_socket(self, address: str, port: int = 0) -> socket.socket:
        """Binds a UDP socket inside the namespace, with a receive buffer for bursts."""

        def bind() -> socket.socket:
            udp = socket.socket(address_family(address), socket.SOCK_DGRAM)
            udp.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER)
            udp.bind((address, port))
            return udp

        return self.call(bind)

    def tcp_socket(self, address: str, port: int = 0) -> socket.socket:
        """Binds a TCP socket inside the namespace, to listen or to connect."""

        def bind() -> socket.socket:
            tcp = socket.socket(address_family(address), socket.SOCK_STREAM)
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tcp.bind((address, port))
            return tcp

        return self.call(bind)

    def set_sysctl(self, name: str, value: str) -> None:
        """Sets a network sysctl of this namespace, such as "net.ipv4.ip_forward"."""
        path = Path("/proc/sys", *name.split("."))
        self.call(lambda: path.write_text(value))

    def command(self, *arguments: str) -> list[str]:
        """Returns the command line that runs `arguments` inside and dies with this process."""
        return ["setpriv", "--pdeathsig", "KILL", "ip", "netns", "exec", self.name, *arguments]

    def run(self, *arguments: str, text: str = "", timeout: float = 30.0) -> str:
        """Runs a command inside and returns what it printed; raises RuntimeError if it fails."""
        done = subprocess.run(
            self.command(*arguments), input=text, capture_output=True, text=True, timeout=timeout
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout


def remove_stale() -> None:
    """Removes the namespaces of labs whose process no longer lives, with what still runs inside.

    Another lab may be doing the same at this moment, so what has gone meanwhile is no error.
    """
    for path in NAMESPACES.glob(f"{PREFIX}*"):
        matched = re.match(rf"{PREFIX}(\d+)-", path.name)
        if matched is None or Path("/proc", matched[1]).exists():
            continue
        with suppress(subprocess.CalledProcessError, ProcessLookupError):
            for pid in _ip("netns", "pids", path.name).split():
                os.kill(int(pid), signal.SIGKILL)
            _ip("netns", "delete", path.name)


def address_family(address: str) -> socket.AddressFamily:
    """Returns the family of an address."""
    return socket.AF_INET6 if is_ipv6(address) else socket.AF_INET


def _ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, check=True).stdout


def exit_on_signals() -> None:
    """Turns SIGTERM and SIGHUP into an ordinary exit, so that `close` is reached."""

    def leave(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGHUP, leave)


@atexit.register
def _close_all() -> None:
    for namespace in list(_open.values()):
        namespace.close()
