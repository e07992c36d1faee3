"""Whose firewalls stand on this router: known by the chains that each has."""

from __future__ import annotations

from rules.doctor.firewall import DROP, Chain, Firewall

_BY_CHAIN = {"DOCKER-USER": "Docker", "ufw-before-forward": "ufw", "FORWARD_direct": "firewalld"}
_BY_TABLE = {"fw4": "OpenWrt fw4", "firewalld": "firewalld"}
KNOWN = frozenset((*_BY_CHAIN.values(), *_BY_TABLE.values()))
"""Firewalls of which it is known where a rule of others belongs."""

_FILTERING = ("input", "forward")


def firewall_names(firewall: Firewall) -> list[str]:
    """Returns each firewall's name: "ufw", or "nftables (inet filter)" for rules by hand."""
    chains = list(firewall.chains())
    known = list(dict.fromkeys(name for chain in chains if (name := _known(chain))))
    plain = list(dict.fromkeys(name for chain in chains if (name := _plain(chain, known))))
    return known + plain


def _known(chain: Chain) -> str:
    if chain.program == "nft":
        return _BY_TABLE.get(chain.table, "")
    return _BY_CHAIN.get(chain.name, "")


def _plain(chain: Chain, known: list[str]) -> str:
    """Returns whose rules a chain has that filters and is of no known firewall."""
    filters = chain.hook in _FILTERING and (chain.rules or chain.policy == DROP)
    if not filters or _known(chain):
        return ""
    if chain.program == "nft":
        return f"nftables ({chain.family} {chain.table})"
    return chain.program if chain.table == "filter" and not known else ""
