"""How the running gateway is, and what an administrator has it do: drop, flush, drain, reload."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import typer

from alg.cli.app import app, ask_all, ask_each
from alg.cli.columns import Row, duration
from alg.cli.options import ControlSocket, Json
from alg.cli.tables import print_json, write
from alg.config import DEFAULT_CONTROL
from alg.observe.printable import printable
from alg.observe.standing import standing
from nat_table.endpoint import parse_endpoint


@app.command()
def status(control: ControlSocket = DEFAULT_CONTROL, as_json: Json = False) -> None:
    """Show how the running gateway is: one line."""
    _write(ask_all(control, "status", {}), as_json, _status_line)


@app.command()
def drop(
    what: Annotated[
        str,
        typer.Argument(
            metavar="MAPPING|CALL-ID",
            help="An internal or external ADDRESS:PORT, or a Call-ID as `show --json` has it.",
        ),
    ],
    transport: Annotated[
        Literal["udp", "tcp"] | None,
        typer.Option("--transport", help="Of a mapping; both, if not given."),
    ] = None,
    control: ControlSocket = DEFAULT_CONTROL,
    as_json: Json = False,
) -> None:
    """End a mapping at once, or the call, registration or subscription with a Call-ID."""
    named: Row = {"call_id": what}
    if _is_endpoint(what):
        named = {"mapping": what, "transport": transport} if transport else {"mapping": what}
    _write(ask_all(control, "drop", named), as_json, _dropped_line)


@app.command()
def flush(
    everything: Annotated[
        bool, typer.Option("--all", help="What was asked for too, however, and the static ones.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask on a terminal.")] = False,
    control: ControlSocket = DEFAULT_CONTROL,
    as_json: Json = False,
) -> None:
    """End all calls and registrations, and the mappings that were signalled, at once."""
    if not yes and sys.stdin.isatty():
        typer.confirm("All calls lose their audio. Go on?", abort=True, err=True)
    *_, last = ask_each(control, "flush", {"all": everything})
    _write([last], as_json, lambda row: f"mappings closed: {_word(row, 'mappings')}")


@app.command()
def drain(
    off: Annotated[bool, typer.Option("--off", help="Take new calls again.")] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Return when the last call is over.")
    ] = False,
    control: ControlSocket = DEFAULT_CONTROL,
    as_json: Json = False,
) -> None:
    """Take no new calls: those that are up go on, and so do registrations."""
    shown = ""
    for row in ask_each(control, "drain", {"off": off, "wait": wait}):
        going_on = f"calls that go on: {_word(row, 'calls')}; new ones are turned away"
        line = going_on if row.get("draining") else "new calls are taken"
        if not as_json and line != shown:
            write(line)
        shown = line
    if as_json:
        print_json([row])


@app.command()
def reload(control: ControlSocket = DEFAULT_CONTROL, as_json: Json = False) -> None:
    """Read the configuration again; what needs a restart is said, and stays as it was."""
    rows = ask_all(control, "reload", {})
    if rows or as_json:
        return _write(rows, as_json, lambda row: f"{_word(row, 'key')}: {_word(row, 'state')}")
    write("nothing has changed")


def _is_endpoint(text: str) -> bool:
    try:
        parse_endpoint(text)
    except ValueError:
        return False
    return True


def _write(rows: Sequence[Row], as_json: bool, line: Callable[[Row], str]) -> None:
    if as_json:
        return print_json(rows)
    write("\n".join(map(line, rows)))


def _status_line(row: Row) -> str:
    return f"sipnat {_word(row, 'version')} up {duration(row.get('uptime'))}, {standing(row)}"


def _dropped_line(row: Row) -> str:
    if row.get("what") != "mapping":
        return f"{_word(row, 'what')} of {_word(row, 'host')} ended"
    kind, transport = _word(row, "kind"), _word(row, "transport")
    return f"{kind}/{transport} {_word(row, 'internal')} <-> {_word(row, 'external')} closed"


def _word(row: Row, key: str) -> str:
    """Returns a value as safe text; "-" where there is none."""
    value = row.get(key)
    return "-" if value in (None, "") else printable(str(value))
