"""Debian's Kamailio as the phones' registrar and proxy, with and without its NAT help."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from tests.interop.town import SERVER
from tests.lab.agents import wait_until
from tests.lab.closable import Closable
from tests.lab.namespace import Namespace

CONFIG = Path(__file__).with_name("registrar.cfg")
KINDS = {"kamailio": (), "nathelper": ("-A", "NATHELPER")}
READY_TIMEOUT = 10.0
STOP_TIMEOUT = 5.0


class Registrar(Closable):
    """A Kamailio of one of KINDS, listening when this returns; raises RuntimeError with its log."""

    def __init__(self, namespace: Namespace, kind: str) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="sipnat-lab-")
        self._log = Path(self._directory.name, "log")
        listen = [word for t in ("udp", "tcp") for word in ("-l", f"{t}:{SERVER}:5060")]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                namespace.command(
                    *("kamailio", "-DD", "-E", "-f", str(CONFIG), "-m", "16", "-M", "4"),
                    *("-Y", self._directory.name, "-P", f"{self._directory.name}/pid"),
                    *listen,
                    *KINDS[kind],
                ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

        def is_listening() -> bool:
            return bool(namespace.run("ss", "-Hltn", "sport", "=", ":5060"))

        if not wait_until(is_listening, READY_TIMEOUT):
            log_text = self._log.read_text(errors="replace")
            self.close()
            raise RuntimeError(f"kamailio does not listen:\n{log_text[-2000:]}")

    def log(self) -> str:
        """Returns what it has complained about."""
        return self._log.read_text(errors="replace")

    def close(self) -> None:
        """Ends it with all its processes."""
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._directory.cleanup()
