"""`sipnat setup`: a configuration for this router, proposed, shown, asked about and written."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alg.cli.app import app, fail, warnings_kept_back, write_lines
from alg.cli.doctor import finding_lines
from alg.cli.options import External, Internal
from alg.cli.run import given
from alg.cli.tables import WIDTH, write
from alg.config import DEFAULT_CONFIG
from alg.config_file import ConfigError, parse_config, read_config
from alg.config_text import Setting, setting_line, with_settings
from alg.observe.printable import Line, printable

if TYPE_CHECKING:
    from alg.daemon.proposal import LinkRow, Proposal

_UNITS = tuple(
    Path(each, "sipnat.service") for each in ("/etc/systemd/system", "/usr/lib/systemd/system")
)
_INDENT = 9
_FLEETING = ("nft", "iptables", "ip6tables", "sysctl")


@app.command()
def setup(
    internal: Internal = None,
    external: External = None,
    config: Annotated[
        Path, typer.Option("--config", metavar="FILE", help="The file to write.")
    ] = Path(DEFAULT_CONFIG),
    yes: Annotated[bool, typer.Option("--yes", help="Write it without asking.")] = False,
) -> None:
    """Look at this router, propose a configuration for it, and write it once that is agreed.

    What a file sets already stays, unless an interface is gone or an option says otherwise; the
    old file is kept with ".bak" behind its name. The exit status is 0 where the file is as it
    should be, 1 where nothing was written, 2 where an option or the file cannot be used.
    """
    from alg.daemon.proposal import NoProposal, propose

    sample = (files("alg") / "deploy" / "sipnat.toml").read_text(encoding="utf-8")
    try:
        old = read_config(config) if os.path.exists(config) else None
        said = {} if old in (None, sample) else parse_config(config, old)
        with warnings_kept_back():
            proposal = propose(config, said, given(internal=internal, external=external))
    except ConfigError as error:
        fail(error, 2)
    except NoProposal as error:
        fail(error)
    write_lines(_lines(config, proposal, said))
    if proposal.settings:
        _write(config, old, with_settings(old or sample, proposal.settings), is_agreed=yes)
    if proposal.fault:
        fail(ConfigError(proposal.fault), 2)
    write_lines(_next_lines(config, proposal))


def _write(path: Path, old: str | None, text: str, *, is_agreed: bool) -> None:
    """Writes the file if that is agreed, and fails otherwise."""
    from alg.io.replacement import HasChanged, is_replaceable, replace_file

    if not is_replaceable(path):
        fail(ValueError(f"nothing was written: {path.parent} is not writable, root may be needed"))
    if not is_agreed and not sys.stdin.isatty():
        fail(ValueError("nothing was written: --yes writes it without asking"))
    if not is_agreed and not _is_confirmed(path):
        fail(ValueError("nothing was written"))
    try:
        backup = replace_file(path, old, text)
    except OSError as error:
        fail(OSError(f"{path}: cannot be written: {error.strerror}"))
    except HasChanged as error:
        fail(error)
    write(f"written; the old file is {backup}" if backup else "written")


def _is_confirmed(path: Path) -> bool:
    """Asks; Ctrl-C and the end of what is typed mean no."""
    try:
        return typer.confirm(f"Write it to {path}?", default=True, err=True)
    except typer.Abort:
        print(file=sys.stderr)
        return False


def _lines(path: Path, proposal: Proposal, said: Mapping[str, object]) -> Iterator[Line]:
    """Yields what was found, and what is proposed."""
    yield from _link_lines(proposal.links)
    if proposal.firewalls:
        yield Line(printable(f"firewalls: {', '.join(proposal.firewalls)}"))
    yield Line(f"IPv6: {proposal.mode6}")
    if proposal.remarks or proposal.findings:
        yield Line("")
    for remark in proposal.remarks:
        lines = textwrap.wrap(printable(remark), WIDTH - _INDENT)
        yield from (Line(f"{'' if n else 'note':{_INDENT}}{line}") for n, line in enumerate(lines))
    for row in proposal.findings:
        yield from finding_lines(row)
    commands = [each for row in proposal.findings for each in row["commands"]]
    if any(each.startswith(_FLEETING) for each in commands):
        yield Line(f"{'':{_INDENT}}What these commands do is gone after a reboot, unless the files")
        yield Line(f"{'':{_INDENT}}of the firewall and of sysctl say it too.")
    yield Line("")
    if proposal.settings:
        yield Line(printable(f"{path}:"))
    else:
        yield Line(printable(f"{path} needs no change"), "green")
    for key, setting in proposal.settings.items():
        if key in said:
            yield Line(f"  - {printable(setting_line(key, Setting(said[key])))}", "red")
        yield Line(f"  + {setting_line(key, setting)}", "green")


def _link_lines(rows: list[LinkRow]) -> Iterator[Line]:
    widths = [max(map(len, cells)) for cells in zip(*map(_cells, rows), strict=True)]
    for row in rows:
        cells = map("{:{}}".format, _cells(row), widths)
        yield Line(printable("  ".join(cells).rstrip()), "bold" if row["role"] else "")


def _cells(row: LinkRow) -> tuple[str, str, str]:
    role = row["role"] or "left out"
    return row["name"], ", ".join(row["addresses"]) or "-", f"{role}: {row['what']}"


def _next_lines(path: Path, proposal: Proposal) -> Iterator[Line]:
    """Yields what to do now."""
    runs, number = proposal.is_running, proposal.uplink or ""
    if proposal.settings or not runs:
        of_service = Path(DEFAULT_CONFIG).with_name(f"sipnat{number}.toml")
        if path == of_service and any(unit.exists() for unit in _UNITS):
            unit = f"sipnat@{number}" if number else "sipnat"
            command = f"systemctl {'restart' if runs else 'enable --now'} {unit}"
        else:
            command = f"{'stop it, then ' if runs else ''}sipnat run --config {path}"
        yield Line(printable(f"next: {command}"))
    yield Line(printable(f"then: sipnat doctor --config {path}"))
