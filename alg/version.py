"""Which sipnat this is."""

from __future__ import annotations

import importlib.metadata
import importlib.util


def version() -> str:
    """Returns the version of what is installed, "" where sipnat runs from a bare checkout."""
    try:
        return importlib.metadata.version("sipnat")
    except importlib.metadata.PackageNotFoundError:
        return ""


def is_compiled() -> bool:
    """Tells whether the packet path is native code (setup.py)."""
    module = importlib.util.find_spec("nat_table.table")
    return module is not None and not str(module.origin).endswith(".py")
