"""The in-memory twin of `rules.backend.KernelBackend`, for tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from nat_table.binding import Binding, Permit
from nat_table.changes import Change
from nat_table.endpoint import Endpoint, Socket
from rules import elements
from rules.audiences import Audiences
from rules.backend import CommitFailed, Refusal
from rules.elements import Element, Operation
from rules.inspection import Inspection
from rules.reconcile import differences
from rules.settings import Settings
from rules.traffic import Traffic


class MemoryBackend:
    """A kernel in memory, with the same elements and the same refusals."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._elements: dict[tuple[str, bytes], bytes] = {}
        self._audiences = Audiences()
        self.is_capturing = False
        self.is_refusing = False
        """Set it to have every commit refused."""

        self.flows: set[Endpoint] = set()
        """What `flowing` answers."""
        self.carried: dict[Socket, Traffic] = {}
        self.senders: set[tuple[str, Endpoint]] = set()

    def install(self) -> None:
        """Starts capturing."""
        self.is_capturing = True

    def reconfigure(self, settings: Settings) -> None:
        """Goes on with other settings; what stands is kept."""
        self._settings = settings
        standing = self._standing()
        for steps in differences(elements.whole(standing, settings), standing):
            self._apply(steps)

    def is_installed(self, *, is_thorough: bool) -> bool:
        """Tells whether `install` was called and nothing has been released since."""
        return self.is_capturing

    def commit(self, changes: Sequence[Change]) -> None:
        """Follows the table, all changes or none; raises CommitFailed."""
        plan = self._audiences.plan(changes, self._settings)
        self._apply(elements.operations(changes, self._settings) + plan.steps)
        self._audiences.confirm(plan)

    def reconcile(self, wanted: Iterable[tuple[Binding, Iterable[str | Permit]]]) -> Iterator[None]:
        """Makes exactly these bindings stand, in steps; raises CommitFailed."""
        goal = self._audiences.adopt(wanted, self._settings)
        for steps in differences(goal, self._standing()):
            self._apply(steps)
            yield

    def masqueraded(self, internal: Endpoint) -> Endpoint | None:
        """Returns None: there are no flows in memory."""
        return None

    def flowing(self) -> set[Endpoint]:
        """Returns what the test has put into `flows`."""
        return set(self.flows)

    def traffic(self) -> dict[Socket, Traffic]:
        """Returns what the test has put into `carried`."""
        return dict(self.carried)

    def is_sending(self, internal: Endpoint, remote: Endpoint) -> bool:
        """Tells what the test has put into `senders`: a host, and to whom it sends."""
        return (internal.address, remote) in self.senders

    def refused(self) -> list[Refusal]:
        """Returns nothing: no packet comes here."""
        return []

    def counters(self) -> dict[str, int]:
        """Returns nothing: no packet comes here."""
        return {}

    def inspect(self) -> Inspection:
        """Returns what stands; there is no load in memory."""
        standing = Counter(each.set_name for each in self._standing())
        return Inspection(self.is_capturing, self.is_capturing, True, None, None, standing, {})

    def listing(self) -> list[Binding]:
        """Returns the bindings that stand."""
        return elements.bindings(self._standing(), self._settings)

    def cut_flows(self) -> None:
        """Does nothing: there are no flows in memory."""

    def stop_diverting(self) -> None:
        """Does nothing: no connection comes here."""

    def release_capture(self) -> None:
        """Stops capturing."""
        self.is_capturing = False

    def uninstall(self) -> None:
        """Forgets everything."""
        self.is_capturing = False
        self._elements.clear()

    def _standing(self) -> list[Element]:
        return [Element(*key, data) for key, data in self._elements.items()]

    def _apply(self, steps: Iterable[Operation]) -> None:
        if self.is_refusing:
            raise CommitFailed("refused")
        after = dict(self._elements)
        for is_added, (set_name, key, data) in steps:
            if not is_added:
                after.pop((set_name, key), None)
            elif after.setdefault((set_name, key), data) != data:
                raise CommitFailed(f"{Element(set_name, key)}: EEXIST")
        self._elements = after
