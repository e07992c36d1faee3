"""Reads chains from iptables-save and its kin, of whichever variant has rules.

What an option asks is known for the usual ones; a rule with any other is one of which nobody can
tell whether it is met.
"""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from ipaddress import ip_network
from typing import NamedTuple

from rules.doctor.firewall import (
    ACCEPT,
    DROP,
    GOTO,
    HELPER,
    JUMP,
    NOTRACK,
    OFFLOAD,
    OVERWRITE,
    QUEUE,
    RETURN,
    Chain,
    Condition,
    Rule,
)
from rules.doctor.probe import Probe

_HOOKS = {
    "PREROUTING": "prerouting",
    "INPUT": "input",
    "FORWARD": "forward",
    "OUTPUT": "output",
    "POSTROUTING": "postrouting",
}
_PRIORITIES = {"raw": -300, "mangle": -150, "nat": -100, "filter": 0, "security": 50}
_ENDING = {
    "ACCEPT": ACCEPT,
    "DROP": DROP,
    "REJECT": DROP,
    "RETURN": RETURN,
    "NFQUEUE": QUEUE,
    "MASQUERADE": ACCEPT,
    "SNAT": ACCEPT,
    "DNAT": ACCEPT,
    "REDIRECT": ACCEPT,
    "NOTRACK": NOTRACK,
    "FLOWOFFLOAD": OFFLOAD,
}
_DECLARED = re.compile(r":(\S+) (\S+)")
_OF_TARGETS = (
    "--helper",
    "--notrack",
    "--queue-num",
    "--queue-bypass",
    "--reject-with",
    "--hw",
    "--set-xmark",
)


class Option(NamedTuple):
    """One option of a rule, as `-S` spells it, with the module that it belongs to."""

    name: str
    value: str
    module: str
    is_negated: bool


def read_chains(saved: str, program: str) -> list[Chain]:
    """Returns the chains that `iptables-save` has printed; `program` is the one that lists them."""
    chains: dict[tuple[str, str], Chain] = {}
    sizes: Counter[str] = Counter()
    table = ""
    for line in saved.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif declared := _DECLARED.match(line):
            name, policy = declared.groups()
            chains[table, name] = _declare(program, table, name, policy)
        elif line.startswith("-A "):
            chain = chains[table, line.split()[1]]
            sizes[str(chain)] += 1
            chain.rules += _read_rule(line, chain, sizes[str(chain)], chains)
    return list(chains.values())


def rule_command(program: str, table: str, rule: str) -> str:
    """Returns the command for a rule such as "-D FORWARD -j ACCEPT"."""
    return f"{program} {rule}" if table == "filter" else f"{program} -t {table} {rule}"


def _declare(program: str, table: str, name: str, policy: str) -> Chain:
    return Chain(
        program,
        "ip6" if program.startswith("ip6") else "ip",
        table,
        name,
        _HOOKS.get(name, "") if policy != "-" else "",
        _PRIORITIES.get(table, 0),
        DROP if policy == "DROP" else ACCEPT,
    )


def _read_rule(
    line: str, chain: Chain, index: int, chains: Mapping[tuple[str, str], Chain]
) -> Iterator[Rule]:
    """Yields what the rule does, nothing where it does nothing that matters here."""
    options = list(_options(shlex.split(line)[2:]))
    said = {option.name: option.value for option in options}
    name = said.get("-j", "")
    if "-g" in said:
        action, target = GOTO, said["-g"]
    elif (chain.table, name) in chains:
        action, target = JUMP, name
    elif name == "CT" and "--helper" in said:
        action, target = HELPER, said["--helper"]
    elif name == "CT" and "--notrack" in said:
        action, target = NOTRACK, ""
    elif name == "MARK" and "--set-xmark" in said:
        value, mask = (int(each, 0) for each in said["--set-xmark"].split("/"))
        action, target = OVERWRITE, hex(mask & ~value)
    elif name in _ENDING:
        action, target = _ENDING[name], said.get("--queue-num", "")
    else:
        return
    removal = rule_command(chain.program, chain.table, line.replace("-A ", "-D ", 1))
    conditions = tuple(_conditions(options))
    yield Rule(conditions, action, target, line, removal, index)


def _options(arguments: Sequence[str]) -> Iterator[Option]:
    name, module, is_negated, values = "", "", False, list[str]()
    for argument in (*arguments, "-"):
        if not argument.startswith("-") and argument != "!":
            values.append(argument)
            continue
        if name:
            yield Option(name, " ".join(values), module, is_negated)
            module = values[0] if name == "-m" else module
            is_negated, name = False, ""
        if argument == "!":
            is_negated = True
        else:
            name, values = argument, []


def _conditions(options: Sequence[Option]) -> Iterator[Condition]:
    for option in options:
        if option.name in ("-m", "-j", "-g", "--comment", *_OF_TARGETS):
            continue
        key = f"{option.module} {option.name}" if option.name in ("--mark",) else option.name
        yield _condition(_ASKING.get(key), option)


def _condition(ask: Callable[[Probe, str], bool] | None, option: Option) -> Condition:
    def holds(probe: Probe) -> bool | None:
        if ask is None:
            return None
        try:
            return ask(probe, option.value) != option.is_negated
        except ValueError:  # spelled as nobody has foreseen
            return None

    return holds


def _is_interface(name: str, wanted: str) -> bool:
    return fnmatchcase(name, f"{wanted[:-1]}*" if wanted.endswith("+") else wanted)


def _is_among(port: int, ports: str) -> bool:
    ranges = (each.partition(":") for each in ports.split(","))
    return any(int(low) <= port <= int(high or low) for low, _, high in ranges)


def _is_marked(mark: int, wanted: str) -> bool:
    value, _, mask = wanted.partition("/")
    return mark & int(mask or "0xffffffff", 0) == int(value, 0)


def _is_in_state(probe: Probe, states: str) -> bool:
    known = {probe.state, *probe.status}
    return any(state.lower() in known for state in states.split(","))


_ASKING: dict[str, Callable[[Probe, str], bool]] = {
    "-i": lambda probe, value: _is_interface(probe.in_interface, value),
    "-o": lambda probe, value: _is_interface(probe.out_interface, value),
    "-s": lambda probe, value: probe.source in ip_network(value, strict=False),
    "-d": lambda probe, value: probe.destination in ip_network(value, strict=False),
    "-p": lambda probe, value: probe.protocol == value,
    "--sport": lambda probe, value: _is_among(probe.source_port, value),
    "--dport": lambda probe, value: _is_among(probe.destination_port, value),
    "--sports": lambda probe, value: _is_among(probe.source_port, value),
    "--dports": lambda probe, value: _is_among(probe.destination_port, value),
    "--ctstate": _is_in_state,
    "--state": _is_in_state,
    "mark --mark": lambda probe, value: _is_marked(probe.mark, value),
    "connmark --mark": lambda probe, value: _is_marked(probe.connection_mark, value),
}
