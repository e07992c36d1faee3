"""What drives a phone's program, shown with one that says what it is told to say."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.namespace import Namespace
from tests.phones.phone import Account, PhoneFailed
from tests.phones.program import CallState, ProgramPhone

pytestmark = pytest.mark.netns
ACCOUNT = Account("alice", "alice-secret", "203.0.113.10")
SOON = 0.3
LONG = 20.0
FOREVER = 3600.0
"""Longer than any test may take: who waits for it fails."""

REPEAT = 'while read -r line && [ "$line" != quit ]; do echo "$line"; done'
WORDS = {"call": "up 1", "hold": "held 1", "resume": "up 1", "hang-up": "end 1", "quit": "quit"}


class Parrot(ProgramPhone):
    """A phone that prints `first`, and then what it hears."""

    kind = "parrot"
    first = "registered"
    is_stubborn = False

    def command(self, directory: Path) -> list[str]:
        return ["sh", "-c", f"echo {self.first}; {REPEAT}"]

    def word(self, verb: str, *arguments: str | int) -> str:
        return "never" if verb == "quit" and self.is_stubborn else WORDS[verb]

    def heed(self, line: str) -> None:
        match line.split():
            case ["registered"]:
                self.is_registered = True
            case ["end", number]:
                del self.calls[int(number)]
            case [state, number] if number.isdigit():
                self.calls[int(number)] = CallState(state)


@pytest.fixture(scope="module")
def namespace() -> Iterator[Namespace]:
    with Namespace("phone") as namespace:
        yield namespace


@pytest.fixture
def phone(namespace: Namespace) -> Iterator[Parrot]:
    with Parrot(namespace, "10.0.0.20", ACCOUNT) as phone:
        yield phone


def test_a_call_goes_through_its_states(phone: Parrot) -> None:
    phone.start()
    phone.call("bob")
    phone.hold()
    phone.resume()
    phone.hang_up()
    phone.wait_for_end()
    assert phone.log() == "registered\nup 1\nheld 1\nup 1\nend 1"


def test_what_does_not_come_fails_with_what_was_printed(phone: Parrot) -> None:
    phone.first = "401 Unauthorized"
    with pytest.raises(PhoneFailed, match="not registered"):
        phone.start(SOON)
    phone.program.wait_until(lambda: bool(phone.log()), "heard", LONG)
    with pytest.raises(PhoneFailed, match=r"not registered within 0\.3 s\n401 Unauthorized"):
        phone.wait_until_registered(SOON)


def test_a_program_that_ends_is_not_waited_for(phone: Parrot) -> None:
    phone.first = "; exit"
    with pytest.raises(PhoneFailed, match="not registered"):
        phone.start(FOREVER)


def test_without_a_call_there_is_nothing_to_hang_up(phone: Parrot) -> None:
    phone.start()
    with pytest.raises(PhoneFailed, match="alice has no call"):
        phone.hang_up()


def test_a_program_that_does_not_quit_is_killed(namespace: Namespace) -> None:
    phone = Parrot(namespace, "10.0.0.20", ACCOUNT)
    phone.is_stubborn = True
    phone.start()
    phone.close()
    pids = subprocess.run(["ip", "netns", "pids", namespace.name], capture_output=True, check=True)
    assert pids.stdout == b""
