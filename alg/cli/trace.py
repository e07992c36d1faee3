"""`sipnat trace`: messages as they pass, as lines, as JSON, or as a capture of both sides."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from typing import IO, Annotated

import typer

from alg.cli.app import app, ask_each, fail, write_lines
from alg.cli.columns import Row
from alg.cli.options import ControlSocket, OfCall, OfHost
from alg.cli.tables import write
from alg.config import DEFAULT_CONTROL

STDOUT = "-"


@app.command()
def trace(
    control: ControlSocket = DEFAULT_CONTROL,
    call_id: OfCall = None,
    internal: OfHost = None,
    method: Annotated[
        str | None,
        typer.Option(
            "--method", metavar="METHOD", help="Requests of this method, and their responses."
        ),
    ] = None,
    recent: Annotated[
        bool, typer.Option("--recent", help="Begin with what the gateway remembers.")
    ] = False,
    count: Annotated[
        int | None, typer.Option("--count", min=1, metavar="N", help="End after N messages.")
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Print messages, as they came and as they left.")
    ] = False,
    pcap: Annotated[
        str | None,
        typer.Option(
            "--pcap",
            metavar="FILE",
            help="Write a capture (pcapng) of both sides; - is standard output.",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object a line for each message.")
    ] = False,
) -> None:
    """Show messages as they pass, until Ctrl-C."""
    if pcap is not None and (full or as_json):
        raise typer.BadParameter("--pcap goes with neither --full nor --json")
    if pcap == STDOUT and sys.stdout.isatty():
        raise typer.BadParameter("a capture is not for a terminal: --pcap FILE, or a pipe behind")
    values = {
        "call_id": call_id,
        "internal": internal,
        "method": method,
        "recent": recent,
        "count": count,
        "full": full or pcap is not None,
    }
    rows = ask_each(control, "trace", values, timeout=None)
    if pcap is not None:
        _capture(rows, pcap)
    elif as_json:
        for row in rows:
            write(json.dumps(row))
    else:
        _print(rows, is_full=full)


def _print(rows: Iterator[Row], *, is_full: bool) -> None:
    from alg.observe.traced import TraceLines

    lines = TraceLines(is_full=is_full)
    for row in rows:
        if rendered := list(lines.render(row)):
            write_lines(rendered)


def _capture(rows: Iterator[Row], path: str) -> None:
    """Writes a capture that is whole after each message, and says at the end what is in it."""
    from alg.observe.pcapng import CaptureWriter

    first = next(rows)
    internal = first["internal"]
    assert isinstance(internal, list)
    writer = CaptureWriter(",".join(internal), str(first["external"]))
    written = lost = 0
    with _opened(path) as file:
        try:
            _put(file, writer.head())
            for row in rows:
                if row["event"] == "message":
                    _put(file, writer.message(row))
                    written += 1
                elif row["event"] == "lost":
                    lost += int(str(row["count"]))
        finally:
            missing = f", {lost} are missing, because they came too fast" if lost else ""
            print(f"sipnat: {written} messages captured{missing}", file=sys.stderr)


@contextlib.contextmanager
def _opened(path: str) -> Iterator[IO[bytes]]:
    """Opens what a capture is written to; fails where that cannot be."""
    if path == STDOUT:
        yield sys.stdout.buffer
        return
    try:
        with open(path, "wb") as file:
            yield file
    except OSError as error:
        fail(OSError(f"{path} cannot be written: {error.strerror}"))


def _put(file: IO[bytes], block: bytes) -> None:
    file.write(block)
    file.flush()
