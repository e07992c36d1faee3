"""The queue rule: nft's own `queue`, or an iptables rule on kernels that lack it.

Either way one rule matches the mark that the ruleset has set, so what is captured is decided in one
place.
"""

from __future__ import annotations

import contextlib

from rules.iptables import IptablesChain
from rules.programs import ProgramFailed, run_program
from rules.settings import Settings

_BARE_TABLE = """
table ip mangle {
    chain FORWARD {
        type filter hook forward priority mangle; policy accept;
    }
}
"""
_PROBE = (
    "table inet sipnat_probe { chain probe {"
    " type filter hook forward priority mangle; queue num 0 bypass; }; }"
)


def has_native_queue() -> bool:
    """Tells whether the kernel has nft's `queue` statement; asks by a dry run."""
    try:
        run_program("nft", "--check", "--file", "-", text=_PROBE)
    except ProgramFailed:
        return False
    return True


def install_iptables_rule(settings: Settings) -> None:
    """Adds the NFQUEUE rule where it is not there, then removes older ones of ours.

    Raises ProgramFailed.
    """
    _chain(settings).put(iptables_rule(settings), is_first=False)


def has_iptables_rule(settings: Settings) -> bool:
    """Tells whether the NFQUEUE rule stands; raises ProgramFailed."""
    return iptables_rule(settings) in _chain(settings).tagged()


def remove_iptables_rules(settings: Settings) -> None:
    """Removes every NFQUEUE rule of ours, and the mangle table if that leaves it bare."""
    _chain(settings).clear()
    with contextlib.suppress(ProgramFailed):
        _remove_bare_table()


def iptables_rule(settings: Settings) -> list[str]:
    """Returns the rule's arguments, spelled as `iptables -S` prints them."""
    mark = f"{settings.queue_mark:#x}/{settings.queue_mark:#x}"
    return [
        *("-m", "mark", "--mark", mark),
        *("-m", "comment", "--comment", settings.table),
        *("-j", "NFQUEUE", "--queue-num", str(settings.queue_number)),
        *(["--queue-bypass"] if settings.is_fail_open else []),
    ]


def _chain(settings: Settings) -> IptablesChain:
    return IptablesChain("mangle", "FORWARD", "NFQUEUE", settings.table)


def _remove_bare_table() -> None:
    """Removes the table that iptables-nft makes on demand; the kernel refuses if a rule came."""
    if run_program("nft", "list", "table", "ip", "mangle").split() == _BARE_TABLE.split():
        text = "delete chain ip mangle FORWARD; delete table ip mangle"
        run_program("nft", "-f", "-", text=text)
