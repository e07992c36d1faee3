"""The queue rule: iptables played by a list of rules, the programs by functions that answer."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nat_table.behavior import Mode6
from rules import capture, iptables
from rules.programs import ProgramFailed, run_program
from rules.settings import Settings

OLD = ["-m", "comment", "--comment", "sipnat", "-j", "NFQUEUE", "--queue-num", "1"]
FOREIGN = ["-p", "udp", "-j", "NFQUEUE", "--queue-num", "2"]
TAGGED_BY_OTHERS = ["-m", "comment", "--comment", "sipnat", "-j", "DSCP", "--set-dscp", "0x2e"]
SETTINGS = Settings(("lan0",), "wan0", ("203.0.113.1",))


class Chain:
    """mangle/FORWARD of one program as a list, spoken to as iptables is."""

    def __init__(self, *rules: list[str], program: str = "iptables") -> None:
        self.rules = list(rules)
        self.program = program

    def __call__(self, program: str, *arguments: str, text: str = "") -> str:
        if program == "nft":
            raise ProgramFailed("no such table")
        if program != self.program:
            return "-P FORWARD ACCEPT\n"
        command, rule = arguments[3], list(arguments[5:])
        if command == "-A":
            self.rules.append(rule)
        elif command == "-D":
            self.rules.remove(rule)
        lines = [" ".join(["-A", "FORWARD", *rule]) for rule in self.rules]
        return "\n".join(["-P FORWARD ACCEPT", *lines])


def test_rule_is_added_once_and_older_ones_go(monkeypatch: pytest.MonkeyPatch) -> None:
    chain = Chain(OLD, FOREIGN, TAGGED_BY_OTHERS)
    monkeypatch.setattr(capture, "run_program", chain)
    monkeypatch.setattr(iptables, "run_program", chain)
    for _ in range(2):
        capture.install_iptables_rule(SETTINGS)
        assert chain.rules == [FOREIGN, TAGGED_BY_OTHERS, capture.iptables_rule(SETTINGS)]
    capture.remove_iptables_rules(SETTINGS)
    assert chain.rules == [FOREIGN, TAGGED_BY_OTHERS]


def test_a22_ipv6_has_a_rule_of_its_own_where_it_is_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chain = Chain(OLD, program="ip6tables")
    monkeypatch.setattr(capture, "run_program", chain)
    monkeypatch.setattr(iptables, "run_program", chain)
    capture.install_iptables_rule(SETTINGS)
    assert chain.rules == [OLD]
    dual = replace(SETTINGS, mode6=Mode6.PINHOLE)
    capture.install_iptables_rule(dual)
    assert chain.rules == [capture.iptables_rule(dual)]
    assert not capture.has_iptables_rule(dual)  # that of IPv4 is missing
    capture.remove_iptables_rules(dual)
    assert chain.rules == []


def test_native_queue_is_found_by_a_dry_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*command: str, text: str = "") -> str:
        assert "--check" in command and " queue num " in text
        return ""

    monkeypatch.setattr(capture, "run_program", run)
    assert capture.has_native_queue()
    monkeypatch.setattr(capture, "run_program", Chain())
    assert not capture.has_native_queue()


def test_A69_transparent_proxy_is_found_by_a_dry_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*command: str, text: str = "") -> str:
        assert "--check" in command and "tproxy" in text
        return ""

    monkeypatch.setattr(capture, "run_program", run)
    assert capture.has_transparent_proxy()
    monkeypatch.setattr(capture, "run_program", Chain())
    assert not capture.has_transparent_proxy()


def test_missing_program_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*arguments: object, **keywords: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr("rules.programs.subprocess.run", run)
    with pytest.raises(ProgramFailed, match=r"^nft is not installed: install nftables$"):
        run_program("nft", "--version")
