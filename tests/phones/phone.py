"""What every real phone does here, whichever program it is.

A phone registers when it starts, answers what rings, and sends audio from a file or a tone: nobody
hears it, so what counts is what a `MediaCounter` sees pass at its interface. What a program cannot
do it names in `cannot`, with the reason; the matrix shows it as `n/a`.
"""

from __future__ import annotations

import shutil
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from tests.lab.closable import Closable
from tests.lab.namespace import Namespace

RTP_PORT = 4000
"""The first media port of every phone: two behind one NAT have the same."""


@dataclass(frozen=True, slots=True)
class Account:
    """Who a phone is, and what it is set to.

    `transport` is "udp" or "tcp", `stun` host:port or "", `calls` how many it may have at a time.
    """

    user: str
    password: str
    server: str
    transport: str = "udp"
    stun: str = ""
    calls: int = 1
    has_ice: bool = False
    has_srtp: bool = False
    has_session_timer: bool = False


class PhoneFailed(AssertionError):
    """A phone did not do within its time what it was told to; carries the end of its log."""


class Phone(Closable):
    """A user agent in `namespace`, which has nothing but the phone's address."""

    kind: ClassVar[str]
    cannot: ClassVar[Mapping[str, str]] = {}
    """Scenario (as the columns of the matrix name it) to the reason why this program cannot."""
    programs: ClassVar[tuple[str, ...]] = ()
    """What must be installed, by the names of its commands."""

    @classmethod
    def is_installed(cls) -> bool:
        """Whether this machine has what the phone needs."""
        return all(map(shutil.which, cls.programs))

    def __init__(self, namespace: Namespace, address: str, account: Account) -> None:
        self.namespace = namespace
        self.address = address
        self.account = account

    @abstractmethod
    def start(self, timeout: float = 15.0) -> None:
        """Starts the program, and returns when it is registered; raises PhoneFailed."""

    @abstractmethod
    def call(self, user: str, timeout: float = 15.0) -> None:
        """Calls a user of the same server, and returns when the call is up; raises PhoneFailed."""

    @abstractmethod
    def wait_for_call(self, timeout: float = 15.0) -> None:
        """Returns when a call that came in is up; raises PhoneFailed."""

    @abstractmethod
    def hold(self) -> None:
        """Puts the call on hold."""

    @abstractmethod
    def resume(self) -> None:
        """Takes the call back from hold."""

    @abstractmethod
    def transfer(self, user: str, timeout: float = 15.0) -> None:
        """Sends the other side to `user` (REFER, RFC 3515), and returns when it was accepted."""

    @abstractmethod
    def hang_up(self) -> None:
        """Ends the call (BYE)."""

    @abstractmethod
    def wait_for_end(self, timeout: float = 10.0) -> None:
        """Returns when no call is left; raises PhoneFailed."""

    def log(self) -> str:
        """Returns what the program has printed."""
        return ""
