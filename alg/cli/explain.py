"""`sipnat explain`: the gateway at work on messages from files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from alg.cli.app import app, fail, write_lines
from alg.cli.tables import write


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
        fail(error, 2)
    try:
        for explanation in explanations:
            if as_json:
                write(as_json_line(explanation))
            else:
                write_lines(render_lines(explanation))
    except CaptureError as error:
        fail(error)
    finally:
        if not as_json:
            write(render_summary(explainer))
