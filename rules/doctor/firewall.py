"""Chains and rules of whichever firewall, and what becomes of a probe in them.

A condition answers yes, no, or None where it asks what nobody can know beforehand: a set of
addresses, a rate, the time of day. Such a rule is passed over, as one that is about something else;
if it would have let the probe go, the verdict is in doubt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from rules.doctor.probe import Probe

Condition = Callable[[Probe], bool | None]

ACCEPT, DROP, QUEUE, RETURN, JUMP, GOTO = "accept", "drop", "queue", "return", "jump", "goto"
NOTRACK, HELPER, OFFLOAD, OVERWRITE = "notrack", "helper", "offload", "overwrite"
_NOTES = (NOTRACK, HELPER, OFFLOAD, OVERWRITE)


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing that a rule does; a rule that does several is several of these.

    `target` is the chain, the number of the queue, the helper's type, or the bits of the mark that
    are cleared. `removal` is the command that takes the rule away.
    """

    conditions: tuple[Condition, ...]
    action: str
    target: str
    text: str
    removal: str
    index: int = 0
    """Its position in the chain, from 1, where the program counts."""

    def is_met_by(self, probe: Probe) -> bool | None:
        """Tells whether all conditions hold, None where one cannot be told and none fails."""
        answers = [condition(probe) for condition in self.conditions]
        return None if None in answers and False not in answers else all(answers)


@dataclass(slots=True)
class Chain:
    """A chain; one with a hook is where packets begin. `program` is nft, iptables or its kin."""

    program: str
    family: str
    table: str
    name: str
    hook: str = ""
    priority: int = 0
    policy: str = ACCEPT
    rules: list[Rule] = field(default_factory=list)

    def __str__(self) -> str:
        family = f"{self.family} " if self.program == "nft" else ""
        return f"{self.program} {family}{self.table} {self.name}"


@dataclass(slots=True)
class Way:
    """What becomes of a probe in a base chain.

    `rule` decided, None where the policy did, and `index` is the position of the base chain's own
    rule that led there. `doubt` is the first rule that might have let it go before. `met` are the
    rules on the way that only note something.
    """

    verdict: str = ACCEPT
    rule: Rule | None = None
    index: int = 0
    doubt: Rule | None = None
    met: list[Rule] = field(default_factory=list)


class Firewall:
    """All chains of the router, but those of sipnat's own tables."""

    def __init__(self, chains: list[Chain]) -> None:
        self._chains = {(each.program, each.family, each.table, each.name): each for each in chains}

    def chain(self, program: str, table: str, name: str, family: str = "ip") -> Chain | None:
        """Returns a chain, None where there is none of this name."""
        return self._chains.get((program, family, table, name))

    def chains(self) -> Iterator[Chain]:
        """Yields every chain there is."""
        yield from self._chains.values()

    def rules(self) -> Iterator[tuple[Chain, Rule]]:
        """Yields every rule there is."""
        for chain in self._chains.values():
            for rule in chain.rules:
                yield chain, rule

    def ways(self, hook: str, probe: Probe) -> Iterator[tuple[Chain, Way]]:
        """Yields each base chain that a probe passes at a hook, in order, and its way there."""
        bases = [
            each
            for each in self._chains.values()
            if each.hook == hook and each.family in probe.families
        ]
        for base in sorted(bases, key=lambda each: each.priority):
            yield base, self.follow(base, probe)

    def follow(self, base: Chain, probe: Probe) -> Way:
        """Returns the way of a probe through one base chain."""
        way = Way()
        way.rule = self._run(base, probe, way, is_base=True)
        way.verdict = way.rule.action if way.rule else base.policy
        return way

    def _run(self, chain: Chain, probe: Probe, way: Way, *, is_base: bool = False) -> Rule | None:
        """Returns the rule that decides in a chain, None where the probe comes to its end."""
        for rule in chain.rules:
            if is_base:
                way.index = rule.index
            is_met = rule.is_met_by(probe)
            if is_met is False:
                continue
            if rule.action in _NOTES:
                way.met.append(rule)
            elif is_met is None:
                if rule.action != DROP:
                    way.doubt = way.doubt or rule
            elif rule.action == RETURN:
                return None
            elif rule.action in (JUMP, GOTO):
                called = self._chains[chain.program, chain.family, chain.table, rule.target]
                decided = self._run(called, probe, way)
                if decided is not None or rule.action == GOTO:
                    return decided
            else:
                return rule
        return None
