"""The commands that need a configuration: the gateway itself, and its rules as text."""

from __future__ import annotations

import traceback
from pathlib import Path

import typer

from alg.cli.app import app, fail
from alg.cli.options import ConfigFile, Control, External, Internal, LogLevel
from alg.cli.tables import write
from alg.config import Config
from alg.config_file import ConfigError, load_config, reload_config
from alg.version import is_compiled
from alg.version import version as installed_version

CRASHED = 70
"""The exit status after a fault of its own (sysexits(3)): a service begins again at once."""


@app.command()
def run(
    internal: Internal = None,
    external: External = None,
    config: ConfigFile = None,
    control: Control = None,
    log_level: LogLevel = None,
) -> None:
    """Run the gateway in the foreground until SIGTERM or Ctrl-C."""
    options = given(internal=internal, external=external, control=control, log_level=log_level)
    settings = load(config, **options)
    from alg.daemon import StartError, run_daemon

    try:
        status = run_daemon(settings, lambda: reload_config(config, options))
    except StartError as error:
        fail(error)
    except Exception:
        traceback.print_exc()
        raise typer.Exit(CRASHED) from None
    raise typer.Exit(status)


@app.command()
def rules(
    internal: Internal = None,
    external: External = None,
    config: ConfigFile = None,
    log_level: LogLevel = None,
) -> None:
    """Print the nftables text that `run` would install."""
    settings = load(config, internal=internal, external=external, log_level=log_level)
    from alg.daemon import StartError, ruleset_text

    try:
        text = ruleset_text(settings)
    except StartError as error:
        fail(error)
    write(text.removesuffix("\n"))


@app.command()
def version() -> None:
    """Print the version, and whether the packet path is compiled."""
    how = ", compiled" if is_compiled() else ""
    write(f"sipnat {installed_version() or '(not installed)'}{how}")


def given(**options: object) -> dict[str, object]:
    """Returns the options that were given."""
    return {key: value for key, value in options.items() if value not in (None, [])}


def load(path: Path | None, **options: object) -> Config:
    """Returns the configuration; fails where it cannot be used."""
    try:
        return load_config(path, given(**options))
    except ConfigError as error:
        fail(error, status=2)
