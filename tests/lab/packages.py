"""Packages of Debian for tests: fetched once and only unpacked, as their scripts start services.

Tests that run at the same time want the same ones, and apt-get refuses a folder to which another
downloads: the first test fetches, and the others wait for it.
"""

from __future__ import annotations

import fcntl
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

DOWNLOAD_TIMEOUT = 120.0


def fetch_packages(cache: pytest.Cache | None, *names: str) -> Path:
    """Returns a folder with these packages, and what they need that is not here.

    Skips where they cannot be had.
    """
    assert cache is not None
    directory = cache.mkdir("-".join(names))
    keep = ("-o", f"Dir::Cache::archives={directory}", "-o", "APT::Sandbox::User=root")
    how = ("--yes", "--no-install-recommends", "--download-only", "-o", "DPkg::Lock::Timeout=60")
    (directory / "partial").mkdir(exist_ok=True)
    _fetch_once(directory, ("apt-get", *how, *keep, "install", *names))
    return directory


def fetch_package(cache: pytest.Cache | None, name: str) -> Path:
    """Returns the file of one package, without what it needs; skips where it cannot be had."""
    assert cache is not None
    directory = cache.mkdir(f"{name}-alone")
    _fetch_once(directory, ("apt-get", "download", name))
    return next(directory.glob("*.deb"))


def _fetch_once(directory: Path, command: Sequence[str]) -> None:
    stamp = directory / "complete"
    with (directory / "fetching").open("w") as fetching:
        fcntl.flock(fetching, fcntl.LOCK_EX)
        if stamp.exists():
            return
        try:
            subprocess.run(
                command, cwd=directory, capture_output=True, timeout=DOWNLOAD_TIMEOUT, check=True
            )
        except (OSError, subprocess.SubprocessError) as error:
            pytest.skip(f"packages of Debian's cannot be had: {error}")
        stamp.touch()
