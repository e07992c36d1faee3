"""What stands in the middle: plain masquerade, the kernel's SIP helper, sipnat, Kamailio.

A box is put on the router of a stage and taken off again; the router masquerades in every case.
Each says where phones send to, and what they write about themselves that is public when it arrives.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.bench.peers.stage import EXTERNAL_ADDRESSES, Stage
from tests.interop.stage import HELPER
from tests.lab.agents import wait_until
from tests.lab.closable import Closable
from tests.lab.gateway import Gateway
from tests.lab.network import EXTERNAL, LAN_ROUTER, SERVER

KAMAILIO = Path(__file__).with_name("kamailio.cfg")
KAMAILIO_CHILDREN = 4
START_TIMEOUT = 60.0
LIMITS = {
    "max_mappings": 250_000,
    "max_mappings_per_host": 100_000,
    "max_new_mappings_per_second": 1_000_000,
    "max_calls_per_host": 100_000,
    "max_unanswered_per_host": 100_000,
}
"""On, and above what the crowd does: a refusal is not to be counted as quick."""


class Box(Closable):
    """What is on the router of a stage; this one is the router as it is: it masquerades."""

    name = "masquerade"
    edge = SERVER
    """The address to which phones send what they have to say to the server."""
    route = ""
    """The Route of requests within a call."""
    promises = ""
    """What is public when it arrives: v for Via, c for Contact, s for the session description."""
    guess = 16_000.0
    """Calls per second from which a search of what it sustains may begin."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    def close(self) -> None:
        """Takes the box off the router."""

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes that it consists of."""
        return ()


class Helper(Box):
    """The kernel's SIP helper: nf_conntrack_sip and nf_nat_sip."""

    name = "helper"
    promises = "vcs"
    guess = 8_000.0

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        stage.router.run("nft", "-f", "-", text=HELPER)


class Sipnat(Box):
    """The real gateway with all its features; `keys` are of its configuration.

    Only the trace ring is off, and no line is logged for each mapping. `prepare` is given the path
    of the store before the start: what it puts there is taken over.
    """

    name = "sipnat"
    promises = "vcs"
    guess = 4_000.0

    def __init__(
        self, stage: Stage, prepare: Callable[[str], object] | None = None, **keys: object
    ) -> None:
        super().__init__(stage)
        own: dict[str, object] = {
            **LIMITS,
            "external_addresses": list(EXTERNAL_ADDRESSES),
            "ports": "1024-60999",
            "servers": [SERVER],
            "trace_megabytes": 0,
            "log_level": "warning",
            "http": {"listen": f"{LAN_ROUTER}:9570"},
        }
        self.gateway = Gateway(stage.router, **{**own, **keys})
        try:
            if prepare is not None:
                prepare(self.gateway.store)
            self.gateway.start(START_TIMEOUT)
        except BaseException:
            self.gateway.close()
            raise

    def close(self) -> None:
        """Ends the process and removes its files."""
        self.gateway.close()

    @property
    def pids(self) -> tuple[int, ...]:
        """The gateway's process."""
        return (self.gateway.pid,)


class Kamailio(Box):
    """Kamailio as a stateless edge proxy with nathelper, without a relay for media."""

    name = "kamailio"
    edge = LAN_ROUTER
    route = f"<sip:{LAN_ROUTER};r2=on;lr>,<sip:{EXTERNAL};r2=on;lr>"
    promises = "vs"
    guess = 2_000.0

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self._directory = tempfile.TemporaryDirectory(prefix="sipnat-lab-")
        folder = self._directory.name
        config, log = Path(folder, "kamailio.cfg"), Path(folder, "log")
        config.write_text(KAMAILIO.read_text().replace("WAN", EXTERNAL))
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                stage.router.command(
                    *("kamailio", "-DD", "-E", "-n", str(KAMAILIO_CHILDREN), "-f", str(config)),
                    *("-m", "64", "-M", "8", "-Y", folder, "-P", f"{folder}/pid"),
                    *("-l", f"udp:{LAN_ROUTER}:5060", "-l", f"udp:{EXTERNAL}:5060"),
                ),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

        def is_listening() -> bool:
            return stage.router.run("ss", "-Hlun", "sport", "=", ":5060").count("\n") == 2

        if not wait_until(is_listening, START_TIMEOUT):
            text = log.read_text(errors="replace")
            self.close()
            raise RuntimeError(f"kamailio does not listen:\n{text[-2000:]}")

    def close(self) -> None:
        """Ends it with all its processes."""
        self._process.terminate()
        try:
            self._process.wait(START_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._directory.cleanup()

    @property
    def pids(self) -> tuple[int, ...]:
        """The first process and its children."""
        first = self._process.pid
        children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
        return (first, *map(int, children))


BOXES: Mapping[str, type[Box]] = {kind.name: kind for kind in (Box, Helper, Sipnat, Kamailio)}
