"""A rule in other firewalls on the same router that lets flows of our mappings through.

An accept in our own table never overrides a drop in another one. So where a known firewall stands,
one rule goes to the top of a chain that it passes first: accept what carries a mark of ours. What
the relay takes is addressed to the router then, as requests for mappings are, so it has another
chain to pass. All else of that firewall is left alone. Its own restart takes our rule away (`ufw
reload`, fw4), so `install` is called again now and then.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass

from rules.iptables import ChainMissing, IptablesChain, iptables_programs
from rules.programs import ProgramFailed, run_program
from rules.settings import Settings

_log = logging.getLogger(__name__)
_TAGGED = re.compile(r'^\s*(.*) comment "(\w+)" # handle (\d+)$', re.MULTILINE)
_IPTABLES = {"Docker": "DOCKER-USER", "ufw": "ufw-before-forward"}
_IP6TABLES = {"Docker (IPv6)": "DOCKER-USER", "ufw (IPv6)": "ufw6-before-forward"}
_NFT = {"OpenWrt fw4": "inet fw4 forward", "firewalld": "inet firewalld filter_FORWARD"}
_IPTABLES_INPUT = {"ufw (input)": "ufw-before-input"}
_NFT_INPUT = {
    "OpenWrt fw4 (input)": "inet fw4 input",
    "firewalld (input)": "inet firewalld filter_INPUT",
}
_IP6TABLES_INPUT = {"ufw (IPv6 input)": "ufw6-before-input"}
_INPUT = _IPTABLES_INPUT.keys() | _IP6TABLES_INPUT.keys() | _NFT_INPUT.keys()
_ACCEPT = re.compile(r"meta mark & (\w+) != \w+ accept")


class Acceptance:
    """Our rules in the firewalls of this network namespace."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._refusing: set[str] = set()
        chains = {
            "iptables": _IPTABLES | _IPTABLES_INPUT,
            "ip6tables": _IP6TABLES | _IP6TABLES_INPUT,
        }
        self._iptables = {
            name: IptablesChain("filter", chain, "ACCEPT", settings.table, program)
            for program in iptables_programs(settings)
            for name, chain in chains[program].items()
        }
        all_nft = _NFT | _NFT_INPUT
        self._nft = {name: NftChain(chain, settings.table) for name, chain in all_nft.items()}

    def install(self) -> list[str]:
        """Puts the rule into every firewall there is; returns the names of those that had none.

        A firewall that refuses the rule is named in the log, once.
        """
        names = (*self._iptables, *self._nft)
        return [name for name in names if self._is_needed(name) and self._put(name)]

    def remove(self) -> None:
        """Removes our rules from every firewall, also those of an earlier run."""
        chains: dict[str, IptablesChain | NftChain] = {**self._iptables, **self._nft}
        for name, chain in chains.items():
            try:
                chain.clear()
            except ChainMissing:
                continue
            except ProgramFailed as failure:
                _log.warning("the rule in %s was not removed: %s", name, failure)

    def _is_needed(self, name: str) -> bool:
        return self._settings.has_own_sockets or name not in _INPUT

    def _put(self, name: str) -> bool:
        try:
            if name in self._nft:
                return self._nft[name].put(self._settings)
            return self._iptables[name].put(iptables_rule(self._settings), is_first=True)
        except ChainMissing:
            return False
        except ProgramFailed as failure:
            if name not in self._refusing:
                _log.warning("%s takes no rule that accepts calls: %s", name, failure)
            self._refusing.add(name)
            return False


@dataclass(frozen=True, slots=True)
class NftChain:
    """A chain in somebody else's nft table; `name` is family, table and chain."""

    name: str
    tag: str

    def put(self, settings: Settings) -> bool:
        """Leaves one rule of ours, accepting the mask; tells whether it had to be added.

        Raises ChainMissing, ProgramFailed.
        """
        tagged = self._tagged()
        mask = settings.mark_mask
        standing = [handle for handle, accepted in tagged.items() if accepted == mask][:1]
        added = [] if standing else [f"insert rule {self.name} {nft_rule(settings)}"]
        self._change(added, tagged.keys() - standing)
        return not standing

    def clear(self) -> None:
        """Removes all rules of ours; raises ChainMissing, ProgramFailed."""
        self._change([], self._tagged())

    def _tagged(self) -> dict[int, int | None]:
        """Returns the handles of our rules and what mask each accepts, if it is such a rule."""
        try:
            text = run_program("nft", "--handle", "list", "chain", *self.name.split())
        except ProgramFailed as failure:
            raise ChainMissing(str(failure)) from failure
        return {
            int(handle): int(rule[1], 0) if (rule := _ACCEPT.fullmatch(line)) else None
            for line, tag, handle in _TAGGED.findall(text)
            if tag == self.tag
        }

    def _change(self, added: list[str], handles: Iterable[int]) -> None:
        """Adds before it deletes, in one transaction."""
        steps = added + [f"delete rule {self.name} handle {handle}" for handle in handles]
        if steps:
            run_program("nft", "-f", "-", text="\n".join(steps))


def iptables_rule(settings: Settings) -> list[str]:
    """Returns the rule's arguments, spelled as `iptables -S` prints them."""
    mark = ("-m", "mark", "!", "--mark", f"0x0/{settings.mark_mask:#x}")
    return [*mark, "-m", "comment", "--comment", settings.table, "-j", "ACCEPT"]


def nft_rule(settings: Settings) -> str:
    """Returns the same rule in nft's words."""
    return f'meta mark & {settings.mark_mask:#010x} != 0 accept comment "{settings.table}"'
