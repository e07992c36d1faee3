"""Reads chains from nft, by its JSON (libnftables-json(5)); contents of sets are not looked at.

Chains that iptables keeps in nft are left out: what they ask, nft cannot say, and iptables can.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from ipaddress import ip_address, ip_network
from typing import Any

from rules.doctor.firewall import (
    ACCEPT,
    DROP,
    GOTO,
    HELPER,
    JUMP,
    NOTRACK,
    OFFLOAD,
    QUEUE,
    RETURN,
    Chain,
    Condition,
    Rule,
)
from rules.doctor.probe import Probe

FAMILIES = ("inet", "ip", "ip6")
IPTABLES_TABLES = ("raw", "mangle", "nat", "filter", "security")
_ENDING = {
    "accept": ACCEPT,
    "drop": DROP,
    "reject": DROP,
    "return": RETURN,
    "queue": QUEUE,
    "masquerade": ACCEPT,
    "snat": ACCEPT,
    "dnat": ACCEPT,
    "redirect": ACCEPT,
}
_JUMPING = {"jump": JUMP, "goto": GOTO}
_OWN_TABLES = "sipnat"
_UNKNOWN = ("limit", "quota", "xt", "ct count")


def read_chains(listing: str) -> list[Chain]:
    """Returns the chains that `nft --json --terse list ruleset` has printed, but sipnat's own."""
    items: list[Mapping[str, Any]] = json.loads(listing)["nftables"]
    chains: dict[tuple[str, str, str], Chain] = {}
    helpers: dict[tuple[str, str, str], str] = {}
    declared = [item["chain"] for item in items if "chain" in item]
    left_out = {_key(told, "table")[:2] for told in declared if _is_of_iptables(told)}
    for told in declared:
        is_own = told["table"].startswith(_OWN_TABLES)
        if told["family"] in FAMILIES and not is_own and _key(told, "table")[:2] not in left_out:
            chains[_key(told, "name")] = Chain(
                "nft",
                told["family"],
                told["table"],
                told["name"],
                told.get("hook", ""),
                told.get("prio", 0),
                told.get("policy", ACCEPT),
            )
    for item in items:
        if told := item.get("ct helper"):
            helpers[_key(told, "name")] = told["type"]
    for item in items:
        if (told := item.get("rule")) and (chain := chains.get(_key(told, "chain"))):
            chain.rules += _read_rule(told, chain, helpers)
    return list(chains.values())


def _key(told: Mapping[str, Any], name: str) -> tuple[str, str, str]:
    return told["family"], told["table"], told[name]


def _is_of_iptables(told: Mapping[str, Any]) -> bool:
    """Whether it is a base chain as only iptables names them; its whole table is iptables' then."""
    is_named_so = told["family"] != "inet" and told["table"] in IPTABLES_TABLES
    return is_named_so and "hook" in told and told["name"].isupper()


def _read_rule(
    told: Mapping[str, Any], chain: Chain, helpers: Mapping[tuple[str, str, str], str]
) -> Iterator[Rule]:
    where = f"{chain.family} {chain.table} {chain.name}"
    removal = f"nft 'delete rule {where} handle {told['handle']}'"
    conditions: list[Condition] = []

    def rule(action: str, target: str = "", *more: Condition) -> Rule:
        text = f"{action} {target}".rstrip()
        named = f"{text} ({told['comment']})" if told.get("comment") else text
        text = f"rule {told['handle']}, {named}"
        return Rule((*conditions, *more), action, target, text, removal)

    for step in told["expr"]:
        (verb, detail), *_ = step.items()
        if verb == "match":
            conditions.append(_condition(detail["left"], detail["op"], detail["right"]))
        elif verb in _UNKNOWN:
            conditions.append(lambda probe: None)
        elif verb == "vmap":
            for key, (verdict, *_) in _pairs(detail["data"]):
                action = _ENDING.get(verdict[0]) or _JUMPING.get(verdict[0])
                if action:
                    more = _condition(detail["key"], "in", key)
                    yield rule(action, verdict[1], more)
        elif verb == "ct helper":
            name = (chain.family, chain.table, detail) if isinstance(detail, str) else None
            yield rule(HELPER, helpers.get(name, "") if name else "")
        elif verb == "notrack":
            yield rule(NOTRACK)
        elif verb == "flow":
            yield rule(OFFLOAD)
        elif verb in _JUMPING:
            yield rule(_JUMPING[verb], detail["target"])
        elif verb in _ENDING:
            yield rule(_ENDING[verb])


