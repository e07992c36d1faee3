"""The queue rule: nft's own `queue`, or one of iptables and ip6tables on kernels that lack it.

Either way it matches the mark that the ruleset has set, so what is captured is decided in one
place.
"""

from __future__ import annotations

import contextlib

from rules.iptables import ChainMissing, IptablesChain, iptables_programs
from rules.programs import ProgramFailed, run_program
from rules.settings import Settings

_FAMILIES = {"iptables": "ip", "ip6tables": "ip6"}
_BARE_TABLE = """
table %s mangle {
    chain FORWARD {
        type filter hook forward priority mangle; policy accept;
    }
}
"""
_PROBE = (
    "table inet sipnat_probe { chain probe {"
    " type filter hook forward priority mangle; queue num 0 bypass; }; }"
)
_PROXY_PROBE = (
    "table inet sipnat_probe { chain probe {"
    " type filter hook prerouting priority mangle;"
    " meta l4proto tcp socket transparent 1 fib daddr oifname lo tproxy ip to 127.0.0.1:1; }; }"
)


def has_native_queue() -> bool:
    """Tells whether the kernel has nft's `queue` statement."""
    return _takes(_PROBE)


def has_transparent_proxy() -> bool:
    """Tells whether the kernel has what the relay's rules need."""
    return _takes(_PROXY_PROBE)


def install_iptables_rule(settings: Settings) -> None:
    """Adds the NFQUEUE rule where it is not there, then removes older ones of ours.

    Raises ProgramFailed.
    """
    for chain in _chains(settings):
        chain.put(iptables_rule(settings), is_first=False)


def has_iptables_rule(settings: Settings) -> bool:
    """Tells whether the NFQUEUE rule stands; raises ProgramFailed."""
    return all(iptables_rule(settings) in chain.tagged() for chain in _chains(settings))


def remove_iptables_rules(settings: Settings) -> None:
    """Removes every NFQUEUE rule of ours, and the mangle table if that leaves it bare."""
    for chain in _chains(settings):
        with contextlib.suppress(ChainMissing):
            chain.clear()
        with contextlib.suppress(ProgramFailed):
            _remove_bare_table(_FAMILIES[chain.program])


def iptables_rule(settings: Settings) -> list[str]:
    """Returns the rule's arguments, spelled as `iptables -S` prints them."""
    mark = f"{settings.queue_mark:#x}/{settings.queue_mark:#x}"
    return [
        *("-m", "mark", "--mark", mark),
        *("-m", "comment", "--comment", settings.table),
        *("-j", "NFQUEUE", "--queue-num", str(settings.queue_number)),
        *(["--queue-bypass"] if settings.is_fail_open else []),
    ]


def _takes(rules: str) -> bool:
    """Tells whether the kernel takes these rules; asks by a dry run."""
    try:
        run_program("nft", "--check", "--file", "-", text=rules)
    except ProgramFailed:
        return False
    return True


def _chains(settings: Settings) -> list[IptablesChain]:
    return [
        IptablesChain("mangle", "FORWARD", "NFQUEUE", settings.table, program)
        for program in iptables_programs(settings)
    ]


def _remove_bare_table(family: str) -> None:
    """Removes the table that iptables-nft makes on demand; the kernel refuses if a rule came."""
    bare = (_BARE_TABLE % family).split()
    if run_program("nft", "list", "table", family, "mangle").split() == bare:
        text = f"delete chain {family} mangle FORWARD; delete table {family} mangle"
        run_program("nft", "-f", "-", text=text)
