"""`sipnat show`: what the running gateway knows."""

from __future__ import annotations

from typing import Annotated

import typer

from alg.cli import columns
from alg.cli.app import app, ask_each
from alg.cli.columns import Columns
from alg.cli.options import (
    ControlSocket,
    Json,
    OfCall,
    OfHost,
    OfKind,
    OfSource,
    Users,
    Watching,
)
from alg.cli.read_ahead import read_ahead
from alg.cli.tables import print_rows
from alg.cli.watch import watch
from alg.config import DEFAULT_CONTROL

show = typer.Typer(no_args_is_help=True)
app.add_typer(show, name="show", help="Show what the running gateway knows.")

Counters = Annotated[
    bool, typer.Option("--counters", help="Show what each has carried, as the kernel counts it.")
]


@show.command()
def mappings(
    internal: OfHost = None,
    call_id: OfCall = None,
    kind: OfKind = None,
    source: OfSource = None,
    counters: Counters = False,
    watching: Watching = False,
    control: ControlSocket = DEFAULT_CONTROL,
    as_json: Json = False,
) -> None:
    """Show the NAT mappings and what keeps each; with --watch, what flows through it."""
    filters = {"internal": internal, "call_id": call_id, "kind": kind, "source": source}
    shown = columns.COUNTED_MAPPINGS if counters else columns.MAPPINGS
    if watching:
        shown, counters = columns.WATCHED_MAPPINGS, True
    show_rows(control, shown, watching, as_json, **filters, counters=counters)


@show.command()
def connections(
    internal: OfHost = None,
    watching: Watching = False,
    control: ControlSocket = DEFAULT_CONTROL,
    as_json: Json = False,
) -> None:
    """Show the TCP connections that pass the relay."""
    show_rows(control, columns.CONNECTIONS, watching, as_json, internal=internal)


@show.command()
def registrations(
    internal: OfHost = None,
    call_id: OfCall = None,
    users: Users = False,
    watching: Watching = False,
    control: ControlSocket = DEFAULT_CONTROL,
    as_json: Json = False,
) -> None:
    """Show the phones that are registered, where, and until when."""
    shown = columns.REGISTERED_USERS if users else columns.REGISTRATIONS
    filters = {"internal": internal, "call_id": call_id}
    show_rows(control, shown, watching, as_json, **filters, users=users)


@show.command()
def reasons(
    watching: Watching = False,
    control: ControlSocket = DEFAULT_CONTROL,
    as_json: Json = False,
) -> None:
    """Show how often messages, packets and connections went which way, and why."""
    shown = columns.WATCHED_REASONS if watching else columns.REASONS
    show_rows(control, shown, watching, as_json)


@show.command()
def limits(
    internal: OfHost = None,
    watching: Watching = False,
    control: ControlSocket = DEFAULT_CONTROL,
    as_json: Json = False,
) -> None:
    """Show how much of each limit is used, and by which hosts."""
    show_rows(control, columns.LIMITS, watching, as_json, internal=internal)


@show.command()
def kernel(
    watching: Watching = False,
    control: ControlSocket = DEFAULT_CONTROL,
    as_json: Json = False,
) -> None:
    """Show how the kernel's side stands: rules, queue, conntrack and counters."""
    show_rows(control, columns.KERNEL, watching, as_json)


@show.command()
def upstream(
    watching: Watching = False,
    control: ControlSocket = DEFAULT_CONTROL,
    as_json: Json = False,
) -> None:
    """Show the address that messages name, and the NAT above this router."""
    show_rows(control, columns.UPSTREAM, watching, as_json)


def show_rows(
    control: str, shown: Columns, watching: bool, as_json: bool, **options: object
) -> None:
    """Asks for rows of a kind, and prints them once, or again and again."""
    given = {key: value for key, value in options.items() if value not in (None, False)}
    values = {"what": shown.what, **given}
    if watching:
        watch(control, shown, values, as_json)
    else:
        print_rows(read_ahead(ask_each(control, "show", values)), shown, as_json)
