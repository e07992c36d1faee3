"""The commands: options in, text out; what they do is done elsewhere.

Everything that takes long to import is imported by the command that needs it. Exit status: 0 when
it worked, 1 when it could not, 2 when it was told wrongly, 130 after Ctrl-C. On a terminal tables
are drawn by Rich; anywhere else the same cells come as plain aligned text, and `--json` gives the
rows as the gateway sent them. Call-IDs and the like were written by strangers, so whatever is not
printable is escaped before a terminal sees it.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from alg.config import DEFAULT_CONTROL, Config, ConfigError, load_config
from alg.observe.printable import printable

WIDTH = 80
LEAST_STATE = 8
"""What the last column has in any case, so that it still tells: "call a8~"."""

HEADINGS = ("kind", "internal", "external", "remote", "ends", "state")
CONNECTION_HEADINGS = ("phone", "server", "mapping", "age", "sent", "got", "state")
REASON_HEADINGS = ("reason", "counted by", "count")

app = typer.Typer(
    help="A NAT application level gateway for SIP.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich" if sys.stdout.isatty() else None,
)
show = typer.Typer(no_args_is_help=True)
app.add_typer(show, name="show", help="Show what the running gateway knows.")

Internal = Annotated[
    list[str] | None,
    typer.Option("--internal", metavar="IFACE", help="An interface of the phones; repeatable."),
]
External = Annotated[
    str | None, typer.Option("--external", metavar="IFACE", help="The interface to the Internet.")
]
ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="A TOML file; options override what it says."),
]
Control = Annotated[
    str | None,
    typer.Option(
        "--control", metavar="SOCKET", help=f"The control socket; {DEFAULT_CONTROL} if none is set."
    ),
]
ControlSocket = Annotated[
    str, typer.Option("--control", metavar="SOCKET", help="Where the gateway answers.")
]
LogLevel = Annotated[
    str | None,
    typer.Option("--log-level", metavar="LEVEL", help="debug, info, warning or error."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON array.")]


def main() -> None:
    """Runs the command that the arguments name, and exits."""
    app(prog_name="sipnat")


@app.command()
def run(
    internal: Internal = None,
    external: External = None,
    config: ConfigFile = None,
    control: Control = None,
    log_level: LogLevel = None,
) -> None:
    """Run the gateway in the foreground until SIGTERM or Ctrl-C."""
    settings = _load(
        config, internal=internal, external=external, control=control, log_level=log_level
    )
    from alg.daemon import StartError, run_daemon

    try:
        status = run_daemon(settings)
    except StartError as error:
        _fail(error)
    raise typer.Exit(status)


@app.command()
def rules(
    internal: Internal = None,
    external: External = None,
    config: ConfigFile = None,
    log_level: LogLevel = None,
) -> None:
    """Print the nftables text that `run` would install."""
    settings = _load(config, internal=internal, external=external, log_level=log_level)
    from alg.daemon import StartError, ruleset_text

    try:
        text = ruleset_text(settings)
    except StartError as error:
        _fail(error)
    _write(text.removesuffix("\n"))


@app.command()
def explain(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="pcap or pcapng, or one raw SIP message each."),
    ],
    internal: Annotated[
        list[str] | None,
        typer.Option("--internal", metavar="CIDR", help="A network of the phones; repeatable."),
    ] = None,
    external: Annotated[
        list[str] | None,
        typer.Option(
            "--external",
            metavar="ADDRESS",
            help="The external address, of each family; for IPv6 a prefix, or none if routed.",
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option("--from", metavar="ADDR:PORT", help="Where raw messages come from."),
    ] = None,
    destination: Annotated[
        str | None, typer.Option("--to", metavar="ADDR:PORT", help="Where raw messages go.")
    ] = None,
    sip_ports: Annotated[
        list[int] | None,
        typer.Option("--sip-port", metavar="PORT", help="Instead of 5060; repeatable."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """Show what the gateway would do with the messages in files; needs neither root nor kernel."""
    from alg.observe.capture import CaptureError
    from alg.observe.explain import Explainer, explain_files
    from alg.observe.network import Network
    from alg.observe.report import as_json_line, render_lines, render_summary

    try:
        network = Network(internal or (), external or ())
        explainer = Explainer(network, sip_ports or (5060,))
        explanations = explain_files(explainer, files, source, destination)
    except ValueError as error:
        _fail(error, 2)
    try:
        for explanation in explanations:
            if as_json:
                _write(as_json_line(explanation))
            else:
                _write_lines(render_lines(explanation))
    except CaptureError as error:
        _fail(error)
    finally:
        if not as_json:
            _write(render_summary(explainer))


@app.command()
def version() -> None:
    """Print the version."""
    try:
        _write(f"sipnat {importlib.metadata.version('sipnat')}")
    except importlib.metadata.PackageNotFoundError:
        _write("sipnat (not installed)")


@show.command()
def mappings(control: ControlSocket = DEFAULT_CONTROL, as_json: Json = False) -> None:
    """Show the NAT mappings and what keeps each."""
    _show(_ask(control, "mappings"), "mappings", HEADINGS, _mapping_cells, as_json)


@show.command()
def connections(control: ControlSocket = DEFAULT_CONTROL, as_json: Json = False) -> None:
    """Show the TCP connections that pass the relay."""
    rows = _ask(control, "connections")
    _show(rows, "connections", CONNECTION_HEADINGS, _connection_cells, as_json)


@show.command()
def reasons(control: ControlSocket = DEFAULT_CONTROL, as_json: Json = False) -> None:
    """Show how often messages, packets and connections went which way, and why."""
    _show(_ask(control, "reasons"), "reasons", REASON_HEADINGS, _reason_cells, as_json)


def _load(path: Path | None, **options: object) -> Config:
    given = {key: value for key, value in options.items() if value not in (None, [])}
    try:
        return load_config(path, given)
    except ConfigError as error:
        _fail(error, status=2)


def _ask(control: str, what: str) -> list[dict[str, object]]:
    from alg.io.control import ControlError, ask

    try:
        return list(ask(control, {"command": "show", "what": what}))
    except ControlError as error:
        _fail(error)


def _show(
    rows: Sequence[Mapping[str, object]],
    what: str,
    headings: Sequence[str],
    cells: Callable[[Mapping[str, object]], Sequence[str]],
    as_json: bool,
) -> None:
    """Prints rows as JSON, or as a table of their cells."""
    if as_json:
        _write("[" + ",\n ".join(json.dumps(row) for row in rows) + "]")
    elif not rows:
        _write(f"no {what}")
    elif sys.stdout.isatty():
        _draw_table(headings, [cells(row) for row in rows])
    else:
        _write("\n".join(_render_table(headings, map(cells, rows))))


def _fail(error: Exception, status: int = 1) -> NoReturn:
    print(f"sipnat: {printable(str(error))}", file=sys.stderr)
    raise typer.Exit(status)


def _write(text: str) -> None:
    """Prints and flushes, so that a closed pipe shows here, where Typer ends silently on it."""
    print(text, flush=True)


def _write_lines(lines: Iterable[tuple[str, str]]) -> None:
    """Prints lines of safe text, each in its style on a terminal and plain anywhere else."""
    if not sys.stdout.isatty():
        return _write("\n".join(text for text, _ in lines))
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    for text, style in lines:
        console.print(Text(text, style), soft_wrap=True)


def _mapping_cells(row: Mapping[str, object]) -> tuple[str, ...]:
    """Returns a mapping's cells under HEADINGS; the Call-ID stands beside the state."""
    text = _printable_values(row)
    state, call_id = text.get("state", "-"), text.get("call_id", "")
    internal, external = text.get("internal", "-"), text.get("external", "-")
    return (
        f"{text.get('kind', '-')}/{text.get('transport', '-')}",
        internal,
        "same" if external == internal != "-" else external,
        text.get("remote", "-"),
        _duration(row.get("expires_in")),
        f"{state} {call_id}".rstrip(),
    )


