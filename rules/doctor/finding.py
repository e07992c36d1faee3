"""What a check has found, and what cures it."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Level(enum.Enum):
    """How bad it is; the value is what is printed."""

    OK = "ok"
    SKIPPED = "skipped"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence, and the cure: commands for a root shell, and lines for the configuration."""

    check: str
    level: Level
    text: str
    commands: tuple[str, ...] = ()
    configuration: tuple[str, ...] = ()


def ok(check: str, text: str) -> Finding:
    """Returns that nothing is wrong."""
    return Finding(check, Level.OK, text)


def warning(check: str, text: str, *commands: str, configuration: tuple[str, ...] = ()) -> Finding:
    """Returns what breaks some calls, or may break them."""
    return Finding(check, Level.WARNING, text, commands, configuration)


def error(check: str, text: str, *commands: str, configuration: tuple[str, ...] = ()) -> Finding:
    """Returns what breaks calls."""
    return Finding(check, Level.ERROR, text, commands, configuration)
