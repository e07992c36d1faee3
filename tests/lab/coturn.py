"""A STUN server with two addresses and two ports (coturn), which tells a NAT's kind (RFC 5780)."""

from __future__ import annotations

import subprocess
import tempfile

from nat_table.endpoint import Endpoint
from tests.lab.agents import wait_until
from tests.lab.closable import Closable
from tests.lab.namespace import Namespace
from tests.lab.stun import STUN_PORT, probe

READY_TIMEOUT = 10.0


class Coturn(Closable):
    """The server, answering when this returns; raises RuntimeError where it does not."""

    def __init__(self, namespace: Namespace, address: str, other: str) -> None:
        self.endpoint = Endpoint(address, STUN_PORT)
        self._directory = tempfile.TemporaryDirectory(prefix="sipnat-lab-")
        where = self._directory.name
        self._process = subprocess.Popen(
            namespace.command(
                *("turnserver", "-n", "--stun-only", "--no-cli", "--no-tls", "--no-dtls"),
                *("-L", address, "-L", other, "--log-file", f"{where}/log"),
                *("--pidfile", f"{where}/pid", "--userdb", f"{where}/users"),
            ),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        with namespace.udp_socket(other) as asking:

            def answers() -> bool:
                try:
                    return bool(probe(asking, self.endpoint, timeout=0.1))
                except OSError:
                    return False

            if not wait_until(answers, READY_TIMEOUT):
                self.close()
                raise RuntimeError("coturn does not answer")

    def close(self) -> None:
        """Ends the server."""
        self._process.kill()
        self._process.wait()
        self._directory.cleanup()
