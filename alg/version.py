"""Which sipnat this is."""

from __future__ import annotations

import importlib.metadata


def version() -> str:
    """Returns the version of what is installed, "" where sipnat runs from a bare checkout."""
    try:
        return importlib.metadata.version("sipnat")
    except importlib.metadata.PackageNotFoundError:
        return ""
