"""Changes of the table: into the kernel at once, noted for the store, and asked for upstream.

The store wants the newest state of each mapping that has changed, not the changes: so only the
internal endpoints are noted, and their rows are made when the store is written. Each message moves
a deadline; where it moves by seconds only, and nothing else has changed, the store hears of it now
and then: after a restart a mapping may end that much too early.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Final

import msgspec

from alg.io.clock import now
from alg.observe.observers import Observers
from alg.observe.passage import Occurrence
from alg.upstream.grants import Grants
from nat_table.binding import Binding, Kind, Owner
from nat_table.changes import Change, Closed, Opened, Refreshed, Turned
from nat_table.endpoint import Endpoint, Socket, Transport
from nat_table.snapshot import Row, row_of
from nat_table.table import NatTable
from rules.backend import Backend, CommitFailed

log = logging.getLogger("sipnat")

MAPPING = "mapping"
"""The kind under which the store keeps mappings."""

_LOGGED = {Opened: "opened", Closed: "closed", Turned: "turned into"}
_SIP: Final = Kind.SIP

DEADLINE_GRAIN: Final = 10.0
"""How many seconds a deadline may move before the store hears of it at once."""

DEADLINE_INTERVAL: Final = 10.0
"""How long it takes at most until it hears of one that has moved less."""

Key = tuple[str, str]


class Ledger:
    """Commits changes, and knows which mappings the store has not learned of yet.

    `is_behind` is set where the kernel is not as the table says, to be mended before long.
    `media_closed` is set whenever a mapping for media has closed, for whoever waits to clear.
    """

    def __init__(
        self,
        table: NatTable,
        backend: Backend,
        grants: Grants | None = None,
        *,
        has_store: bool = True,
    ) -> None:
        self.grants = grants or Grants()
        self.observers = Observers()
        self.is_behind = False
        self.media_closed = asyncio.Event()
        self._reconciling: Generator[None, None, None] | None = None
        self._table = table
        self._backend = backend
        self._has_store = has_store
        self._touched: dict[Socket, None] = {}
        self._moved: dict[Socket, None] = {}  # whose deadlines have, and nothing else
        self._next_moved = 0.0

    def commit(self, changes: Sequence[Change]) -> None:
        """Makes the kernel follow; raises CommitFailed where it does not, and notes nothing."""
        self._backend.commit(changes)
        self.note(changes)

    def push(self, changes: Sequence[Change], what: str) -> None:
        """Commits changes that are not to be undone: where the kernel refuses it falls behind.

        `what` says in a word what the mappings are by now: "expired", "moved", "dropped".
        """
        if not changes:
            return
        self._tell(changes, what)
        try:
            self.commit(changes)
        except CommitFailed as error:
            self.note(changes)
            self.fall_behind(f"{what} mappings", error)

    def fall_behind(self, what: str, error: Exception) -> None:
        """Takes note that the kernel is not as the table says."""
        self.is_behind = True
        log.error("the kernel did not take %s, which is tried again: %s", what, error)

    def settle(self) -> list[Change]:
        """Makes the kernel follow what the table has changed; returns the changes.

        Raises CommitFailed, with the table put back, where the kernel refuses.
        """
        changes = self._table.take_changes()
        try:
            self.commit(changes)
        except CommitFailed:
            self._table.revert(changes)
            raise
        self._tell(changes, "requested")
        return changes

    def reconcile(self) -> Iterator[None]:
        """Makes the kernel equal to the table, in steps; where it refuses it falls behind.

        One that is under way ends where it is: this one does all that it would.
        """
        if self._reconciling is not None:
            self._reconciling.close()
        self._reconciling = self._steps()
        return self._reconciling

    def _steps(self) -> Generator[None, None, None]:
        try:
            yield from self._backend.reconcile(
                (
                    binding,
                    {remote.address for each in pinholes for remote in each.remotes}.union(
                        *(each.permits for each in pinholes)
                    ),
                )
                for binding in self._table.bindings()
                if (pinholes := self._table.pinholes(binding))
            )
            self.is_behind = False
        except CommitFailed as error:
            self.fall_behind("the mappings", error)

    def note(self, changes: Sequence[Change]) -> None:
        """Notes changes that the kernel knows of already."""
        if self.grants.is_asking:
            self.grants.follow(changes)
        is_logged = log.isEnabledFor(logging.INFO)
        for change in changes:
            if isinstance(change, Refreshed):
                if self._has_store:
                    binding = change.binding
                    noted = self._touched if _counts(change) else self._moved
                    noted[binding.transport, binding.internal] = None
            elif isinstance(change, (Opened, Closed, Turned)):  # the others follow from these
                binding = change.binding
                if self._has_store:
                    self._touched[binding.transport, binding.internal] = None
                if isinstance(change, Closed) and binding.kind is not _SIP:
                    self.media_closed.set()
                if is_logged:
                    _log(_LOGGED[type(change)], change)

    def _tell(self, changes: Sequence[Change], what: str) -> None:
        if self.observers:
            self.observers.notice(Occurrence(now(), what, tuple(changes)))

    def touch(self, bindings: Iterable[Binding]) -> None:
        """Notes that the store, if there is one, is wrong about these mappings."""
        if self._has_store:
            self._touched.update(((each.transport, each.internal), None) for each in bindings)

    def take_rows(self, *, has_all: bool = False) -> Iterator[tuple[Key, bytes | None]]:
        """Yields rows of mappings: of all, or of those that have changed since the last call.

        None stands for one that is gone. Packets may be served between two rows.
        """
        touched, self._touched = self._touched, {}
        sockets: Iterable[Socket] = touched
        if has_all or (self._moved and now() >= self._next_moved):
            touched.update(self._moved)
            self._moved = {}
            self._next_moved = now() + DEADLINE_INTERVAL
        if has_all:
            sockets = ((each.transport, each.internal) for each in self._table.bindings())
        for transport, internal in sockets:
            yield (MAPPING, f"{transport.label} {internal}"), self._row(transport, internal)

    def _row(self, transport: Transport, internal: Endpoint) -> bytes | None:
        binding = self._table.look_up_internal(transport, internal)
        if binding is None:
            return None
        return msgspec.msgpack.encode(row_of(self._table, binding))


def _counts(change: Refreshed) -> bool:
    """Tells whether the store is to hear of it at once."""
    before, after = change.before, change.after
    if before is None or after is None:
        return True
    is_same = before.remotes == after.remotes and before.permits == after.permits
    return not is_same or abs(after.expires_at - before.expires_at) >= DEADLINE_GRAIN


def _log(what: str, change: Change) -> None:
    binding = change.binding
    fields = {
        "call_id": next((owner.call_id for owner in _owners(change) if owner.call_id), None),
        "kind": binding.kind.value,
        "transport": binding.transport.label,
        "internal": binding.internal,
        "external": binding.external,
    }
    log.info(
        *("%s %s %s <-> %s", what, fields["kind"], binding.internal, binding.external),
        extra=fields,
    )


def _owners(change: Change) -> Iterator[Owner]:
    """Yields who keeps, or kept, the mapping of a change."""
    if isinstance(change, Opened):
        yield change.pinhole.owner
    elif isinstance(change, Closed):
        yield from (pinhole.owner for pinhole in change.pinholes)


_DECODER = msgspec.msgpack.Decoder(Row)


def decode_row(encoded: bytes) -> Row:
    """Decodes what `take_rows` made; raises ValueError (as msgspec.DecodeError is one)."""
    row: Row = _DECODER.decode(encoded)
    return row
