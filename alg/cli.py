"""The commands: options in, text out; what they do is done elsewhere.

Everything that takes long to import is imported by the command that needs it. Exit status: 0 when
it worked, 1 when it could not, 2 when it was told wrongly, 130 after Ctrl-C. Rows are printed by
`alg.tables`.
"""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer

from alg import columns
from alg.columns import Columns, Row
from alg.config import DEFAULT_CONTROL, Config, ConfigError, load_config
from alg.observe.printable import printable
from alg.tables import print_rows, write
from nat_table.endpoint import parse_endpoint

app = typer.Typer(
    help="A NAT application level gateway for SIP.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich" if sys.stdout.isatty() else None,
)
show = typer.Typer(no_args_is_help=True)
app.add_typer(show, name="show", help="Show what the running gateway knows.")
maps = typer.Typer(no_args_is_help=True)
app.add_typer(maps, name="map", help="Ask the running gateway for mappings.")

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
MappedEndpoint = Annotated[
    str, typer.Option("--internal", metavar="ADDR:PORT", help="What is mapped.")
]
MapTransport = Annotated[
    Literal["udp", "tcp", "tls"], typer.Option("--transport", help="How its traffic travels.")
]
MapRemote = Annotated[
    str | None,
    typer.Option("--remote", metavar="ADDR:PORT", help="Who sends to it; anybody, if not given."),
]
MapLifetime = Annotated[
    float | None, typer.Option("--lifetime", min=1, metavar="SECONDS", help="How long it lasts.")
]
MapName = Annotated[
    str, typer.Option("--name", metavar="NAME", help="Whose it is, where several ask for one.")
]


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
    write(text.removesuffix("\n"))


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
                write(as_json_line(explanation))
            else:
                _write_lines(render_lines(explanation))
    except CaptureError as error:
        _fail(error)
    finally:
        if not as_json:
            write(render_summary(explainer))


@app.command()
def version() -> None:
    """Print the version."""
    try:
        write(f"sipnat {importlib.metadata.version('sipnat')}")
    except importlib.metadata.PackageNotFoundError:
        write("sipnat (not installed)")


@show.command()
def mappings(control: ControlSocket = DEFAULT_CONTROL, as_json: Json = False) -> None:
    """Show the NAT mappings and what keeps each."""
    _show(control, columns.MAPPINGS, as_json)


@show.command()
def connections(control: ControlSocket = DEFAULT_CONTROL, as_json: Json = False) -> None:
    """Show the TCP connections that pass the relay."""
    _show(control, columns.CONNECTIONS, as_json)


@show.command()
def reasons(control: ControlSocket = DEFAULT_CONTROL, as_json: Json = False) -> None:
    """Show how often messages, packets and connections went which way, and why."""
    _show(control, columns.REASONS, as_json)


@show.command()
def upstream(control: ControlSocket = DEFAULT_CONTROL, as_json: Json = False) -> None:
    """Show the address that messages name, and the NAT above this router."""
    _show(control, columns.UPSTREAM, as_json)


@maps.command()
def add(
    internal: MappedEndpoint,
    port_type: Annotated[
        Literal["sip", "rtp", "rtcp"], typer.Option("--type", help="What the port is for.")
    ],
    transport: MapTransport = "udp",
    remote: MapRemote = None,
    external: Annotated[
        int | None,
        typer.Option("--external", min=1, max=65535, metavar="PORT", help="This port or none."),
    ] = None,
    lifetime: MapLifetime = None,
    name: MapName = "",
    control: ControlSocket = DEFAULT_CONTROL,
    as_json: Json = False,
) -> None:
    """Add a mapping, or renew it; RTP on an even port has one for RTCP beside it."""
    _map(
        control,
        as_json,
        action="add",
        internal=internal,
        type=port_type,
        transport=transport,
        remote=remote,
        external=external,
        lifetime=lifetime,
        name=name,
    )


@maps.command()
def update(
    internal: MappedEndpoint,
    transport: MapTransport = "udp",
    remote: Annotated[
        str | None,
        typer.Option("--remote", metavar="ADDR:PORT", help="Who sends to it by now."),
    ] = None,
    lifetime: MapLifetime = None,
    name: MapName = "",
    control: ControlSocket = DEFAULT_CONTROL,
    as_json: Json = False,
) -> None:
    """Give a mapping another remote, or more time."""
    _map(
        control,
        as_json,
        action="update",
        internal=internal,
        transport=transport,
        remote=remote,
        lifetime=lifetime,
        name=name,
    )


@maps.command()
def release(
    internal: MappedEndpoint,
    transport: MapTransport = "udp",
    name: MapName = "",
    source: Annotated[
        Literal["api", "pcp", "nat-pmp", "upnp"],
        typer.Option("--source", help="By which way it came; a host's own may be ended too."),
    ] = "api",
    control: ControlSocket = DEFAULT_CONTROL,
    as_json: Json = False,
) -> None:
    """Give a mapping back."""
    _map(
        control,
        as_json,
        action="release",
        internal=internal,
        transport=transport,
        name=name,
        source=source,
    )


@maps.command("list")
def list_leases(control: ControlSocket = DEFAULT_CONTROL, as_json: Json = False) -> None:
    """List all mappings that were asked for, however."""
    _map(control, as_json, action="list")


def _map(control: str, as_json: bool, **values: object) -> None:
    """Sends a request `map` of what is given, and prints its rows."""
    given = {key: value for key, value in values.items() if value is not None}
    for key in {"internal", "remote"} & given.keys():
        try:
            parse_endpoint(str(given[key]))
        except ValueError:
            _fail(ValueError(f"--{key} is {given[key]}, allowed is such as 10.0.0.20:5060"), 2)
    print_rows(_ask(control, "map", given), columns.LEASES, as_json)


def _show(control: str, kind: Columns, as_json: bool) -> None:
    """Asks for all rows of a kind, and prints them."""
    print_rows(_ask(control, "show", {"what": kind.what}), kind, as_json)


def _load(path: Path | None, **options: object) -> Config:
    given = {key: value for key, value in options.items() if value not in (None, [])}
    try:
        return load_config(path, given)
    except ConfigError as error:
        _fail(error, status=2)


def _ask(control: str, command: str, values: Row) -> list[dict[str, object]]:
    from alg.io.control import ControlError, ask

    try:
        return list(ask(control, {"command": command, **values}))
    except ControlError as error:
        _fail(error)


def _fail(error: Exception, status: int = 1) -> NoReturn:
    print(f"sipnat: {printable(str(error))}", file=sys.stderr)
    raise typer.Exit(status)


def _write_lines(lines: Iterable[tuple[str, str]]) -> None:
    """Prints lines of safe text, each in its style on a terminal and plain anywhere else."""
    if not sys.stdout.isatty():
        return write("\n".join(text for text, _ in lines))
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    for text, style in lines:
        console.print(Text(text, style), soft_wrap=True)
