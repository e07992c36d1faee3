"""Prometheus' own checker of metrics and rules, out of Debian's package, which is not installed."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.lab.packages import fetch_package


class Promtool:
    """Runs promtool; every check fails with what it says."""

    def __init__(self, cache: pytest.Cache | None) -> None:
        """Finds it, or downloads it once; skips where it cannot be had."""
        self._program = shutil.which("promtool") or str(_unpacked(cache))

    def check_metrics(self, text: str) -> None:
        """Checks that names, types and units follow the conventions."""
        self._run("check", "metrics", text=text)

    def check_rules(self, path: Path) -> None:
        """Checks a file of rules."""
        self._run("check", "rules", "--lint=all", "--lint-fatal", str(path))

    def test_rules(self, path: Path) -> None:
        """Runs a file of tests of rules."""
        self._run("test", "rules", str(path))

    def _run(self, *arguments: str, text: str = "") -> None:
        done = subprocess.run(
            [self._program, *arguments], input=text, capture_output=True, text=True, timeout=30
        )
        assert not done.returncode, done.stdout + done.stderr


def _unpacked(cache: pytest.Cache | None) -> Path:
    package = fetch_package(cache, "prometheus")
    program = package.with_name("promtool")
    if not program.exists():
        with tempfile.TemporaryDirectory(dir=package.parent) as unpacked:
            subprocess.run(["dpkg-deb", "--extract", package, unpacked], timeout=40, check=True)
            Path(unpacked, "usr/bin/promtool").rename(program)
    return program
