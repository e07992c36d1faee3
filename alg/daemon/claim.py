"""One sipnat to a table: who has it listens at an abstract socket of the table's name.

Such a socket belongs to the network namespace, as the table does, and ends with the process
(unix(7)). Anybody may take the name, so who has it counts only if he could have made the table: he
is root, our own user, or has the privilege.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import struct
from collections.abc import Iterator

from alg.daemon.settings import StartError
from rules.privilege import has_net_admin

log = logging.getLogger("sipnat")

_CREDENTIALS = struct.Struct("3i")  # process, user, group (unix(7))
_ROOT = 0


@contextlib.contextmanager
def claimed(table: str) -> Iterator[None]:
    """Keeps every other sipnat off the table, inside a running event loop; raises StartError."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX) as claim:
        claim.setblocking(False)
        try:
            claim.bind(f"\0{table}")
            claim.listen()
        except OSError:
            if is_claimed(table):
                raise StartError(
                    f"another sipnat is running in this network namespace, and its table {table} "
                    "is one for both; a second uplink needs `uplink` in its configuration"
                ) from None
            log.warning("somebody else has the name of sipnat's socket, so a second one can start")
            yield
            return
        loop.add_reader(claim, _let_go, claim)
        try:
            yield
        finally:
            loop.remove_reader(claim)


def is_claimed(table: str) -> bool:
    """Tells whether a sipnat has the table in this network namespace; anybody may ask."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.setblocking(False)
        try:
            asking.connect(f"\0{table}")
            packed = asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        except OSError:
            return False
    process, user, _ = _CREDENTIALS.unpack(packed)
    return user in (_ROOT, os.geteuid()) or has_net_admin(process)


def _let_go(claim: socket.socket) -> None:
    """Lets those go who have asked: only so many may wait, and more would be told of no sipnat."""
    with contextlib.suppress(OSError):
        claim.accept()[0].close()
