"""`sipnat doctor` on a machine of the lab, and the cures that it prints, tried."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from tests.lab.closable import Closable
from tests.lab.gateway import SIPNAT
from tests.lab.namespace import Namespace

OPTIONS = ("--internal", "lan0", "--external", "wan0")
_PROGRAMS = "/usr/local/sbin:/usr/sbin:/sbin"

Finding = dict[str, Any]


class Doctor(Closable):
    """Examines a router; `configuration` are the lines that the cures have added so far."""

    def __init__(self, router: Namespace, *options: str) -> None:
        self.configuration: list[str] = []
        self._router = router
        self._options = options or OPTIONS
        self._directory = tempfile.TemporaryDirectory(prefix="sipnat-doctor-")
        self._file = Path(self._directory.name, "sipnat.toml")
        self._file.write_text("")

    def close(self) -> None:
        """Removes its file."""
        self._directory.cleanup()

    def run(self, *options: str) -> subprocess.CompletedProcess[str]:
        """Runs the command itself."""
        self._file.write_text("\n".join(self.configuration))
        command = (SIPNAT, "doctor", *self._options, "--config", str(self._file), *options)
        return subprocess.run(
            self._router.command(*command), capture_output=True, text=True, timeout=40
        )

    def examine(self, *options: str) -> list[Finding]:
        """Returns every finding, and checks that the exit status is that of the worst."""
        done = self.run("--json", *options)
        assert not done.stderr, done.stderr
        found: list[Finding] = json.loads(done.stdout)
        levels = {row["level"] for row in found}
        worst = 2 if "error" in levels else 1 if levels & {"warning", "skipped"} else 0
        assert done.returncode == worst
        return found

    def look(self, check: str, *options: str) -> list[Finding]:
        """Returns what one check has found that is not well."""
        found = [row for row in self.examine(*options) if row["check"] == check]
        assert found, f"{check} says nothing at all"
        return [row for row in found if row["level"] != "ok"]

    def cure(self, findings: list[Finding]) -> None:
        """Does what findings say: runs their commands in a shell, takes their lines over."""
        path = {**os.environ, "PATH": f"{os.environ['PATH']}:{_PROGRAMS}"}
        for finding in findings:
            for command in finding["commands"]:
                done = subprocess.run(
                    self._router.command("sh", "-c", command),
                    capture_output=True,
                    text=True,
                    timeout=20,
                    env=path,
                )
                # conntrack says by its status that there was nothing to delete.
                assert done.returncode == 0 or command.startswith("conntrack"), done.stderr
            new = (each for each in finding["configuration"] if each not in self.configuration)
            self.configuration += new


def check_cured(doctor: Doctor, check: str, words: str, level: str = "error") -> None:
    """Checks that this is found, and no longer once what is printed was done."""
    found = doctor.look(check)
    assert {row["level"] for row in found} == {level}, found
    assert any(words in row["text"] for row in found), found
    doctor.cure(found)
    assert doctor.look(check) == []
