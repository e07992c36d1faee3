"""`sipnat doctor` and `sipnat echo`: what would break calls on this router, and on the way."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from alg.cli.app import app, fail, warnings_kept_back, write_lines
from alg.cli.columns import Row
from alg.cli.options import ConfigFile, Control, External, Internal, Json
from alg.cli.run import load
from alg.cli.tables import WIDTH, print_json, write
from alg.config import DEFAULT_CONFIG, DEFAULT_CONTROL, Config
from alg.observe.printable import Line, printable

_STATUS = {"ok": 0, "skipped": 1, "warning": 1, "error": 2}
_STYLES = {"ok": "green", "skipped": "yellow", "warning": "yellow", "error": "red"}
_INDENT = 9
_SERVICE = Path(DEFAULT_CONFIG)


@app.command()
def doctor(
    internal: Internal = None,
    external: External = None,
    config: ConfigFile = None,
    echo: Annotated[
        str | None,
        typer.Option("--echo", metavar="SERVER", help="A SIP echo server to ask, see `echo`."),
    ] = None,
    control: Control = None,
    as_json: Json = False,
) -> None:
    """Find what would break calls on this router, and print what cures it; changes nothing.

    Without options the running gateway is asked for its configuration; where none runs, that of
    the service is read. The exit status is 0 where all is well, 1 after warnings or where checks
    were left out, 2 after errors.
    """
    settings = _settings(
        config, internal=internal, external=external, control=control, sip_echo=echo
    )
    from alg.daemon.doctor import examine

    rows = []
    with warnings_kept_back():
        for row in examine(settings):
            rows.append(row)
            if not as_json:
                write_lines(finding_lines(row))
    if as_json:
        print_json(rows)
    raise typer.Exit(max(_STATUS[row["level"]] for row in rows))


@app.command("echo")
def serve_echo(
    listen: Annotated[
        str, typer.Option("--listen", metavar="ADDR:PORT", help="Where to answer, over UDP.")
    ] = "0.0.0.0:5060",
) -> None:
    """Answer SIP requests with what has come of them, for `doctor` on a router; Ctrl-C ends it.

    It is to run on a host on the Internet. No answer is longer than its request.
    """
    from alg.io.echo import EchoServer
    from nat_table.endpoint import parse_endpoint

    try:
        where = parse_endpoint(listen)
    except ValueError:
        fail(ValueError(f"--listen is {listen}, allowed is such as 0.0.0.0:5060"), 2)
    try:
        server = EchoServer(where)
    except OSError as error:
        fail(OSError(f"cannot listen at {listen}: {error.strerror}"))
    write(f"answering at {where}")
    server.serve()


def _settings(path: Path | None, **options: object) -> Config:
    """Returns the configuration of the options, or where they name none that of the gateway.

    Where no gateway runs yet it is the one that the service would start with.
    """
    if path is not None or options["internal"] or options["external"]:
        return load(path, **options)
    from alg.io.control import ControlError, NotRunning, ask

    given = {key: value for key, value in options.items() if value}
    try:
        (row,) = ask(str(options["control"] or DEFAULT_CONTROL), {"command": "configuration"})
    except ControlError as error:
        if isinstance(error, NotRunning) and not options["control"] and _SERVICE.exists():
            print(f"sipnat: none is running, so {_SERVICE} is read", file=sys.stderr)
            return load(_SERVICE, **options)
        fail(ValueError(f"{error}; give --internal and --external, or --config"), 2)
    known = {key: value for key, value in row.items() if key in Config.__struct_fields__}
    return load(None, **known | given)


def finding_lines(row: Row) -> Iterator[Line]:
    """Yields what is printed of a finding."""
    level = str(row["level"])
    text = printable(f"{row['check']}: {row['text']}")
    first, *others = textwrap.wrap(text, WIDTH - _INDENT)
    yield Line(f"{level:{_INDENT}}{first}", _STYLES[level])
    for line in others:
        yield Line(" " * _INDENT + line, _STYLES[level])
    commands, configuration = row["commands"], row["configuration"]
    assert isinstance(commands, tuple) and isinstance(configuration, tuple)
    for command in commands:
        yield Line(f"{'':{_INDENT}}# {printable(command)}")
    for line in configuration:
        yield Line(f"{'':{_INDENT}}in the configuration: {printable(line)}")
