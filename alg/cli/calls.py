"""`sipnat show calls`: who talks to whom, and what their media carries."""

from __future__ import annotations

from typing import Annotated

import typer

from alg.cli.call_lines import CALLS
from alg.cli.options import ControlSocket, Json, OfCall, OfHost, Users, Watching
from alg.cli.show import show, show_rows
from alg.config import DEFAULT_CONTROL

Ended = Annotated[bool, typer.Option("--ended", help="Also the last calls that have ended.")]


@show.command()
def calls(
    internal: OfHost = None,
    call_id: OfCall = None,
    ended: Ended = False,
    users: Users = False,
    watching: Watching = False,
    control: ControlSocket = DEFAULT_CONTROL,
    as_json: Json = False,
) -> None:
    """Show the calls, and the packets of their media; sent and got are the phone's."""
    filters = {"internal": internal, "call_id": call_id}
    show_rows(control, CALLS, watching, as_json, **filters, ended=ended, users=users)
