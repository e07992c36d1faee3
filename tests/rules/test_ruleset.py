"""The nft text, against a golden file that is read in review like the rules themselves."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from nat_table.behavior import Filtering
from rules.ruleset import DIVERTING, render_ruleset
from rules.settings import Settings

GOLDEN = Path(__file__).with_name("golden.nft")
SETTINGS = Settings(
    ("lan0", "vlan.20"),
    "ppp0",
    ("203.0.113.1", "203.0.113.2"),
    sip_ports=(5060, 5080),
    media_filter=Filtering.LATCH,
    servers=("198.51.100.7", "198.51.100.0/24"),
    routed=("192.0.2.9/25",),
    relay_port=15060,
    request_ports=(("udp", 5351), ("tcp", 2869)),
    flood_rate=50,
    queue_number=7,
)


def test_text_is_the_golden_file() -> None:
    """To accept a change: python -m tests.rules.test_ruleset"""
    assert render_ruleset(SETTINGS, native_queue=True) == GOLDEN.read_text()


def test_without_native_queue_only_the_capture_chain_is_missing() -> None:
    whole = render_ruleset(SETTINGS, native_queue=True)
    without = render_ruleset(SETTINGS, native_queue=False)
    assert whole.startswith(without)
    assert re.findall(r"chain (\w+) {", whole[len(without) :]) == ["capture", "to_queue"]


@pytest.mark.parametrize(("is_fail_open", "end"), [(True, "queue num 7 bypass"), (False, "num 7")])
def test_A74_fail_open_is_the_bypass_flag(is_fail_open: bool, end: str) -> None:
    settings = Settings(
        ("lan0",), "wan0", ("203.0.113.1",), queue_number=7, is_fail_open=is_fail_open
    )
    queue_rule = next(
        line for line in render_ruleset(settings, True).splitlines() if " queue num " in line
    )
    assert queue_rule.endswith(end)


def test_A69_only_where_there_is_a_relay_connections_go_to_it() -> None:
    text = render_ruleset(SETTINGS, native_queue=False)
    assert "define without_relay = pass\n" in text
    held = render_ruleset(replace(SETTINGS, is_fail_open=False), native_queue=False)
    assert "define without_relay = hold\n" in held
    bare = render_ruleset(replace(SETTINGS, relay_port=0, tls_ports=()), native_queue=False)
    assert "tproxy" not in bare and "relay_port" not in bare
    assert "define tls_ports = { 0 }\n" in bare


def test_A69_every_chain_that_diverts_can_be_taken_away() -> None:
    texts = (render_ruleset(replace(SETTINGS, relay_port=port), False) for port in (0, 15060))
    without, whole = (re.findall(r"chain (\w+) {", text) for text in texts)
    others = {"pass", "hold", "relaying", "arriving", "answering"}
    assert set(whole) - set(without) == {*DIVERTING, *others}


def test_media_meets_one_chain_of_filters_and_the_relays() -> None:
    """What a packet of a flow that is known goes through; those of NAT see first packets alone."""
    text = render_ruleset(SETTINGS, native_queue=True)
    chains = re.findall(r"chain (\w+) {\n +type filter hook (\w+)", text)
    met = {name for name, hook in chains if hook not in ("input", "output")}
    assert met == {"forward", "relaying"}


def test_the_routers_own_traffic_is_counted_and_marked_at_the_most() -> None:
    """But for what filtering refuses, and what nobody listens to (netns tests)."""
    text = render_ruleset(SETTINGS, True)
    chains = re.findall(r"hook (?:in|out)put .*?; policy accept;\n(.*?)\n    }", text, re.S)
    verdicts = (
        *("accept", "counter name diverted", "counter name answered"),
        *("meta mark set meta mark | $relay_mark", "update @strays { ip saddr . udp sport }"),
        *("goto stranger", "jump recognise"),
    )
    assert len(chains) == 5
    assert all(rule.endswith(verdicts) for each in chains for rule in each.split("\n") if rule)


def test_requests_are_marked_with_or_without_a_relay_and_only_where_they_are_answered() -> None:
    without_relay = render_ruleset(replace(SETTINGS, relay_port=0), native_queue=False)
    assert "th dport { udp . 5351, tcp . 2869 } meta mark set" in without_relay
    assert "define relay_mark = 0x04000000\n" in without_relay
    bare = render_ruleset(replace(SETTINGS, relay_port=0, request_ports=()), native_queue=False)
    assert "chain requests" not in bare and "relay_mark" not in bare


def test_marks_are_the_three_lowest_bits_of_the_mask() -> None:
    settings = Settings(("lan0",), "wan0", ("203.0.113.1",), mark_mask=0x00A80000)
    assert (settings.queue_mark, settings.open_mark) == (0x00080000, 0x00200000)
    assert settings.relay_mark == 0x00800000
    with pytest.raises(ValueError, match="three bits"):
        Settings(("lan0",), "wan0", ("203.0.113.1",), mark_mask=0x6)


def test_networks_are_put_together_and_an_empty_list_empties_the_set() -> None:
    text = render_ruleset(SETTINGS, native_queue=False)
    assert "add element inet sipnat servers { 198.51.100.0/24 }\n" in text
    assert "add element inet sipnat routed { 192.0.2.0/25 }\n" in text
    bare = render_ruleset(Settings(("lan0",), "wan0", ("203.0.113.1",)), native_queue=False)
    assert "add element" not in bare
    assert "flush set inet sipnat servers\nflush set inet sipnat routed\n" in bare


def test_settings_need_an_external_address() -> None:
    with pytest.raises(ValueError, match="external address"):
        Settings(("lan0",), "wan0", ())


if __name__ == "__main__":
    GOLDEN.write_text(render_ruleset(SETTINGS, native_queue=True))


def test_a93_each_uplink_has_a_table_and_marks_of_its_own() -> None:
    uplinks = [replace(SETTINGS, uplink=number, mark_mask=0) for number in range(3)]
    texts = [render_ruleset(each, True) for each in uplinks]
    assert [set(re.findall(r"inet (\w+)", text)) for text in texts] == [
        {"sipnat"},
        {"sipnat1"},
        {"sipnat2"},
    ]
    marks = [
        mark for each in uplinks for mark in (each.queue_mark, each.open_mark, each.relay_mark)
    ]
    assert len(set(marks)) == 9
    masks = [each.mark_mask for each in uplinks]
    assert sum(masks) == masks[0] | masks[1] | masks[2] < 1 << 32
