"""The IPv6 half of the ruleset in each mode, against golden files beside that of IPv4."""

from __future__ import annotations

import re
from dataclasses import replace
from ipaddress import IPv6Network
from pathlib import Path
from typing import Any

import pytest

from nat_table.behavior import Filtering, Mode6
from rules.ruleset import DIVERTING, render_ruleset
from rules.settings import Settings

PREFIXES = IPv6Network("fd00:1::/48"), IPv6Network("2001:db8:9::/48")
SETTINGS = Settings(
    ("lan0",),
    "wan0",
    ("203.0.113.1",),
    media_filter=Filtering.LATCH,
    servers=("198.51.100.7", "2001:db8:7::/64"),
    routed=("2001:db8:8::1/64", "2001:db8:8:1::/64"),
    relay_port=15060,
    external_addresses6=("2001:db8:2::1", "2001:db8:2::2"),
    prefixes6=PREFIXES,
)
MODES = (Mode6.PINHOLE, Mode6.NAT66, Mode6.NPTV6)
modes = pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.value)


def rendered(mode: Mode6, **keys: Any) -> str:
    return render_ruleset(replace(SETTINGS, mode6=mode, **keys), native_queue=False)


def half6(mode: Mode6, **keys: Any) -> str:
    """Returns what IPv6 adds: variables, table, and what its sets hold."""
    plain, whole = set(rendered(Mode6.OFF).splitlines()), rendered(mode, **keys)
    _, _, text = whole.rpartition("\ntable inet sipnat {\n")
    variables = [line for line in whole.splitlines() if line.startswith("define")]
    added = [line for line in variables if line not in plain]
    return "\n".join([*added, "", "table inet sipnat {", text])


def golden(mode: Mode6) -> Path:
    return Path(__file__).with_name(f"golden_{mode.value}.nft")


@modes
def test_text_is_the_golden_file(mode: Mode6) -> None:
    """To accept a change: python -m tests.rules.test_ruleset6"""
    assert half6(mode) == golden(mode).read_text()


@modes
def test_the_half_of_ipv4_is_the_same_in_every_mode(mode: Mode6) -> None:
    plain, whole = rendered(Mode6.OFF), rendered(mode)
    start, end = plain.index("# sipnat's table"), plain.index("\nflush set")
    assert plain[start:end] in whole
    assert "6 {" not in plain and "ipv6" not in plain


@modes
def test_every_name_of_the_other_half_ends_in_6_and_exists(mode: Mode6) -> None:
    text = half6(mode)
    made = set(re.findall(r"(?:map|set|chain) (\w+) \{", text))
    assert made and all(name.endswith("6") for name in made)
    used = set(re.findall(r"(?:@|goto |jump )(\w+)", text))
    used |= set(re.findall(r"define \w+_filter6 = (\w+6)\n", text))
    assert used <= made


@modes
def test_nothing_of_ipv4_is_left_in_the_other_half(mode: Mode6) -> None:
    rules, _, _ = half6(mode).partition("\nflush set")
    words = re.sub(r"#.*", "", rules)
    assert not re.search(r"\bip [sd]addr|\bip to|ipv4|\d+\.\d+\.\d+\.\d+", words)


@modes
def test_each_base_chain_looks_at_its_own_family_alone(mode: Mode6) -> None:
    text = rendered(mode)
    chains = re.findall(r"    chain (\w+) \{\n        type filter hook.*\n\n(.*)\n", text)
    assert {name for name, _ in chains} >= {"forward", "forward6", "leave", "leave6"}
    for name, first in chains:
        family = "ipv6" if name.endswith("6") else "ipv4"
        alone = (f"meta nfproto != {family} accept", f"meta nfproto {family} ")
        assert first.strip().startswith(alone)


@modes
def test_only_nat66_has_a_fence_and_only_a_routed_site_has_no_nat(mode: Mode6) -> None:
    text = half6(mode)
    for word in ("fence", "stranger6", "bound6", "external_addresses6"):
        assert bool(re.search(rf"\b{word}\b", text)) is (mode is Mode6.NAT66)
    assert ("nat hook" in text) is (mode is not Mode6.PINHOLE)
    assert ("notrack" in text.replace("$external notrack", "")) is (mode is Mode6.PINHOLE)


@modes
@pytest.mark.parametrize(
    ("keys", "is_relaying"),
    [
        ({}, True),
        ({"relay_port": 0}, False),
        ({"has_other_npt": True}, False),
        ({"has_loopback6": False}, False),
    ],
)
def test_connections_are_diverted_where_there_is_a_relay(
    mode: Mode6, keys: dict[str, Any], is_relaying: bool
) -> None:
    text = half6(mode, **keys)
    assert all((f"chain {name}6 {{" in text) is is_relaying for name in DIVERTING)
    assert ("relayed6" in text) is is_relaying
    is_filtered_with_udp = "meta l4proto tcp return" not in text
    assert is_filtered_with_udp is (mode is Mode6.PINHOLE or not is_relaying)


def test_networks_of_both_families_go_where_they_belong() -> None:
    text = half6(Mode6.PINHOLE)
    assert "add element inet sipnat servers6 { 2001:db8:7::/64 }\n" in text
    assert "add element inet sipnat routed6 { 2001:db8:8::/63 }\n" in text
    assert "add element inet sipnat servers { 198.51.100.7/32 }\n" in text


def test_a_mode_needs_its_addresses() -> None:
    with pytest.raises(ValueError, match="NAT66 needs"):
        replace(SETTINGS, mode6=Mode6.NAT66, external_addresses6=())
    with pytest.raises(ValueError, match="NPTv6 needs"):
        replace(SETTINGS, mode6=Mode6.NPTV6, prefixes6=None)


if __name__ == "__main__":
    for each in MODES:
        golden(each).write_text(half6(each))
