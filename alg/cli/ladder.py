"""`sipnat ladder`: a call as a picture, from what the gateway remembers or from captures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alg.cli.app import app, ask_all, fail, write_lines
from alg.cli.options import ControlSocket
from alg.cli.tables import write
from alg.config import DEFAULT_CONTROL

if TYPE_CHECKING:
    from alg.observe.ladder import Ladder


@app.command()
def ladder(
    call_id: Annotated[
        str | None, typer.Argument(metavar="[CALL-ID]", help="A call; or its beginning and ~.")
    ] = None,
    svg: Annotated[
        Path | None,
        typer.Option("--svg", metavar="FILE", help="Write a picture there; - is standard output."),
    ] = None,
    captures: Annotated[
        list[Path] | None,
        typer.Option("--capture", metavar="FILE", help="Draw a call of a capture; repeatable."),
    ] = None,
    internal: Annotated[
        list[str] | None,
        typer.Option("--internal", metavar="CIDR", help="In captures: as of explain."),
    ] = None,
    external: Annotated[
        list[str] | None,
        typer.Option("--external", metavar="ADDRESS", help="In captures: as of explain."),
    ] = None,
    control: ControlSocket = DEFAULT_CONTROL,
) -> None:
    """Draw a call as a ladder: phone, both sides of the gateway, server, and the media."""
    from alg.observe.ladder_svg import render_svg
    from alg.observe.ladder_text import render_ladder

    if captures:
        drawn = _captured(captures, call_id, internal or [], external or [])
    elif call_id is None:
        fail(ValueError("name a call, or give --capture"), 2)
    elif internal or external:
        fail(ValueError("--internal and --external are for --capture"), 2)
    else:
        drawn = _remembered(control, call_id)
    if svg is None:
        write_lines(render_ladder(drawn))
    elif str(svg) == "-":
        write(render_svg(drawn))
    else:
        try:
            svg.write_text(render_svg(drawn), encoding="utf-8")
        except OSError as error:
            fail(OSError(f"{svg}: cannot be written: {error.strerror}"))


def _captured(
    captures: list[Path], call_id: str | None, internal: list[str], external: list[str]
) -> Ladder:
    from alg.observe.capture import CaptureError
    from alg.observe.captured import captured_call
    from alg.observe.explain import Explainer, explain_files
    from alg.observe.ladder import draw_ladder
    from alg.observe.network import Network

    try:
        explainer = Explainer(Network(internal, external))
        explanations = explain_files(explainer, captures, None, None)
    except ValueError as error:
        fail(error, 2)
    try:
        call = captured_call(explainer, explanations, call_id)
    except (CaptureError, ValueError) as error:
        fail(error)
    return draw_ladder(f"call {call.call_id}", call.entries, call.streams)


def _remembered(control: str, call_id: str) -> Ladder:
    from alg.io.control import ControlError, ask
    from alg.observe.captured import which_call
    from alg.observe.entry import parse_entries, parse_streams
    from alg.observe.ladder import draw_ladder

    try:
        entries = parse_entries(ask_all(control, "why", {"call_id": call_id}))
    except ValueError as error:
        fail(error)
    calls = list(dict.fromkeys(each.call_id for each in entries if each.call_id))
    if len(calls) > 1:
        fail(ValueError(which_call(calls, call_id)))
    found = calls[0] if calls else call_id
    request = {"command": "show", "what": "calls", "call_id": found, "ended": True}
    try:
        streams = parse_streams(ask(control, request))
    except (ControlError, ValueError):
        streams = []  # where nobody counts the story stands by itself
    return draw_ladder(f"call {found}", entries, streams)
