"""`sipnat map`: asking the running gateway for mappings."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from alg.cli import columns
from alg.cli.app import app, ask_all, fail
from alg.cli.options import ControlSocket, Json
from alg.cli.tables import print_rows
from alg.config import DEFAULT_CONTROL
from nat_table.endpoint import parse_endpoint

maps = typer.Typer(no_args_is_help=True)
app.add_typer(maps, name="map", help="Ask the running gateway for mappings.")

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
            fail(ValueError(f"--{key} is {given[key]}, allowed is such as 10.0.0.20:5060"), 2)
    print_rows(ask_all(control, "map", given), columns.LEASES, as_json)
