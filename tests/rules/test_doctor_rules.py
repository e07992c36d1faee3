"""Firewalls as nft and iptables print them, and what becomes of packets in them."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from rules.doctor import iptables, nftables, way
from rules.doctor.finding import Level
from rules.doctor.firewall import ACCEPT, DROP, QUEUE, Chain, Firewall
from rules.doctor.probe import Probe
from rules.settings import Settings

SETTINGS = Settings(("lan0",), "wan0", ("203.0.113.1",), relay_port=15060)
PROBES = way.media_and_signalling(SETTINGS, {"lan0": (ip_network("10.0.0.0/24"),)})
SIP = Probe(
    "outgoing SIP",
    ip_address("10.0.0.20"),
    ip_address("203.0.113.10"),
    5060,
    5060,
    "lan0",
    "wan0",
    status=frozenset({"dnat"}),
    mark=0x1000000,
    connection_mark=0x2000000,
)


def firewall(*rules: str, policy: str = "ACCEPT", chains: str = "") -> Firewall:
    """Returns a firewall of iptables with these rules in filter FORWARD."""
    lines = "\n".join(rules)
    saved = f"*filter\n:FORWARD {policy} [0:0]\n{chains}{lines}\nCOMMIT\n"
    return Firewall(iptables.read_chains(saved, "iptables"))


def verdict(firewall: Firewall, probe: Probe = SIP) -> str:
    return next(way.verdict for _, way in firewall.ways("forward", probe))


def nft_chains(
    *expressions: object, table: str = "fw4", family: str = "inet", name: str = "forward"
) -> list[Chain]:
    """Returns the chains of a listing with these rules in a forward chain that drops."""
    chain = {"family": family, "table": table, "name": name, "handle": 1}
    base = {"type": "filter", "hook": "forward", "prio": 0, "policy": "drop"}
    rules = [
        {"rule": {"family": family, "table": table, "chain": name, "handle": 9, "expr": each}}
        for each in expressions
    ]
    items = [{"metainfo": {}}, {"chain": chain | base}, *rules]
    return nftables.read_chains(json.dumps({"nftables": items}))


def match(left: object, right: object, op: str = "==") -> object:
    return {"match": {"op": op, "left": left, "right": right}}


META, CT = {"meta": {"key": "iifname"}}, {"ct": {"key": "status"}}
DPORT = {"payload": {"protocol": "udp", "field": "dport"}}
SADDR = {"payload": {"protocol": "ip", "field": "saddr"}}


@pytest.mark.parametrize(
    ("condition", "is_met"),
    [
        ("-i lan0", True),
        ("! -i lan0", False),
        ("-i lan+ -o wan+", True),
        ("-s 10.0.0.0/24", True),
        ("! -s 10.0.0.0/24", False),
        ("-d 10.0.0.0/24", False),
        ("-p tcp", False),
        ("-p udp -m udp --dport 5060:5061", True),
        ("-p udp -m udp ! --dport 5060", False),
        ("-p udp -m multiport --dports 53,5000:5100", True),
        ("-m conntrack --ctstate RELATED,ESTABLISHED", False),
        ("-m conntrack --ctstate DNAT", True),
        ("-m conntrack ! --ctstate NEW", False),
        ("-m mark --mark 0x1000000/0x1000000", True),
        ("-m mark ! --mark 0x0/0x7000000", True),
        ("-m connmark --mark 0x2000000/0x2000000", True),
        ("-m mark --mark 0x2000000/0x2000000", False),
        ('-m comment --comment "let - SIP - in"', True),
    ],
)
def test_conditions_of_iptables(condition: str, is_met: bool) -> None:
    chain = firewall(f"-A FORWARD {condition} -j DROP")
    assert verdict(chain) == (DROP if is_met else ACCEPT)


@pytest.mark.parametrize(
    ("step", "is_met"),
    [
        (match(META, "lan*"), True),
        (match(META, "lan0", "!="), False),
        (match(META, {"set": ["wan0", "lan0"]}), True),
        (match(DPORT, {"range": [5000, 5100]}), True),
        (match(DPORT, {"set": [53, {"range": [5000, 5100]}]}, "!="), False),
        (match({"payload": {"protocol": "tcp", "field": "dport"}}, 5060), False),
        (match(SADDR, {"prefix": {"addr": "10.0.0.0", "len": 8}}), True),
        (match(SADDR, {"range": ["10.0.0.1", "10.0.0.19"]}), False),
        (match({"payload": {"protocol": "ip6", "field": "saddr"}}, "fe80::1"), False),
        (match(CT, "dnat", "in"), True),
        (match(CT, ["snat", "expected"], "in"), False),
        (match({"&": [{"meta": {"key": "mark"}}, 0x7000000]}, 0, "!="), True),
        (
            match(
                {"concat": [META, {"meta": {"key": "l4proto"}}]},
                {"set": [{"concat": ["lan0", "udp"]}]},
            ),
            True,
        ),
        (match(SADDR, "@blocked"), None),
        (match({"meta": {"key": "hour"}}, "12:00"), None),
        ({"limit": {"rate": 5, "per": "second"}}, None),
        ({"counter": {"packets": 0, "bytes": 0}}, True),
    ],
)
def test_conditions_of_nft(step: object, is_met: bool | None) -> None:
    (chain,) = nft_chains([step, {"accept": None}])
    assert chain.rules[0].is_met_by(SIP) is is_met
    way = Firewall([chain]).follow(chain, SIP)
    assert way.verdict == (ACCEPT if is_met else DROP)
    assert (way.doubt is not None) == (is_met is None)


def test_jumps_returns_and_gotos_lead_where_the_kernel_goes() -> None:
    chains = ":one - [0:0]\n:two - [0:0]\n"
    rules = ("-A one -i lan0 -j RETURN", "-A one -j DROP", "-A two -p tcp -j DROP")
    jumped = firewall("-A FORWARD -j one", "-A FORWARD -j DROP", *rules, chains=chains)
    assert verdict(jumped) == DROP
    gone = firewall("-A FORWARD -g two", "-A FORWARD -j DROP", *rules, chains=chains)
    assert verdict(gone) == ACCEPT


def test_A75_a_closed_input_of_ufw_has_a_place_for_the_rule() -> None:
    chains = ":INPUT DROP [0:0]\n:ufw-before-input - [0:0]\n-A INPUT -j ufw-before-input\n"
    saved = f"*filter\n{chains}COMMIT\n"
    closed = Firewall(iptables.read_chains(saved, "iptables"))
    answering = replace(SETTINGS, request_ports=(("udp", 5351), ("tcp", 2869)))
    signalling = [each for each in PROBES if each.is_signalling]
    asked = way.requests(answering, signalling, {"lan0": "10.0.0.1"})
    (found,) = way.check_requests(closed, answering, asked)
    assert found.level is Level.WARNING and "TCP port 2869 from lan0" in found.text
    assert found.commands == (
        "iptables -I ufw-before-input -m mark ! --mark 0x0/0x7000000 -j ACCEPT",
    )
    assert found.configuration == ('install_accept = "auto"',)


def test_a_queue_of_somebody_else_is_no_drop() -> None:
    assert verdict(firewall("-A FORWARD -j NFQUEUE --queue-num 3", policy="DROP")) == QUEUE


def test_chains_that_iptables_keeps_in_nft_are_read_once() -> None:
    assert nft_chains(table="filter", family="ip", name="FORWARD") == []
    assert nft_chains(table="sipnat1") == []
    assert len(nft_chains(table="filter", family="ip")) == 1


def test_what_is_spelled_in_no_known_way_is_not_known() -> None:
    (chain,) = nft_chains([match(DPORT, {"range": ["a", "b"]}), {"drop": None}])
    assert chain.rules[0].is_met_by(SIP) is None
    assert verdict(firewall("-A FORWARD -s example.com -j DROP")) == ACCEPT
    assert verdict(firewall("-A FORWARD -p udp --dport sip -j DROP")) == ACCEPT


def test_A76_flow_offload_of_sip_is_found_and_openwrt_has_a_switch() -> None:
    flow = [match({"meta": {"key": "l4proto"}}, {"set": ["tcp", "udp"]}), {
        "flow": {"op": "add", "flowtable": "@ft"}
    }]  # fmt: skip
    for table, words in (("fw4", "uci set"), ("admin", "insert rule inet admin forward")):
        (found,) = way.check_offload(Firewall(nft_chains(flow, table=table)), SETTINGS, PROBES)
        assert found.level is Level.ERROR and words in found.commands[0]
    cured = Firewall(nft_chains(
        [match({"&": [{"meta": {"key": "mark"}}, 0x1000000]}, 0, "!="), {"accept": None}], flow
    ))  # fmt: skip
    signalling = [each for each in PROBES if each.is_signalling]
    (found,) = way.check_offload(cured, SETTINGS, signalling)
    assert found.level is Level.OK
    legacy = firewall("-A FORWARD -p udp -j FLOWOFFLOAD --hw")
    (found,) = way.check_offload(legacy, SETTINGS, signalling)
    assert found.commands == ("iptables -I FORWARD -m mark ! --mark 0x0/0x1000000 -j ACCEPT",)


@pytest.mark.parametrize(
    ("table", "chain", "command"),
    [
        ("fw4", "helper_lan", "uci set firewall.@defaults[0].auto_helper=0"),
        ("firewalld", "filter_IN_home_allow", "firewall-cmd --permanent --zone=home"),
        ("admin", "raw", "nft 'delete rule inet admin raw handle 7'"),
    ],
)
def test_A79_who_has_put_the_helper_there_is_asked_to_take_it_away(
    table: str, chain: str, command: str
) -> None:
    place = {"family": "inet", "table": table}
    rule = {**place, "chain": chain, "handle": 7, "expr": [{"ct helper": "helper-sip-udp"}]}
    helper = {**place, "name": "helper-sip-udp", "type": "sip", "protocol": "udp"}
    items = [{"chain": {**place, "name": chain, "handle": 1}}, {"ct helper": helper}]
    listing = json.dumps({"nftables": [*items, {"rule": rule}]})
    (found,) = way.check_helper(Firewall(nftables.read_chains(listing)), (5060,))
    assert found.commands[0].startswith(command)
    assert found.commands[1] == "conntrack -D -p udp --dport 5060"


def test_ipv6_is_followed_by_its_own_chains() -> None:
    chains = iptables.read_chains("*filter\n:FORWARD DROP [0:0]\nCOMMIT\n", "ip6tables")
    assert list(Firewall(chains).ways("forward", SIP)) == []
    six = replace(SIP, source=ip_address("2001:db8::1"), destination=ip_address("2001:db8::2"))
    assert verdict(Firewall(chains), six) == DROP
