"""The lab as a whole: built, up, and taken down with all that belongs to it.

A lab has a project name and addresses of its own, so that the one of a test never meets the one
that somebody has up.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from tests.docker import engine
from tests.docker.engine import BUILD_TIMEOUT, DockerFailed, compose, docker
from tests.docker.phone import ContainerPhone
from tests.lab.agents import wait_until

PHONES = {"phone1": "lan.20", "phone2": "lan.21", "phone3": "wan.20"}
REGISTRAR = "wan.10"
REGISTRATION_TIMEOUT = 75.0
START_TIMEOUT = 15.0
CALL_END_TIMEOUT = 10.0
DAEMON = "/run/sipnat.pid"


class LabFailed(AssertionError):
    """The lab is not as it must be; the message begins with one sentence."""


@dataclass(frozen=True, slots=True)
class Lab:
    """A lab by its project name, and the first three octets of its two networks."""

    project: str = "sipnat-lab"
    lan: str = "10.77.0"
    wan: str = "198.51.100"

    def build(self) -> None:
        """Builds the images; what has not changed costs nothing. Raises DockerFailed."""
        engine.make_base()
        self.compose("build", timeout=BUILD_TIMEOUT)

    def up(self) -> None:
        """Starts what is not up, and returns when every phone is registered; raises LabFailed."""
        self.compose("up", "--detach")
        for name in PHONES:
            self.wait_for_registration(name)

    def down(self) -> None:
        """Takes away containers, networks and state; the images stay."""
        self.compose("down", "--volumes", "--remove-orphans", "--timeout", "5")

    def phone(self, name: str) -> ContainerPhone:
        """Returns a phone that is up, to be told what to do; raises LabFailed."""
        address = self._address(PHONES[name])
        return ContainerPhone(name, self.container(name), address, self._address(REGISTRAR))

    def show(self, *words: str) -> str:
        """Returns what `sipnat show` says in the router."""
        return self.in_router("sipnat", "show", *words)

    def is_registered(self, user: str) -> bool:
        """Tells whether the registrar knows where a user is."""
        asking = ("kamcmd", "-s", "unix:/tmp/ctl", "ul.lookup", "location", user)
        return "Address:" in docker("exec", self.container("registrar"), *asking)

    def wait_for_registration(self, user: str) -> None:
        """Returns when the registrar knows a user; raises LabFailed."""
        if not wait_until(lambda: self.is_registered(user), REGISTRATION_TIMEOUT):
            raise LabFailed(f"{user} is not registered within {REGISTRATION_TIMEOUT:.0f} s")

    def wait_for_no_call(self) -> None:
        """Returns when the gateway has no call, nor a port open for one; raises LabFailed."""
        if not wait_until(lambda: not self._calls() and not self._media(), CALL_END_TIMEOUT):
            raise LabFailed(f"the router still has {self._calls() or self._media()}")

    def daemon(self) -> int:
        """Returns the process id of the router's daemon, as the router counts."""
        return int(self.in_router("cat", DAEMON))

    def kill_daemon(self) -> None:
        """Kills the router's daemon, and returns when the next one is ready; raises LabFailed."""
        before = self.daemon()
        self.in_router("sh", "-c", f"kill -KILL {before}")
        if not wait_until(lambda: self.daemon() != before and self._is_serving(), START_TIMEOUT):
            raise LabFailed(f"sipnat did not come back within {START_TIMEOUT:.0f} s")

    def restart_router(self) -> None:
        """Restarts the container, with a new network namespace; returns when sipnat is ready."""
        docker("restart", self.container("router"))
        if not wait_until(self._is_serving, START_TIMEOUT):
            raise LabFailed(f"sipnat did not come back within {START_TIMEOUT:.0f} s")

    def in_router(self, *command: str) -> str:
        """Runs a command in the router and returns what it prints; raises DockerFailed."""
        return docker("exec", self.container("router"), *command)

    def container(self, service: str) -> str:
        """Returns the id of a service's container; raises LabFailed where it is not up."""
        labels = {"project": self.project, "service": service}
        filters = (f"--filter=label=com.docker.compose.{k}={v}" for k, v in labels.items())
        container = docker("ps", "--quiet", *filters).strip()
        if not container:
            raise LabFailed(f"{service} is not up: ./dev lab up")
        return container

    def compose(self, *words: str, timeout: float = engine.COMMAND_TIMEOUT) -> str:
        """Runs a command of compose on this lab; raises DockerFailed."""
        settings = {"COMPOSE_PROJECT_NAME": self.project, "LAN": self.lan, "WAN": self.wan}
        return compose(*words, settings=settings, timeout=timeout)

    def _address(self, place: str) -> str:
        network, _, host = place.partition(".")
        return f"{getattr(self, network)}.{host}"

    def _is_serving(self) -> bool:
        try:
            self.in_router("sipnat", "status")
        except DockerFailed:
            return False
        return True

    def _calls(self) -> list[dict[str, Any]]:
        return list(json.loads(self.show("calls", "--json")))

    def _media(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = json.loads(self.show("mappings", "--json"))
        return [row for row in rows if row["kind"] in ("rtp", "rtcp")]
