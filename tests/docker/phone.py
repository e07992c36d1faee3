"""A phone of the lab: baresip in a container, told what to do by its control module.

What it has sent and got is counted by the kernel in its own namespace (docker/phone/count.nft), so
it is no opinion of the phone's.
"""

from __future__ import annotations

import json
import socket
from typing import Any

from tests.docker.engine import DockerFailed, docker
from tests.phones.baresip_control import PORT, BaresipControl
from tests.phones.controlled_baresip import ControlledBaresip
from tests.phones.counts import Counts
from tests.phones.phone import PhoneFailed

CONNECT_TIMEOUT = 5.0
LOG_LINES = "15"


class ContainerPhone(ControlledBaresip):
    """The baresip of one container."""

    def __init__(self, name: str, container: str, address: str, registrar: str) -> None:
        self.name = name
        self.user = name
        self._container = container
        self.registrar = registrar
        try:
            connection = socket.create_connection((address, PORT), CONNECT_TIMEOUT)
        except OSError as error:
            raise self.failed(f"cannot be reached at {address}:{PORT}: {error}") from error
        self.control = BaresipControl(connection)

    def use_tcp(self) -> None:
        """Goes on as another user of the same name and `-tcp`, whose signalling is over TCP."""
        self.user = f"{self.name}-tcp"
        account = f"<{self.uri(self.user)};transport=tcp>;auth_pass={self.user}-secret"
        self.ask("uanew", f"{account};regint=60;answermode=auto")
        self.ask("uafind", self.uri(self.user))

    def use_udp(self) -> None:
        """Goes on as the user that it began as."""
        self.ask("uadel", self.uri(self.user))
        self.user = self.name
        self.ask("uafind", self.uri(self.user))

    def counts(self) -> Counts:
        """Returns what this end has sent and got since it started."""
        listing = docker("exec", self._container, "nft", "-j", "list", "counters", "table", "count")
        counters: list[dict[str, Any]] = json.loads(listing)["nftables"]
        return Counts(
            **{
                each["counter"]["name"]: each["counter"]["packets"]
                for each in counters
                if "counter" in each
            }
        )

    def failed(self, complaint: str) -> PhoneFailed:
        try:
            log = docker("logs", "--tail", LOG_LINES, self._container)
        except DockerFailed as failure:
            log = str(failure)
        return PhoneFailed(f"{self.name}: {complaint}\n{log}".rstrip())
