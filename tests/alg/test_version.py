"""Which sipnat runs, and whether its packet path is compiled."""

from __future__ import annotations

import importlib
import subprocess
import sys

from alg.version import is_compiled, version


def test_version_says_what_runs() -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "alg", "version"], capture_output=True, text=True, check=True
    ).stdout
    file = importlib.import_module("nat_table.table").__file__
    assert is_compiled() is (file is not None and file.endswith(".so"))
    assert printed == f"sipnat {version()}{', compiled' if is_compiled() else ''}\n"
