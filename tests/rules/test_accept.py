"""What nft and iptables are told: firewalls played by functions that answer as the programs do."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from nat_table.behavior import Mode6
from rules import accept, iptables
from rules.accept import Acceptance
from rules.programs import ProgramFailed
from rules.settings import Settings

SETTINGS = Settings(("lan0",), "wan0", ("203.0.113.1",))
RULE = "-m mark ! --mark 0x0/0x7000000 -m comment --comment sipnat -j ACCEPT"
OLD = "-m mark ! --mark 0x0/0x30 -m comment --comment sipnat -j ACCEPT"
NFT_RULE = 'meta mark & 0x07000000 != 0 accept comment "sipnat"'
NFT_LISTED = 'meta mark & 0x07000000 != 0x00000000 accept comment "sipnat" # handle 7'
NFT_OLD = 'meta mark & 0x00000030 != 0x00000000 accept comment "sipnat" # handle 8'
NFT_OTHER = 'meta l4proto udp counter accept comment "sipnat" # handle 9'
FW4 = """table inet fw4 {{
	chain forward {{ # handle 2
		type filter hook forward priority filter; policy drop;
		{}
		ct state established,related accept comment "!fw4: Allow forwarded flows" # handle 12
	}}
}}
"""
LISTINGS = {
    "iptables --wait=1 --table filter -S DOCKER-USER",
    "iptables --wait=1 --table filter -S ufw-before-forward",
    "iptables --wait=1 --table filter -S ufw-before-input",
    "ip6tables --wait=1 --table filter -S DOCKER-USER",
    "ip6tables --wait=1 --table filter -S ufw6-before-forward",
    "ip6tables --wait=1 --table filter -S ufw6-before-input",
    "nft --handle list chain inet fw4 forward",
    "nft --handle list chain inet fw4 input",
    "nft --handle list chain inet firewalld filter_FORWARD",
    "nft --handle list chain inet firewalld filter_INPUT",
}


class Programs:
    """Answers listings from a table, keeps other commands; what is not listed is not there."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **answers: str) -> None:
        self.answers = answers
        self.told: list[str] = []
        self.is_refusing = False
        monkeypatch.setattr(accept, "run_program", self)
        monkeypatch.setattr(iptables, "run_program", self)

    def __call__(self, *command: str, text: str = "") -> str:
        said = " ".join(command)
        if said in LISTINGS:
            name = command[-1].replace("-", "_")
            if name not in self.answers:
                raise ProgramFailed("no such chain")
            return self.answers[name]
        if self.is_refusing:
            raise ProgramFailed("iptables refused: no mark match")
        self.told.append(f"{said} < {text}" if text else said)
        return ""


def test_A75_rule_goes_to_the_top_of_every_firewall_there_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    programs = Programs(
        monkeypatch,
        DOCKER_USER="-N DOCKER-USER\n-A DOCKER-USER -j RETURN\n",
        ufw_before_forward="-N ufw-before-forward\n",
        forward=FW4.format(""),
    )
    assert Acceptance(SETTINGS).install() == ["Docker", "ufw", "OpenWrt fw4"]
    assert programs.told == [
        f"iptables --wait=1 --table filter -I DOCKER-USER {RULE}",
        f"iptables --wait=1 --table filter -I ufw-before-forward {RULE}",
        f"nft -f - < insert rule inet fw4 forward {NFT_RULE}",
    ]


def test_A69_what_the_router_answers_passes_the_input_chains_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    programs = Programs(monkeypatch, ufw_before_input="-N ufw-before-input\n", input=FW4.format(""))
    assert Acceptance(SETTINGS).install() == []
    for keys in ({"relay_port": 15060}, {"request_ports": (("udp", 5351),)}):
        programs.told.clear()
        own_sockets = replace(SETTINGS, **keys)
        assert Acceptance(own_sockets).install() == ["ufw (input)", "OpenWrt fw4 (input)"]
        assert programs.told == [
            f"iptables --wait=1 --table filter -I ufw-before-input {RULE}",
            f"nft -f - < insert rule inet fw4 input {NFT_RULE}",
        ]


