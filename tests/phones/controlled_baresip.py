"""A baresip with the module ctrl_tcp, wherever it runs: the verbs of `Phone`, by remote control."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

from tests.lab.agents import wait_until
from tests.lab.closable import Closable
from tests.phones.baresip_control import BaresipControl, ControlFailed
from tests.phones.phone import PhoneFailed


class ControlledBaresip(Closable):
    """A baresip that answers by itself; `registrar` is where it calls users, `control` is its own.

    There is no control before it is reached.
    """

    registrar: str
    control: BaresipControl | None = None

    @abstractmethod
    def failed(self, complaint: str) -> PhoneFailed:
        """Returns what to raise: whose complaint it is, and the end of the log."""

    def close(self) -> None:
        """Lets go of it; it runs on."""
        if self.control is not None:
            self.control.close()

    def call(self, user: str, timeout: float = 15.0) -> None:
        """Calls a user, and returns when the call is up; raises PhoneFailed."""
        self.ask("dial", self.uri(user))
        self._wait_for_listing("ESTABLISHED", timeout, f"{user} did not answer")

    def wait_for_call(self, timeout: float = 15.0) -> None:
        """Returns when a call that came in is up; raises PhoneFailed."""
        self._wait_for_listing("ESTABLISHED", timeout, "nobody has called")

    def hold(self) -> None:
        """Puts the call on hold."""
        self.ask("hold")

    def resume(self) -> None:
        """Takes the call back from hold."""
        self.ask("resume")

    def transfer(self, user: str, timeout: float = 15.0) -> None:
        """Sends the other side to `user`, and returns when it was accepted; raises PhoneFailed."""
        self.ask("transfer", self.uri(user))
        self.wait_for_end(timeout)

    def hang_up(self) -> None:
        """Ends the call."""
        self.ask("hangup")

    def wait_for_end(self, timeout: float = 10.0) -> None:
        """Returns when no call is left; raises PhoneFailed."""
        self._wait_for_listing("(0)", timeout, "has a call left")

    def uri(self, user: str) -> str:
        """Returns where the registrar has a user called."""
        return f"sip:{user}@{self.registrar}"

    def ask(self, command: str, parameters: str = "") -> str:
        """Has it do a command of its menu and returns what it printed; raises PhoneFailed."""
        assert self.control is not None, "it has not been reached yet"
        try:
            return self.control.command(command, parameters)
        except (ControlFailed, OSError) as error:
            raise self.failed(str(error)) from error

    def wait(self, condition: Callable[[], bool], timeout: float, complaint: str) -> None:
        """Returns when a condition holds; raises PhoneFailed with the complaint."""
        if not wait_until(condition, timeout):
            raise self.failed(f"{complaint} within {timeout:.0f} s")

    def _wait_for_listing(self, words: str, timeout: float, complaint: str) -> None:
        self.wait(lambda: words in self.ask("listcalls"), timeout, complaint)
