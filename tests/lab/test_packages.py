"""One test fetches, and all that run at the same time have what it fetched."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from tests.lab.packages import fetch_packages

APT_GET = """#!/bin/sh
mkdir {0}/busy || exit 100
sleep 0.1
touch {0}/package.deb
rmdir {0}/busy
"""


def test_packages_are_fetched_by_one_test_and_all_have_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs, folder = tmp_path / "bin", tmp_path / "fetched"
    programs.mkdir()
    folder.mkdir()
    (programs / "apt-get").write_text(APT_GET.format(folder))
    (programs / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    cache = cast(pytest.Cache, SimpleNamespace(mkdir=lambda name: folder))

    def fetch(_: int) -> bool:
        with suppress(pytest.skip.Exception):
            return (fetch_packages(cache, "package") / "package.deb").exists()
        return False

    with ThreadPoolExecutor(3) as tests:
        assert list(tests.map(fetch, range(3))) == [True] * 3