def _pairs(data: Any) -> Iterator[tuple[Any, list[tuple[str, str]]]]:
    """Yields keys and verdicts of a verdict map; one with a name is not looked into."""
    for key, verdict in data["set"] if isinstance(data, dict) else ():
        (verb, detail), *_ = verdict.items()
        yield key, [(verb, detail["target"] if detail else "")]


def _condition(left: Any, operator: str, right: Any) -> Condition:
    """Returns what asks whether a probe has, on the left, what stands on the right."""

    def holds(probe: Probe) -> bool | None:
        facts = _facts(left, probe)
        if facts is None:
            return None
        try:
            answers = [_matches(fact, right) for fact in facts]
        except (TypeError, ValueError):  # spelled as nobody has foreseen
            return None
        found = True if True in answers else None if None in answers else False
        if operator == "!=" and found is not None:
            return not found
        if operator in ("==", "in", "!="):
            return found
        return None

    return holds


def _facts(left: Any, probe: Probe) -> Iterable[object] | None:
    """Returns what a probe has of this, of which one must match; None where nobody knows.

    Nothing at all is returned where it has no such thing, such as a port of another protocol.
    """
    if not isinstance(left, dict):
        return None
    (kind, detail), *_ = left.items()
    if kind == "concat":
        parts = [_facts(each, probe) for each in detail]
        known = [list(part) for part in parts if part is not None]
        if len(known) < len(parts) or any(len(part) > 1 for part in known):
            return None
        return [tuple(each for part in known for each in part)] if all(known) else []
    if kind == "&":
        masked, mask = detail
        facts = _facts(masked, probe)
        if facts is None or not isinstance(mask, int):
            return None
        return [fact & mask for fact in facts if isinstance(fact, int)]
    if kind == "meta":
        return _meta_facts(detail["key"], probe)
    if kind == "ct" and "dir" not in detail:
        return _connection_facts(detail["key"], probe)
    if kind == "payload" and "protocol" in detail:
        return _payload_facts(detail["protocol"], detail["field"], probe)
    return None


def _meta_facts(key: str, probe: Probe) -> Iterable[object] | None:
    version = probe.source.version
    known: dict[str, object] = {
        "iifname": probe.in_interface,
        "iif": probe.in_interface,
        "oifname": probe.out_interface,
        "oif": probe.out_interface,
        "l4proto": probe.protocol,
        "nfproto": f"ipv{version}",
        "protocol": "ip6" if version == 6 else "ip",
        "mark": probe.mark,
    }
    return [known[key]] if key in known else None


def _connection_facts(key: str, probe: Probe) -> Iterable[object] | None:
    known: dict[str, Iterable[object]] = {
        "state": [probe.state],
        "status": probe.status,
        "mark": [probe.connection_mark],
        "direction": ["original"],
    }
    return known.get(key)


def _payload_facts(protocol: str, field: str, probe: Probe) -> Iterable[object] | None:
    if protocol in ("ip", "ip6"):
        if protocol not in probe.families:
            return []
        known: dict[str, object] = {
            "saddr": probe.source,
            "daddr": probe.destination,
            "protocol": probe.protocol,
            "nexthdr": probe.protocol,
        }
        return [known[field]] if field in known else None
    if protocol not in ("th", probe.protocol):
        return []
    ports = {"sport": probe.source_port, "dport": probe.destination_port}
    return [ports[field]] if field in ports else None


def _matches(fact: object, right: Any) -> bool | None:
    """Tells whether a fact is what a rule names; None where that is the contents of a set."""
    if isinstance(right, str) and right.startswith("@"):
        return None
    if isinstance(right, dict) and "set" in right:
        right = right["set"]
    if isinstance(right, list):
        answers = [_matches(fact, each) for each in right]
        return True if True in answers else None if None in answers else False
    if isinstance(right, dict):
        return _matches_structure(fact, right)
    if isinstance(fact, str) and isinstance(right, str):
        return fnmatchcase(fact, right)
    if hasattr(fact, "version") and isinstance(right, str):
        return str(fact) == right
    return bool(fact == right)


def _matches_structure(fact: Any, right: Mapping[str, Any]) -> bool | None:
    (kind, detail), *_ = right.items()
    if kind == "prefix":
        return fact in ip_network((detail["addr"], detail["len"]), strict=False)
    if kind == "range":
        low, high = detail
        if isinstance(low, str) and hasattr(fact, "version"):
            return bool(ip_address(low) <= fact <= ip_address(high))
        return bool(low <= fact <= high)
    if kind == "concat":
        answers = [_matches(*pair) for pair in zip(fact, detail, strict=True)]
        return False if False in answers else None if None in answers else True
    if kind == "elem":
        return _matches(fact, detail["val"])
    return None