def _connection_cells(row: Mapping[str, object]) -> tuple[str, ...]:
    """Returns a connection's cells under CONNECTION_HEADINGS: what the phone has sent and got."""
    text = _printable_values(row)
    return (
        text.get("phone", "-"),
        text.get("server", "-"),
        text.get("mapping", "-"),
        _duration(row.get("age")),
        text.get("from_phone", "-"),
        text.get("to_phone", "-"),
        text.get("state", "-"),
    )


def _printable_values(row: Mapping[str, object]) -> dict[str, str]:
    """Returns what a row says, as text; what it leaves open is left out."""
    return {key: printable(str(value)) for key, value in row.items() if value is not None}


def _reason_cells(row: Mapping[str, object]) -> tuple[str, ...]:
    """Returns a counter's cells under REASON_HEADINGS."""
    return tuple(printable(str(row.get(key, "-"))) for key in ("reason", "counted_by", "count"))


def _duration(seconds: object) -> str:
    """Renders seconds in at most four characters, rounded down: "299s", "60m", "24h", "41d"."""
    if not isinstance(seconds, int | float):
        return "-"
    whole = max(0, int(seconds))
    for unit, size in (("s", 1), ("m", 60), ("h", 3600)):
        if whole < 1000 * size:
            return f"{whole // size}{unit}"
    return f"{whole // 86400}d"


def _render_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yields aligned lines; the last column is cut to what WIDTH leaves it, no other is."""
    table = [headings, *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)][:-1]
    room = max(LEAST_STATE, WIDTH - sum(widths) - len(widths))
    for *cells, last in table:
        shown = last if len(last) <= room else last[: room - 1] + "~"
        aligned = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        yield " ".join((*aligned, shown)).rstrip()


def _draw_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    *columns, last = zip(headings, *rows, strict=True)
    widths = [max(map(len, column)) for column in columns]
    for column, width in zip(columns, widths, strict=True):
        table.add_column(column[0], no_wrap=True, min_width=width)
    table.add_column(last[0], no_wrap=True, min_width=LEAST_STATE, overflow="ellipsis")
    for cells in rows:
        table.add_row(*map(Text, cells))
    console = Console()
    console.width = max(console.width, sum(widths) + len(widths) + LEAST_STATE)
    console.print(table)
