"""A router of the lab as a machine: Debian, systemd, and the package where it is installed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.lab.agents import wait_until
from tests.lab.machine import Machine, MachineFailed
from tests.lab.network import SERVER, Network

CONFIG = "/etc/sipnat/sipnat.toml"
UNIT = "sipnat"
PASSING = (
    *("/var/lib/apt/", "/var/lib/dpkg/", "/var/cache/"),
    *("/var/log/apt/", "/var/log/dpkg.log", "/var/log/journal/"),
)
"""What any package changes, installed or removed, and nothing of ours."""


class Router(Machine):
    """The machine between the phones and the server of `network`, which has a way out."""

    def __init__(self, network: Network, layers: Sequence[Path], disk: Path) -> None:
        super().__init__(network.router, layers, disk)
        network.router.run("ip", "route", "add", "default", "via", SERVER)

    def install(self, package: Path) -> None:
        """Installs a package file, as an administrator would."""
        shutil.copy(package, self.path("/tmp"))
        self.apt("install", f"/tmp/{package.name}")

    def apt(self, *arguments: str) -> None:
        """Runs apt-get, which asks nothing."""
        apt_get = ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "--yes")
        self.run(*apt_get, *arguments, timeout=180.0)

    def set_up(self) -> None:
        """Does what the README says after the installation."""
        self.run("sipnat", "setup", "--yes")
        self.systemctl("enable", "--now")

    def systemctl(self, *arguments: str) -> None:
        """Has systemd do something with the service; raises MachineFailed, with its journal."""
        done = self.try_to_run("systemctl", *arguments, UNIT)
        if done.returncode:
            raise MachineFailed("\n".join((done.stderr, *self.journal(UNIT))))

    @property
    def pid(self) -> int:
        """The gateway's process id inside the machine, 0 where it does not run."""
        return int(self.show(UNIT, "MainPID"))

    @property
    def is_active(self) -> bool:
        """Whether systemd takes the gateway to be in service."""
        return self.show(UNIT, "ActiveState") == "active"

    def replaces(self, pid: int, timeout: float = 30.0) -> bool:
        """Tells whether a process other than this one is in service within the time."""
        return wait_until(lambda: self.is_active and self.pid not in (0, pid), timeout)

    def mappings(self, *kinds: str) -> dict[str, str]:
        """Returns the external endpoint of each internal one, of all mappings or of `kinds`."""
        rows: list[dict[str, Any]] = json.loads(self.run("sipnat", "show", "mappings", "--json"))
        return {
            row["internal"]: row["external"] for row in rows if not kinds or row["kind"] in kinds
        }

    def has_no_media(self, timeout: float = 10.0) -> bool:
        """Tells whether every call's media mappings are gone within the time."""
        return wait_until(lambda: not self.mappings("rtp", "rtcp"), timeout)

    def warnings(self) -> list[str]:
        """Returns what the service has logged that is worse than information."""
        filters = ("--unit", UNIT, "--priority", "warning", "--output", "cat", "--quiet")
        return self.run("journalctl", "--no-pager", *filters).splitlines()

    def complaints(self) -> list[str]:
        """Returns what the doctor says of this router; a lab's clock nobody sets."""
        found = json.loads(self.try_to_run("sipnat", "doctor", "--json").stdout)
        return [row["text"] for row in found if row["level"] != "ok" and row["check"] != "clock"]

    def kernel(self) -> list[str]:
        """Returns whatever of the kernel sipnat changes: rules, routing and reserved ports."""
        commands = (
            "nft list ruleset",
            "iptables-save",
            "ip6tables-save",
            "ip rule",
            "ip -6 rule",
            "ip route show table all",
            "ip -6 route show table all",
            "cat /proc/sys/net/ipv4/ip_local_reserved_ports",
        )
        lines = [line for each in commands for line in self.run(*each.split()).splitlines()]
        # Addresses of the links themselves come a while after the links.
        return [line for line in lines if "proto kernel" not in line]

    def files(self) -> set[str]:
        """Returns every file of the disk: kind, mode, owner, group and path."""
        listed = self.run("find", "/", "-xdev", "-printf", "%y %m %u %g %p\n").splitlines()
        return {line for line in listed if not line.split(" ", 4)[4].startswith(PASSING)}
