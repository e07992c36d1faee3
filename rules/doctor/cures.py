"""The commands that cure a firewall: for the very chain, or for the firewall that it is part of."""

from __future__ import annotations

from collections.abc import Sequence

from rules.doctor.firewall import Chain, Firewall, Rule
from rules.doctor.iptables import rule_command
from rules.doctor.probe import Probe
from rules.settings import Settings

Cure = tuple[tuple[str, ...], tuple[str, ...]]
"""Commands, and lines of the configuration."""

_FOR_OTHERS = {
    "FORWARD": ("DOCKER-USER", "ufw-before-forward", "ufw6-before-forward"),
    "INPUT": ("ufw-before-input", "ufw6-before-input"),
}
"""Chains that a firewall keeps for others, by the one that calls them."""

_OWNERS = ("fw4", "firewalld")


def of_drop(firewall: Firewall, settings: Settings, chain: Chain, dropped: Sequence[Probe]) -> Cure:
    """Returns what has a chain accept what has sipnat's marks.

    Where sipnat itself can keep the rule there, so does a line of the configuration. In mangle
    FORWARD SIP may have to go to sipnat's rule further down, so only media is let through there.
    """
    of_others = (
        other
        for name in _FOR_OTHERS.get(chain.name, ())
        if chain.table == "filter"
        if (other := firewall.chain(chain.program, chain.table, name, chain.family))
    )
    place = next(of_others, chain)
    if (chain.program != "nft", chain.table, chain.name) == (True, "mangle", "FORWARD"):
        return (_insertion_for_media(chain, settings),), ()
    is_kept = place is not chain or chain.table in _OWNERS
    command = _insertion(place, settings.mark_mask)
    return (command,), ('install_accept = "auto"',) if is_kept else ()


def acceptance(chain: Chain, probe: Probe, ports: str) -> str:
    """Returns the command by which a chain accepts what comes as a probe does, for these ports."""
    if chain.program == "nft":
        place = f"{chain.family} {chain.table} {chain.name}"
        asked = f"iifname {probe.in_interface} {probe.protocol} dport {ports}"
        return f"nft 'insert rule {place} {asked} accept'"
    asked = f"-i {probe.in_interface} -p {probe.protocol} --dport {ports.replace('-', ':')}"
    return rule_command(chain.program, chain.table, f"-I {chain.name} {asked} -j ACCEPT")


def removal_of_helper(chain: Chain, rule: Rule) -> str:
    """Returns the command that takes it away, for good where the firewall has one."""
    if chain.table == "fw4":
        switch = "uci set firewall.@defaults[0].auto_helper=0"
        return f"{switch} && uci commit firewall && fw4 reload"
    if chain.table == "firewalld":
        zone = chain.name.removeprefix("filter_IN_").removesuffix("_allow")
        where = f"firewall-cmd --permanent --zone={zone} --remove-service=sip"
        return f"{where} && firewall-cmd --reload"
    return rule.removal


def of_offload(chain: Chain, settings: Settings) -> str:
    """Returns what has SIP pass before it is offloaded; OpenWrt has a switch, for all flows."""
    if chain.table == "fw4":
        switch = "uci set firewall.@defaults[0].flow_offloading=0"
        return f"{switch} && uci commit firewall && fw4 reload"
    return _insertion(chain, settings.queue_mark)


def _insertion_for_media(chain: Chain, settings: Settings) -> str:
    """Returns the same for what does not go to the queue, which may be asked for further down."""
    marks = f"{settings.open_mark:#x}/{settings.open_mark | settings.queue_mark:#x}"
    rule = f"-I {chain.name} -m mark --mark {marks} -j ACCEPT"
    return rule_command(chain.program, chain.table, rule)


def _insertion(chain: Chain, bits: int) -> str:
    """Returns the command by which a chain accepts first of all what has one of these marks."""
    if chain.program == "nft":
        place = f"{chain.family} {chain.table} {chain.name}"
        return f"nft 'insert rule {place} meta mark & {bits:#010x} != 0 accept'"
    rule = f"-I {chain.name} -m mark ! --mark 0x0/{bits:#x} -j ACCEPT"
    return rule_command(chain.program, chain.table, rule)
