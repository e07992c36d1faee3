"""The router's firewall as it stands: nft, and both variants of iptables."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rules.doctor import iptables, nftables
from rules.doctor.firewall import Chain, Firewall
from rules.programs import ProgramFailed, run_program

_LEGACY_TABLES = {
    "iptables": Path("/proc/thread-self/net/ip_tables_names"),
    "ip6tables": Path("/proc/thread-self/net/ip6_tables_names"),
}


def read_firewall() -> Firewall:
    """Returns the firewall without sipnat's own tables; raises ProgramFailed where nft fails."""
    listing = run_program("nft", "--json", "--terse", "list", "ruleset")
    return Firewall([*nftables.read_chains(listing), *_iptables()])


def _iptables() -> Iterator[Chain]:
    """Yields the chains of iptables; one that is not installed has none."""
    for program, legacy_tables in _LEGACY_TABLES.items():
        variants = [program]
        try:
            has_legacy = legacy_tables.exists() and legacy_tables.read_text() != ""
            if has_legacy and "nf_tables" in run_program(program, "-V"):
                variants.append(f"{program}-legacy")
            for variant in variants:
                yield from iptables.read_chains(run_program(f"{variant}-save"), variant)
        except (ProgramFailed, OSError):
            continue
