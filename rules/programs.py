"""nft and iptables as child processes: their failures become one sentence."""

from __future__ import annotations

import os
import subprocess


class ProgramFailed(Exception):
    """A program is missing or refused what it was asked; the message is one sentence."""


def run_program(*command: str, text: str = "") -> str:
    """Runs a program with `text` as its input and returns its output; raises ProgramFailed."""
    path = f"{os.environ.get('PATH', '/usr/bin:/bin')}:/usr/local/sbin:/usr/sbin:/sbin"
    name = command[0]
    try:
        done = subprocess.run(
            command,
            input=text,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "LC_ALL": "C", "PATH": path},
        )
    except FileNotFoundError:
        package = "nftables" if name == "nft" else "iptables"
        raise ProgramFailed(f"{name} is not installed: install {package}") from None
    if done.returncode:
        complaint = done.stderr.strip().partition("\n")[0] or f"exit status {done.returncode}"
        raise ProgramFailed(f"{name} refused: {complaint}")
    return done.stdout
