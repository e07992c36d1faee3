"""The unit is exposed as little as it says, by systemd's own reckoning."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
UNIT = ROOT / "alg" / "deploy" / "systemd" / "sipnat.service"
MOST = 2.0
LEVEL = re.compile(r"Overall exposure level for \S+: ([\d.]+)")


def test_the_exposure_of_the_unit_is_low() -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("there is no systemd-analyze")
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(UNIT)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = LEVEL.search(done.stdout)
    assert found and float(found[1]) < MOST, done.stdout
