"""The options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from alg.config import DEFAULT_CONTROL
from nat_table.endpoint import parse_host

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


def _checked_host(text: str | None) -> str | None:
    """Returns what was given; raises BadParameter where it names no host."""
    try:
        if text is not None:
            parse_host(text)
    except ValueError:
        raise typer.BadParameter("allowed is such as 10.0.0.20 or 10.0.0.20:5060") from None
    return text


OfHost = Annotated[
    str | None,
    typer.Option(
        "--internal",
        metavar="ADDR[:PORT]",
        help="Only of this internal host, or of one port of it.",
        callback=_checked_host,
    ),
]
OfCall = Annotated[
    str | None, typer.Option("--call-id", metavar="ID", help="Only of the call of this Call-ID.")
]
OfKind = Annotated[
    Literal["sip", "rtp", "rtcp", "media", "any"] | None,
    typer.Option("--kind", help="Only what is for this."),
]
OfSource = Annotated[
    Literal["sip", "pcp", "nat-pmp", "upnp", "api", "static"] | None,
    typer.Option("--source", help="Only what was asked for in this way."),
]
Users = Annotated[
    bool, typer.Option("--users", help="Name users too, such as sip:1001@example.com.")
]
Watching = Annotated[
    bool, typer.Option("--watch", "-w", help="Show it again every second, until Ctrl-C.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON array.")]