def test_where_no_firewall_stands_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    programs = Programs(monkeypatch)
    assert Acceptance(SETTINGS).install() == []
    Acceptance(SETTINGS).remove()
    assert programs.told == []


def test_rule_that_stands_is_left_and_older_ones_go(monkeypatch: pytest.MonkeyPatch) -> None:
    programs = Programs(
        monkeypatch,
        DOCKER_USER=f"-N DOCKER-USER\n-A DOCKER-USER {RULE}\n-A DOCKER-USER {OLD}\n",
        forward=FW4.format(f"{NFT_LISTED}\n\t\t{NFT_OLD}"),
    )
    assert Acceptance(SETTINGS).install() == []
    assert programs.told == [
        f"iptables --wait=1 --table filter -D DOCKER-USER {OLD}",
        "nft -f - < delete rule inet fw4 forward handle 8",
    ]


def test_rule_for_another_mask_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    programs = Programs(
        monkeypatch,
        ufw_before_forward=f"-N ufw-before-forward\n-A ufw-before-forward {OLD}\n",
        forward=FW4.format(f"{NFT_OLD}\n\t\t{NFT_OTHER}"),
    )
    assert Acceptance(SETTINGS).install() == ["ufw", "OpenWrt fw4"]
    assert programs.told == [
        f"iptables --wait=1 --table filter -I ufw-before-forward {RULE}",
        f"iptables --wait=1 --table filter -D ufw-before-forward {OLD}",
        f"nft -f - < insert rule inet fw4 forward {NFT_RULE}\n"
        "delete rule inet fw4 forward handle 8\ndelete rule inet fw4 forward handle 9",
    ]


def test_remove_takes_all_tagged_rules_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    programs = Programs(
        monkeypatch,
        DOCKER_USER=f"-N DOCKER-USER\n-A DOCKER-USER {OLD}\n-A DOCKER-USER {RULE}\n"
        "-A DOCKER-USER -m comment --comment sipnat -j DROP\n"
        '-A DOCKER-USER -m comment --comment "for sipnat" -j ACCEPT\n',
        forward=FW4.format(NFT_OLD),
    )
    Acceptance(SETTINGS).remove()
    assert programs.told == [
        f"iptables --wait=1 --table filter -D DOCKER-USER {OLD}",
        f"iptables --wait=1 --table filter -D DOCKER-USER {RULE}",
        "nft -f - < delete rule inet fw4 forward handle 8",
    ]


def test_firewall_that_refuses_is_named_and_the_others_are_served(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    programs = Programs(
        monkeypatch,
        DOCKER_USER="-N DOCKER-USER\n",
        ufw_before_forward=f"-N ufw-before-forward\n-A ufw-before-forward {RULE}\n",
    )
    programs.is_refusing = True
    acceptance = Acceptance(SETTINGS)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert acceptance.install() == []
        acceptance.remove()
    refusal = "iptables refused: no mark match"
    assert [record.getMessage() for record in caplog.records] == [
        f"Docker takes no rule that accepts calls: {refusal}",
        f"the rule in ufw was not removed: {refusal}",
    ]


def test_a75_ipv6_has_its_own_chains_where_it_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    programs = Programs(
        monkeypatch,
        DOCKER_USER="-N DOCKER-USER\n",
        ufw6_before_forward="-N ufw6-before-forward\n",
        ufw6_before_input="-N ufw6-before-input\n",
    )
    dual = replace(SETTINGS, mode6=Mode6.PINHOLE)
    assert Acceptance(dual).install() == ["Docker", "Docker (IPv6)", "ufw (IPv6)"]
    assert programs.told == [
        f"iptables --wait=1 --table filter -I DOCKER-USER {RULE}",
        f"ip6tables --wait=1 --table filter -I DOCKER-USER {RULE}",
        f"ip6tables --wait=1 --table filter -I ufw6-before-forward {RULE}",
    ]
    assert "ufw (IPv6 input)" in Acceptance(replace(dual, relay_port=15060)).install()
