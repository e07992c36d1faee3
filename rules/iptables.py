"""Rules of ours in iptables chains of others.

Each carries a comment by which, together with its target, it is found again, also by a later run.
The other rules of the chain stay as they are, in their order.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from nat_table.behavior import Mode6
from rules.programs import ProgramFailed, run_program
from rules.settings import Settings

_LOCK = "xtables.lock"
_WAIT = "--wait=1"  # seconds: packets wait meanwhile, and systemd for the next beat


def iptables_programs(settings: Settings) -> tuple[str, ...]:
    """Returns the programs of the families that are looked at."""
    return ("iptables",) if settings.mode6 is Mode6.OFF else ("iptables", "ip6tables")


class ChainMissing(ProgramFailed):
    """There is no such chain, or no program to list it; the message is one sentence."""


@dataclass(frozen=True, slots=True)
class IptablesChain:
    """A chain of somebody else, in which one rule of ours with this target and tag may stand."""

    table: str
    name: str
    target: str
    tag: str
    program: str = "iptables"
    """Or "ip6tables", whose chains have the same names."""

    def tagged(self) -> list[list[str]]:
        """Returns the arguments of our rules as `iptables -S` prints them.

        Raises ChainMissing, or ProgramFailed where it is not known because another has the lock.
        """
        try:
            lines = self._run("-S").splitlines()[1:]
        except ProgramFailed as failure:
            if _LOCK in str(failure):
                raise
            raise ChainMissing(str(failure)) from failure
        rules = [shlex.split(line)[2:] for line in lines]
        ours = {("--comment", self.tag), ("-j", self.target)}
        return [rule for rule in rules if ours <= set(pairwise(rule))]

    def put(self, rule: Sequence[str], *, is_first: bool) -> bool:
        """Leaves this rule of ours and no other; tells whether it had to be added.

        It is added at the top of the chain or at its end. Raises ChainMissing, ProgramFailed.
        """
        wanted, standing = list(rule), self.tagged()
        is_added = wanted not in standing
        if is_added:
            self._run("-I" if is_first else "-A", *wanted)
        for other in standing:
            if other != wanted:
                self._run("-D", *other)
        return is_added

    def clear(self) -> None:
        """Removes all rules of ours; raises ChainMissing, ProgramFailed."""
        for rule in self.tagged():
            self._run("-D", *rule)

    def _run(self, command: str, *rule: str) -> str:
        return run_program(self.program, _WAIT, "--table", self.table, command, self.name, *rule)
