"""What the dialogs keep, as it is read from the rows of the store.

A row is written straight from the objects, which is quick; what is read is checked against the
annotations of these classes. So this module is never compiled: compiled classes do not keep theirs.
What an earlier release did not write has a default.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypeVar

import msgspec

from alg.dialogs.call import Call, CallKey
from alg.dialogs.call_media import CallMedia
from alg.dialogs.offer_answer import Bindings, Description, Line, Party, Stream
from alg.dialogs.origin import Origin
from alg.dialogs.request_sent import RequestSent
from alg.dialogs.states import DialogState
from nat_table.binding import Binding, Kind, Owner
from nat_table.endpoint import Endpoint, Transport


class StoredBinding(msgspec.Struct, frozen=True):
    """A binding, written out in full."""

    transport: Transport
    internal: Endpoint
    external: Endpoint
    kind: Kind
    created_at: float

    def restore(self) -> Binding:
        """Returns the binding that it was."""
        return Binding(self.transport, self.internal, self.external, self.kind, self.created_at)


Value = TypeVar("Value")
StoredBindings = tuple[StoredBinding, ...]


class StoredLine(NamedTuple):
    """A line of a description."""

    rtp: Endpoint | None
    rtcp: Endpoint | None
    pair_count: int
    is_rejected: bool
    is_mux: bool
    setup: bytes | None = None
    media: bytes = b""
    is_two_way: bool = True


class StoredStream(NamedTuple):
    """A line with its bindings."""

    line: StoredLine
    rtp: StoredBindings = ()
    rtcp: StoredBindings = ()


class StoredDescription(NamedTuple):
    """A description."""

    exchange: int
    request: tuple[bytes, int]
    streams: tuple[StoredStream, ...]
    others: StoredBindings = ()
    until: float = 0.0

    def restore(self) -> Description:
        """Returns the description that it was."""
        streams = tuple(
            Stream(Line(*each.line), _bindings(each.rtp), _bindings(each.rtcp))
            for each in self.streams
        )
        others = _bindings(self.others)
        return Description(self.exchange, self.request, streams, others, self.until)


class StoredParty(msgspec.Struct):
    """A party of a call."""

    tag: bytes
    agreed: StoredDescription
    proposed: list[StoredDescription]
    settled: dict[bytes, int]

    def restore(self) -> Party:
        """Returns the party that it was."""
        party = Party(self.tag)
        party.agreed = self.agreed.restore()
        party.proposed = [each.restore() for each in self.proposed]
        party.settled = self.settled
        return party


class StoredMedia(msgspec.Struct):
    """The media of a call."""

    local: StoredParty
    remotes: dict[bytes, StoredParty]
    exchanges: int
    mapped: dict[tuple[Transport, Endpoint], StoredBinding]
    is_changed: bool

    def restore(self) -> CallMedia:
        """Returns the media that it was."""
        media = CallMedia()
        media.local = self.local.restore()
        media.remotes = {tag: party.restore() for tag, party in self.remotes.items()}
        media.exchanges = self.exchanges
        media.mapped = {socket: binding.restore() for socket, binding in self.mapped.items()}
        media.is_changed = self.is_changed
        return media


class StoredSent(NamedTuple):
    """A request on its way."""

    cseq: int
    branch: bytes
    server: Endpoint

    def restore(self) -> RequestSent:
        """Returns what it was."""
        return RequestSent(self.cseq, self.branch, self.server)


class StoredOrigin(NamedTuple):
    """How a call began."""

    begun_at: float | None = None
    is_inbound: bool = False
    caller: str = ""
    callee: str = ""


NO_ORIGIN = StoredOrigin()


class StoredCall(msgspec.Struct):
    """A call."""

    key: CallKey
    owner: Owner
    dialogs: dict[bytes, DialogState]
    media: StoredMedia
    held: dict[StoredBinding, tuple[Endpoint, ...]]
    signalling: dict[StoredBinding, None]
    peers: tuple[Endpoint, ...]
    attempts: list[StoredSent]
    expires_at: float
    narrow_at: float
    interval: float | None
    is_answered: bool
    is_ended: bool
    origin: StoredOrigin = NO_ORIGIN
    answered_at: float | None = None

    def restore(self) -> Call:
        """Returns the call that it was."""
        call = Call(self.key, self.owner, Origin(*self.origin))
        call.dialogs = self.dialogs
        call.follow_dialogs()
        call.media = self.media.restore()
        call.held = restore_keys(self.held)
        call.signalling = restore_keys(self.signalling)
        call.peers = self.peers
        call.attempts = [sent.restore() for sent in self.attempts]
        call.expires_at = self.expires_at
        call.narrow_at = self.narrow_at
        call.interval = self.interval
        call.is_answered = self.is_answered
        call.is_ended = self.is_ended
        call.answered_at = self.answered_at
        return call


class StoredInvitation(NamedTuple):
    """An invitation."""

    cseq: int
    lines: tuple[StoredLine, ...]
    peers: tuple[Endpoint, ...]
    expires_at: float
    begun_at: float | None = None


class StoredAsked(msgspec.Struct):
    """What a REGISTER has asked for."""

    sent: StoredSent
    lifetimes: dict[StoredBinding, int]
    is_wildcard: bool
    user: str = ""


class StoredRegistration(msgspec.Struct):
    """A registration."""

    asked: dict[int, StoredAsked]
    granted: dict[StoredBinding, float]
    registrars: tuple[Endpoint, ...]
    expires_at: float
    user: str = ""


class StoredSubscription(msgspec.Struct):
    """A subscription."""

    asked: dict[int, StoredSent]
    bindings: dict[StoredBinding, None]
    peers: tuple[Endpoint, ...]
    expires_at: float
    is_granted: bool


CALLS = msgspec.msgpack.Decoder(StoredCall)
INVITATIONS = msgspec.msgpack.Decoder(tuple[tuple[str, bytes, bytes], StoredInvitation])
REGISTRATIONS = msgspec.msgpack.Decoder(tuple[tuple[str, bytes], StoredRegistration])
SUBSCRIPTIONS = msgspec.msgpack.Decoder(tuple[tuple[str, bytes], StoredSubscription])


def encode_row(value: object) -> bytes:
    """Returns the row of a value."""
    return _ROWS.encode(value)


def restore_keys(values: Mapping[StoredBinding, Value]) -> dict[Binding, Value]:
    """Returns values by the bindings that their keys were."""
    return {binding.restore(): value for binding, value in values.items()}


def _fields(value: object) -> tuple[object, ...]:
    if isinstance(value, Line | Stream | Description):
        return value.fields()
    raise NotImplementedError


_ROWS = msgspec.msgpack.Encoder(enc_hook=_fields)


def _bindings(stored: StoredBindings) -> Bindings:
    return tuple(each.restore() for each in stored)
