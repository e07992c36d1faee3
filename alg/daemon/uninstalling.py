"""What gateways have left in the kernel goes out of it, once none runs any more."""

from __future__ import annotations

from alg.daemon.claim import is_claimed
from rules.netlink import KernelRefused
from rules.privilege import has_net_admin
from rules.programs import ProgramFailed
from rules.removal import remove_traces
from rules.settings import UPLINKS, table_name


class UninstallError(Exception):
    """Something of sipnat stays in the kernel; the text is one sentence."""


def uninstall() -> None:
    """Removes what the gateways of all uplinks have left; raises UninstallError."""
    if not has_net_admin():
        raise UninstallError("root is needed to change the kernel's rules: try with sudo")
    if any(is_claimed(table_name(uplink)) for uplink in UPLINKS):
        raise UninstallError("a sipnat is running, and would put its rules back: stop it first")
    try:
        for uplink in UPLINKS:
            remove_traces(uplink)
    except (KernelRefused, ProgramFailed, OSError) as error:
        raise UninstallError(f"not all of sipnat is out of the kernel: {error}") from error
