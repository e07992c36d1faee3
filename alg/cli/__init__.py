"""The commands: options in, text out; what they do is done elsewhere.

    app.py      the tree of commands, and what they share
    options.py  the options that several commands have
    setup.py    a configuration, proposed
    run.py      run, rules, version
    show.py     what the gateway knows
    calls.py    the calls, and what their media carries
    map.py      mappings on request
    steer.py    how it is, and what an administrator has it do
    why.py      the story of a call
    ladder.py   a call as a picture
    trace.py    messages as they pass
    doctor.py   what would break calls
    uninstall.py  what is left in the kernel goes
    explain.py  what it would do with messages from files
    manual.py   manual pages and completion, made from all of them

Rows are printed by `alg.cli.tables`, with the cells of `alg.cli.columns`.
"""

from alg.cli import (
    calls,
    doctor,
    explain,
    ladder,
    map,
    run,
    setup,
    show,
    steer,
    trace,
    uninstall,
    why,
)
from alg.cli.app import app

__all__ = [
    "app",
    "calls",
    "doctor",
    "explain",
    "ladder",
    "main",
    "map",
    "run",
    "setup",
    "show",
    "steer",
    "trace",
    "uninstall",
    "why",
]


def main() -> None:
    """Runs the command that the arguments name, and exits."""
    app(prog_name="sipnat")
