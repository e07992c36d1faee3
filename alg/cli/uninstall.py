"""`sipnat uninstall`: what gateways have left in the kernel goes."""

from __future__ import annotations

from alg.cli.app import app, fail
from alg.cli.tables import write


@app.command()
def uninstall() -> None:
    """Take all of sipnat out of the kernel, once it is stopped: calls lose their mappings.

    Programs, configuration and state stay. A stop leaves rules and mappings behind for the next
    start; this is for when there will be none.
    """
    from alg.daemon import uninstalling

    try:
        uninstalling.uninstall()
    except uninstalling.UninstallError as error:
        fail(error)
    write("nothing of sipnat is in the kernel of this network namespace")
