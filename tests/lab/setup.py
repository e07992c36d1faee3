"""`sipnat setup` on a router of the lab: with nobody to answer, or with somebody at a terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import tempfile
from pathlib import Path

from tests.lab.closable import Closable
from tests.lab.gateway import SIPNAT
from tests.lab.namespace import Namespace
from tests.lab.network import Network

INTERFACES = {
    "internal": '["lan0"]  # 10.0.0.0/24',
    "external": '"wan0"  # the default route leaves by it',
}
"""What it proposes for the lab's router, with the reasons."""


class Setup(Closable):
    """Sets a router up; `path` is the file that it writes, which is not there at first."""

    def __init__(self, router: Namespace) -> None:
        self._router = router
        self._directory = tempfile.TemporaryDirectory(prefix="sipnat-setup-")
        self.path = Path(self._directory.name, "etc", "sipnat.toml")

    def close(self) -> None:
        """Removes the file."""
        self._directory.cleanup()

    def write(self, text: str) -> None:
        """Writes what there is to configure before."""
        self.path.parent.mkdir(exist_ok=True)
        self.path.write_text(text)

    def run(self, *options: str) -> subprocess.CompletedProcess[str]:
        """Runs the command with no terminal."""
        return subprocess.run(
            self._command(*options),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=40,
        )

    def answer(self, text: str) -> tuple[int, str]:
        """Runs it on a terminal and types an answer; returns its exit status, and what it says."""
        ours, theirs = pty.openpty()
        with subprocess.Popen(
            self._command(), stdin=theirs, stdout=theirs, stderr=theirs
        ) as process:
            os.close(theirs)
            os.write(ours, text.encode())
            said = b""
            try:
                while piece := os.read(ours, 65536):
                    said += piece
            except OSError:  # Linux's word for a terminal whose other end is closed
                pass
            finally:
                os.close(ours)
        return process.returncode, said.decode()

    def proposed(self, *options: str) -> tuple[dict[str, str], str]:
        """Returns the lines that it wants to add, by their keys, and all that it says."""
        done = self.run(*options)
        assert "Traceback" not in done.stderr
        lines = [line[4:] for line in done.stdout.splitlines() if line.startswith("  + ")]
        return dict(line.split(" = ", 1) for line in lines), " ".join(done.stdout.split())

    def written(self) -> str:
        """Has it write its proposal, and returns what is in the file then."""
        done = self.run("--yes")
        assert (done.returncode, done.stderr) == (0, ""), done
        return self.path.read_text()

    def _command(self, *options: str) -> list[str]:
        return self._router.command(SIPNAT, "setup", "--config", str(self.path), *options)


def add_link(network: Network, name: str, address: str, kind: str = "bridge") -> None:
    """Gives the router one more link that is up."""
    run = network.router.run
    if kind == "tun":
        run("ip", "tuntap", "add", "name", name, "mode", "tun")
    else:
        run("ip", "link", "add", "name", name, "type", kind)
    run("ip", "address", "add", address, "dev", name)
    run("ip", "link", "set", name, "up")
