"""A whole machine of the lab: a root file system of its own, in which systemd boots.

Its network is a namespace of the lab, everything else is its own (`boot.sh`). What it writes goes
to a folder that lies over the root it starts from, so that one root serves many machines, a machine
finds its disk again when it boots once more, and one that is off serves as a root too. It ends with
its init, at the latest when this process does.
"""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tests.lab.agents import wait_until
from tests.lab.closable import Closable
from tests.lab.namespace import NAMESPACES, PREFIX, Namespace

BOOT = Path(__file__).with_name("boot.sh")
ENVIRONMENT = ("env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "HOME=/root")
BOOT_ID = "/run/boot_id"
"""Where a machine has the id of its boot, which no other boot has had."""

BOOTED = ("running", "degraded")
_CGROUP_PLACES = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))
_numbers = itertools.count()


class MachineFailed(AssertionError):
    """A machine did not boot or end, or a command in it failed; carries what was printed."""


class Machine(Closable):
    """A machine in the network namespace `network`.

    Its root is `layers`, the uppermost first, under what the folder `disk` has.
    """

    def __init__(self, network: Namespace, layers: Sequence[Path], disk: Path) -> None:
        self.layers = tuple(layers)
        self.disk = disk
        self._network = network
        self._cgroup = Path()
        self._process: subprocess.Popen[bytes] | None = None
        self._init = 0

    def path(self, path: str) -> Path:
        """Returns where a file is seen from outside while the machine runs."""
        return Path(f"/proc/{self._running_init()}/root{path}")

    @property
    def is_running(self) -> bool:
        """Whether it is on."""
        return self._process is not None and self._process.poll() is None

    @property
    def as_layers(self) -> tuple[Path, ...]:
        """What other machines start from that are to be as this one is, once it is off."""
        copied = self.disk / "root"
        return (copied,) if Path(copied, "etc").exists() else (self.disk / "changes", *self.layers)

    def start(self, timeout: float = 120.0) -> None:
        """Boots, and returns when every unit that is to start has; raises MachineFailed."""
        self.disk.mkdir(exist_ok=True)
        place = _cgroup_place()
        _remove_stale(place)
        self._cgroup = place / f"{PREFIX}{os.getpid()}-{next(_numbers)}"
        self._cgroup.mkdir()
        self._init = 0
        with Path(self.disk, "console").open("wb") as console:
            self._process = subprocess.Popen(
                [
                    # Not by `ip netns exec`, which hides the cgroups.
                    *("setpriv", "--pdeathsig", "KILL"),
                    *("nsenter", f"--net={NAMESPACES / self._network.name}"),
                    *(str(BOOT), ":".join(map(str, self.layers))),
                    *(str(self.disk), str(self._cgroup)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
            )
        if not wait_until(lambda: not self.is_running or self._has_booted(), timeout):
            self.close()
        if not self.is_running:
            self.close()
            raise MachineFailed(f"the machine did not boot:\n{self.console()}")

    def power_off(self, timeout: float = 60.0) -> None:
        """Ends it as its owner would: every unit is stopped."""
        self.try_to_run("systemctl", "--no-block", "poweroff")
        if not wait_until(lambda: not self.is_running, timeout):
            raise MachineFailed(f"the machine did not end:\n{self.console()}")
        self.close()

    def close(self) -> None:
        """Pulls the plug."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        self._process = None
        wait_until(self._is_empty, 5.0)
        _remove_cgroup(self._cgroup)

    def run(self, *arguments: str, text: str = "", timeout: float = 60.0) -> str:
        """Runs a command inside as root and returns what it printed; raises MachineFailed."""
        done = self.try_to_run(*arguments, text=text, timeout=timeout)
        if done.returncode:
            said = (done.stdout + done.stderr).strip()
            raise MachineFailed(f"{' '.join(arguments)}: exit {done.returncode}: {said}")
        return done.stdout

    def try_to_run(
        self, *arguments: str, text: str = "", timeout: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command inside as root, whatever comes of it."""
        return subprocess.run(
            self.command(*arguments),
            input=text,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def command(self, *arguments: str) -> list[str]:
        """Returns the command line that runs `arguments` inside."""
        spaces = ("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd")
        init = str(self._running_init())
        return ["nsenter", "--target", init, *spaces, *ENVIRONMENT, *arguments]

    def journal(self, unit: str) -> list[str]:
        """Returns what a unit, and systemd about it, has logged since the machine booted."""
        return self.run("journalctl", "--unit", unit, "--output", "cat", "--no-pager").splitlines()

    def show(self, unit: str, name: str) -> str:
        """Returns a property of a unit, such as "MainPID"."""
        return self.run("systemctl", "show", "--value", "--property", name, unit).strip()

    def console(self) -> str:
        """Returns what systemd has printed since it last booted."""
        return Path(self.disk, "console").read_text(errors="replace")

    def _has_booted(self) -> bool:
        assert self._process is not None
        self._init = self._init or _systemd_below(self._process.pid)
        return (
            self._init != 0
            and self.try_to_run("systemctl", "is-system-running").stdout.strip() in BOOTED
        )

    def _running_init(self) -> int:
        """Returns the init's process id: by that of any other, the host itself would be meant."""
        if not self._init or not self.is_running:
            raise MachineFailed("the machine is off")
        return self._init

    def _is_empty(self) -> bool:
        return "populated 0" in Path(self._cgroup, "cgroup.events").read_text()


def _systemd_below(pid: int) -> int:
    """Returns the child of a process once that is systemd, in the machine's own root; before, 0."""
    with suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            if Path("/proc", child, "comm").read_text() == "systemd\n":
                return int(child)
    return 0


def _cgroup_place() -> Path:
    for place in _CGROUP_PLACES:
        if Path(place, "cgroup.procs").exists() and Path(place, "cgroup.controllers").exists():
            return place
    raise MachineFailed("this machine has no cgroup2 hierarchy, which systemd needs")


def _remove_stale(place: Path) -> None:
    """Removes the cgroups of machines whose lab was killed, and which ended with it."""
    for cgroup in place.glob(f"{PREFIX}*"):
        if not Path("/proc", cgroup.name.removeprefix(PREFIX).split("-")[0]).exists():
            _remove_cgroup(cgroup)


def _remove_cgroup(cgroup: Path) -> None:
    """Removes a cgroup and those in it; another lab may be doing the same."""
    for folder, _, _ in os.walk(cgroup, topdown=False):
        with suppress(OSError):
            os.rmdir(folder)
