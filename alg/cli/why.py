"""`sipnat why`: the story of a call or a phone, from what the gateway remembers."""

from __future__ import annotations

from typing import Annotated

import typer

from alg.cli.app import app, ask_all, fail, write_lines
from alg.cli.options import ControlSocket, Json, OfHost
from alg.cli.tables import print_json
from alg.config import DEFAULT_CONTROL


@app.command()
def why(
    call_id: Annotated[
        str | None, typer.Argument(metavar="[CALL-ID]", help="A call; or its beginning and ~.")
    ] = None,
    internal: OfHost = None,
    control: ControlSocket = DEFAULT_CONTROL,
    as_json: Json = False,
) -> None:
    """Tell the story of a call or a phone: each message, what became of it, and why."""
    from alg.observe.entry import parse_entries
    from alg.observe.narration import narrate

    if (call_id is None) == (internal is None):
        fail(ValueError("name a call or give --internal, and not both"), 2)
    wanted = {"call_id": call_id} if internal is None else {"internal": internal}
    rows = ask_all(control, "why", {**wanted, "full": as_json})
    if as_json:
        return print_json(rows)
    try:
        entries = parse_entries(rows)
    except ValueError as error:
        fail(error)
    write_lines(narrate(entries))
