"""A phone whose program is a child in its namespace: told what to do by lines, heard by lines.

A thread of its own reads what the program prints and hands it to the driver, which keeps the state
of each call in `calls`; the verbs wait for a state. What was printed is kept for the day it fails.
"""

from __future__ import annotations

import subprocess
import tempfile
import threading
from abc import abstractmethod
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from pathlib import Path

from tests.lab.closable import Closable
from tests.lab.namespace import Namespace
from tests.phones.phone import Account, Phone, PhoneFailed

QUIT_TIMEOUT = 4.0
HOLD_TIMEOUT = 10.0
SHOWN_LINES = 40


class CallState(Enum):
    """How far a call is, as its phone sees it; a call that has ended has none."""

    BEGUN = "begun"
    UP = "up"
    HELD = "held"
    HELD_BY_OTHER = "held by the other side"


class Program(Closable):
    """A running program; `heed` gets each line that it prints, with a lock held."""

    def __init__(
        self, namespace: Namespace, arguments: list[str], heed: Callable[[str], None]
    ) -> None:
        self._heed = heed
        self._changed = threading.Condition()
        self._printed: list[str] = []
        self._has_ended = False
        self._process = subprocess.Popen(
            namespace.command(*arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def close(self) -> None:
        """Waits for a program that was told to quit, kills one that does not."""
        try:
            self._process.wait(QUIT_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdout.close()
        with suppress(BrokenPipeError):
            self._process.stdin.close()

    def say(self, line: str) -> None:
        """Writes a line to the program; raises PhoneFailed where it has ended."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise PhoneFailed(f"the program has ended\n{self.log()}") from error

    def wait_until(self, condition: Callable[[], bool], what: str, timeout: float) -> None:
        """Returns when `condition` holds, which is looked at after each line; else PhoneFailed."""
        with self._changed:
            self._changed.wait_for(lambda: self._has_ended or condition(), timeout)
            if not condition():
                raise PhoneFailed(f"not {what} within {timeout:g} s\n{self.log()}")

    def log(self) -> str:
        """Returns the end of what the program has printed."""
        return "\n".join(self._printed[-SHOWN_LINES:])

    def _read(self) -> None:
        assert self._process.stdout is not None
        try:
            for line in self._process.stdout:
                with self._changed:
                    self._printed.append(line.rstrip())
                    self._heed(line.rstrip())
                    self._changed.notify_all()
        finally:
            with self._changed:
                self._has_ended = True
                self._changed.notify_all()


class ProgramPhone(Phone):
    """What the drivers of such programs share: `calls` by the program's own numbers, and verbs."""

    def __init__(self, namespace: Namespace, address: str, account: Account) -> None:
        super().__init__(namespace, address, account)
        self.calls: dict[int, CallState] = {}
        self.is_registered = False
        self._program: Program | None = None
        self._directory = tempfile.TemporaryDirectory(prefix="sipnat-lab-")

    @abstractmethod
    def command(self, directory: Path) -> list[str]:
        """Returns the command line; `directory` is the phone's own, for as long as it lives."""

    @abstractmethod
    def heed(self, line: str) -> None:
        """Takes from a printed line what has become of the registration and of calls."""

    @abstractmethod
    def word(self, verb: str, *arguments: str | int) -> str:
        """Returns the line for "call" URI, "hold", "resume" or "hang-up" NUMBER, "quit"
        and "transfer" NUMBER URI."""

    @property
    def program(self) -> Program:
        """The running program; raises PhoneFailed where none was started."""
        if self._program is None:
            raise PhoneFailed(f"{self.account.user} has not been started")
        return self._program

    def start(self, timeout: float = 15.0) -> None:
        command = self.command(Path(self._directory.name))
        self._program = Program(self.namespace, command, self.heed)
        self.wait_until_registered(timeout)

    def wait_until_registered(self, timeout: float) -> None:
        """Returns when the registrar has said yes; raises PhoneFailed."""
        self.program.wait_until(lambda: self.is_registered, "registered", timeout)

    def close(self) -> None:
        if self._program is not None:
            with suppress(PhoneFailed):
                self._program.say(self.word("quit"))
            self._program.close()
            self._program = None
        self._directory.cleanup()

    def log(self) -> str:
        return self._program.log() if self._program else ""

    def call(self, user: str, timeout: float = 15.0) -> None:
        self.program.say(self.word("call", self._uri(user)))
        self.wait_for_call(timeout)

    def wait_for_call(self, timeout: float = 15.0) -> None:
        self._wait_for(CallState.UP, timeout)

    def hold(self) -> None:
        self.program.say(self.word("hold", self._number()))
        self._wait_for(CallState.HELD, HOLD_TIMEOUT)

    def resume(self) -> None:
        self.program.say(self.word("resume", self._number()))
        self._wait_for(CallState.UP, HOLD_TIMEOUT)

    def transfer(self, user: str, timeout: float = 15.0) -> None:
        number = self._number()
        self.program.say(self.word("transfer", number, self._uri(user)))
        self.program.wait_until(lambda: number not in self.calls, "rid of the call", timeout)

    def hang_up(self) -> None:
        self.program.say(self.word("hang-up", self._number()))

    def wait_for_end(self, timeout: float = 10.0) -> None:
        self.program.wait_until(lambda: not self.calls, "without a call", timeout)

    def _wait_for(self, state: CallState, timeout: float) -> None:
        self.program.wait_until(lambda: state in self.calls.values(), state.value, timeout)

    def _number(self) -> int:
        """Returns the number of the youngest call; raises PhoneFailed where there is none."""
        if not self.calls:
            raise PhoneFailed(f"{self.account.user} has no call\n{self.program.log()}")
        return max(self.calls)

    def _uri(self, user: str) -> str:
        return f"sip:{user}@{self.account.server}"
