"""The queue rule: iptables played by a list of rules, the programs by functions that answer."""

from __future__ import annotations

import pytest

from rules import capture, iptables
from rules.programs import ProgramFailed, run_program
from rules.settings import Settings

OLD = ["-m", "comment", "--comment", "sipnat", "-j", "NFQUEUE", "--queue-num", "1"]
FOREIGN = ["-p", "udp", "-j", "NFQUEUE", "--queue-num", "2"]
TAGGED_BY_OTHERS = ["-m", "comment", "--comment", "sipnat", "-j", "DSCP", "--set-dscp", "0x2e"]
SETTINGS = Settings(("lan0",), "wan0", ("203.0.113.1",))


class Chain:
    """mangle/FORWARD as a list, spoken to as iptables is."""

    def __init__(self, *rules: list[str]) -> None:
        self.rules = list(rules)

    def __call__(self, program: str, *arguments: str, text: str = "") -> str:
        if program == "nft":
            raise ProgramFailed("no such table")
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


def test_native_queue_is_found_by_a_dry_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*command: str, text: str = "") -> str:
        assert "--check" in command and " queue num " in text
        return ""

    monkeypatch.setattr(capture, "run_program", run)
    assert capture.has_native_queue()
    monkeypatch.setattr(capture, "run_program", Chain())
    assert not capture.has_native_queue()


def test_missing_program_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*arguments: object, **keywords: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr("rules.programs.subprocess.run", run)
    with pytest.raises(ProgramFailed, match=r"^nft is not installed: install nftables$"):
        run_program("nft", "--version")
