"""The ports of one external address, for one transport.

One byte a port says who may have it. A free port's byte is its parity, so a search for a byte is
a search for a free port of that parity, and a search for `00 01` is one for a free even port with
a free odd port behind it, which is what RFC 4787 §4.2.2 asks for. The run is drawn at random, each
that is free as likely as any other (RFC 6888 REQ-15): to search on from a random place instead
(RFC 6056 §3.3.1) would make the port behind a long taken run the likeliest by far.

A freed port is held for its last owner: it may have the port back at once, anyone else only when
the quarantine is over (RFC 6888 REQ-8). All holds last equally long, so they end in the order in
which they began, and ending them costs no more than what ends. A port that comes and goes is held
from its latest release on: the holds before it count for an undo alone, and are forgotten in time.

Where prefixes are translated no pool is needed: no two hosts share an external address, and each
keeps its own ports (RFC 6296).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from typing import Final, Protocol

from nat_table.behavior import Behavior
from nat_table.endpoint import Endpoint

_TAKEN: Final = 2  # 0 and 1 are free, even and odd
_HELD: Final = 3
_DENIED: Final = 4
_FIRST_PORT: Final = 1024
_END: Final = 65536
_DRAWS: Final = (
    8  # before the free runs are counted, which one in 500 comes to where half are taken
)
_MAX_OUTDATED: Final = 1024  # holds, beside as many as there are ports held


class Rng(Protocol):
    """What the table asks of a random.Random."""

    def randint(self, low: int, high: int, /) -> int:
        """Returns a number from low to high, both included."""


class Ports(ABC):
    """What the table asks of the ports of an external address."""

    __slots__ = ()

    @abstractmethod
    def take(self, owners: Sequence[Endpoint], now: float, wanted: int | None = None) -> int | None:
        """Takes consecutive ports, as the owners' are; returns the first, or None."""

    @abstractmethod
    def claim(self, port: int, owner: Endpoint, now: float) -> bool:
        """Takes exactly this port; returns False where the owner may not have it."""

    @abstractmethod
    def release(self, port: int, owner: Endpoint, now: float) -> None:
        """Gives a taken port back."""

    @abstractmethod
    def withhold(self, owner: Endpoint) -> None:
        """Keeps what the owner has given back from itself too, while the quarantine lasts."""

    @abstractmethod
    def undo_take(self, port: int) -> None:
        """Undoes the latest `take` or `claim`."""

    @abstractmethod
    def undo_release(self, port: int) -> None:
        """Undoes the latest `release`."""


