"""The tree of commands, and what they share: how to ask the gateway, and how to fail.

Everything that takes long to import is imported by the command that needs it. Exit status: 0 when
it worked, 1 when it could not, 2 when it was told wrongly, 70 when the gateway crashed, 130 after
Ctrl-C.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer

from alg.cli.columns import Row
from alg.cli.tables import write
from alg.observe.printable import Line, printable

app = typer.Typer(
    help="A NAT application level gateway for SIP.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich" if sys.stdout.isatty() else None,
)


def ask_each(
    control: str, command: str, values: Row, timeout: float | None = 5.0
) -> Iterator[dict[str, object]]:
    """Asks the running gateway, and yields rows as they come; fails where it does not answer.

    None for a `timeout` waits for each row for ever.
    """
    from alg.io.control import ControlError, ask

    try:
        yield from ask(control, {"command": command, **values}, timeout)
    except ControlError as error:
        fail(error)


def ask_all(control: str, command: str, values: Row) -> list[dict[str, object]]:
    """Asks the running gateway for all rows; fails where it does not answer."""
    return list(ask_each(control, command, values))


def fail(error: Exception, status: int = 1) -> NoReturn:
    """Ends the command with one sentence."""
    print(f"sipnat: {printable(str(error))}", file=sys.stderr)
    raise typer.Exit(status)


@contextmanager
def warnings_kept_back() -> Iterator[None]:
    """Has the gateway's code warn of nothing: the command says it in words of its own."""
    log = logging.getLogger("sipnat")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def write_lines(lines: Iterable[Line]) -> None:
    """Prints lines, each in its style on a terminal and plain anywhere else."""
    if not sys.stdout.isatty():
        return write("\n".join(text for text, _ in lines))
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    for text, style in lines:
        console.print(Text(text, style), soft_wrap=True)
