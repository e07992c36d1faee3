"""A terminal for tests: what a command writes to one differs from what it writes to a pipe."""

from __future__ import annotations

import os
import pty
import subprocess
import sys


def on_terminal(*arguments: str) -> str:
    """Returns what `sipnat ARGUMENTS` writes to a terminal of 80 columns; it must succeed."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "80"}
    environment.pop("NO_COLOR", None)
    command = [sys.executable, "-m", "alg", *arguments]
    with subprocess.Popen(command, stdout=theirs, env=environment) as process:
        os.close(theirs)
        pieces = []
        try:
            while piece := os.read(ours, 65536):
                pieces.append(piece)
        except OSError:  # Linux's word for a terminal whose other end is closed
            pass
        finally:
            os.close(ours)
    assert process.returncode == 0
    return b"".join(pieces).decode()