class PortPool(Ports):
    """Gives out the ports of one external address, each to one owner (RFC 4787 REQ-3).

    An owner is an internal endpoint. `take` and `release` are exactly undone, latest first, by
    `undo_take` and `undo_release`.
    """

    __slots__ = ("_behavior", "_former", "_holds", "_leaving", "_rng", "_states")

    def __init__(self, behavior: Behavior, rng: Rng) -> None:
        self._behavior = behavior
        self._rng = rng
        self._states = bytearray(b"\x00\x01" * (_END // 2))
        fence = range(behavior.fence[0], behavior.fence[1] + 1)
        for port in (*range(_FIRST_PORT), *fence, *behavior.denied_ports):
            self._states[port] = _DENIED
        self._leaving: deque[tuple[float, int, Endpoint]] = deque()  # hold's end, port, last owner
        self._holds: dict[int, int] = {}  # port -> how many of its holds are still to leave
        self._former: dict[Endpoint, int] = {}  # last owner -> the port held for it

    def configure(self, behavior: Behavior) -> None:
        """Denies other ports from now on; what is taken or held is denied once it is free.

        A hold that has begun lasts as long as it would have, and the next ones not less.
        """
        changed = self._behavior.denied_ports ^ behavior.denied_ports
        self._behavior = behavior
        for port in changed:
            if self._states[port] not in (_TAKEN, _HELD):
                self._states[port] = self._idle(port)

    def take(self, owners: Sequence[Endpoint], now: float, wanted: int | None = None) -> int | None:
        """Takes consecutive ports for endpoints whose own ports are consecutive.

        Returns the first port, or None where no such run is free. Prefers the run that is wanted,
        then what is held for the first owner, then its own port number (RFC 4787 §4.2.1), then any
        run of the same parity (REQ-4) in the pool.
        """
        self.end_quarantine(now)
        former, own = self._former.get(owners[0]), owners[0][1]
        first: int | None
        if wanted is not None and self._is_open_to(owners, wanted):
            first = wanted
        elif former is not None and self._is_open_to(owners, former):
            first = former
        elif self._behavior.preserve_ports and self._is_open_to(owners, own):
            first = own
        else:
            first = self._draw(bytes([(own + i) & 1 for i in range(len(owners))]))
        if first is not None:
            for port in range(first, first + len(owners)):
                self._states[port] = _TAKEN
        return first

    def claim(self, port: int, owner: Endpoint, now: float) -> bool:
        """Takes exactly this port; returns False where the owner may not have it."""
        self.end_quarantine(now)
        if not self._is_open_to((owner,), port):
            return False
        self._states[port] = _TAKEN
        return True

    def release(self, port: int, owner: Endpoint, now: float) -> None:
        """Puts a taken port into quarantine (RFC 6888 REQ-8)."""
        self._states[port] = _HELD
        self._holds[port] = self._holds.get(port, 0) + 1
        self._former[owner] = port
        self._leaving.append((now + self._behavior.quarantine_timeout, port, owner))

    def withhold(self, owner: Endpoint) -> None:
        """Holds the port that was held for the owner for nobody."""
        self._former.pop(owner, None)

    def undo_take(self, port: int) -> None:
        """Puts a taken port back to what it was: free, or held for its owner."""
        self._states[port] = _HELD if port in self._holds else self._idle(port)

    def undo_release(self, port: int) -> None:
        """Puts a released port back into the hands of its last owner, its hold undone."""
        for i in reversed(range(len(self._leaving))):  # nearly always the very last
            if self._leaving[i][1] == port:
                self._end_hold(port, self._leaving[i][2])
                del self._leaving[i]
                break
        self._states[port] = _TAKEN

    def usage(self) -> tuple[int, int]:
        """Returns how many ports of the pool are taken or held, and how many it has to give."""
        low, high = self._behavior.pool
        states = self._states[low : high + 1]
        return states.count(_TAKEN) + states.count(_HELD), len(states) - states.count(_DENIED)

    def end_quarantine(self, now: float, limit: int | None = None) -> None:
        """Frees the ports whose quarantine is over, `limit` of them at the most."""
        left = len(self._leaving) if limit is None else limit
        while left > 0 and self._leaving and self._leaving[0][0] <= now:
            _, port, owner = self._leaving.popleft()
            self._end_hold(port, owner)
            left -= 1

    def forget_outdated(self) -> None:
        """Forgets holds that a later one of the same port has replaced, where they are many.

        A `take` before them can then no longer be undone: call it between transactions.
        """
        if len(self._leaving) <= 2 * len(self._holds) + _MAX_OUTDATED:
            return
        latest: dict[int, tuple[float, int, Endpoint]] = {}
        for hold in reversed(self._leaving):
            latest.setdefault(hold[1], hold)
        self._leaving = deque(reversed(latest.values()))
        self._holds = dict.fromkeys(latest, 1)

    def _end_hold(self, port: int, owner: Endpoint) -> None:
        if self._holds[port] > 1:
            self._holds[port] -= 1
            return
        del self._holds[port]
        if self._former.get(owner) == port:
            del self._former[owner]
        if self._states[port] == _HELD:
            self._states[port] = self._idle(port)

    def _idle(self, port: int) -> int:
        """Returns the state of a port that nobody has: denied, or free."""
        low, high = self._behavior.fence
        if port < _FIRST_PORT or low <= port <= high or port in self._behavior.denied_ports:
            return _DENIED
        return port & 1

    def _is_open_to(self, owners: Sequence[Endpoint], first: int) -> bool:
        if first + len(owners) > _END:
            return False
        port = first
        for owner in owners:
            state = self._states[port]
            if state != port & 1 and (
                state != _HELD or self._former.get(owner) != port or self._idle(port) == _DENIED
            ):
                return False
            port += 1
        return True

    def _draw(self, run: bytes) -> int | None:
        (low, high), size = self._behavior.pool, len(run)
        port = self._rng.randint(low, high)
        port += (port ^ run[0]) & 1
        if port + size <= high + 1 and self._states[port : port + size] == run:
            return port
        low += (low ^ run[0]) & 1
        places = (high - low - size + 3) // 2
        if places < 1:
            return None
        drawn = self._rng.randint(0, places ** (_DRAWS + 4) - 1)  # all draws in one number
        for _ in range(_DRAWS):
            port = low + 2 * (drawn % places)
            if self._states[port : port + size] == run:
                return port
            drawn //= places
        free = self._states.count(run, low, high + 1)
        if not free:
            return None
        *_, behind = self._states[low : high + 1].split(run, drawn % free + 1)
        return high + 1 - len(behind) - size


class OwnPorts(Ports):
    """Every owner's own port from 1024 up: there is nothing to keep.

    Ports of a pool are denied because the router itself, or masquerading, has them on the same
    address; nobody but the owner is on this one.
    """

    __slots__ = ()

    def take(self, owners: Sequence[Endpoint], now: float, wanted: int | None = None) -> int | None:
        """Returns the first owner's port; None where the row goes below 1024 or above 65535."""
        first = owners[0][1]
        return first if _FIRST_PORT <= first <= _END - len(owners) else None

    def claim(self, port: int, owner: Endpoint, now: float) -> bool:
        """Returns whether the port is the owner's, and none below 1024."""
        return port == owner[1] >= _FIRST_PORT

    def release(self, port: int, owner: Endpoint, now: float) -> None:
        """Does nothing: nobody else could have the port."""

    def withhold(self, owner: Endpoint) -> None:
        """Does nothing."""

    def undo_take(self, port: int) -> None:
        """Does nothing."""

    def undo_release(self, port: int) -> None:
        """Does nothing."""
