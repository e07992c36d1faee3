"""The gateway at work on messages from files: the same engine, on a table without a kernel.

Time is the capture's, timers run between its packets, and ports are drawn from a fixed seed: the
same files give the same answers. What the kernel would do is done here: a packet to a mapped
external endpoint gets its internal destination before the engine sees it, so that captures from
either side of the NAT can be read, and every change is taken as committed.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from alg.datagram import Datagram, Side
from alg.gateway import Gateway
from alg.gateway_settings import GatewaySettings
from alg.observe.capture import Arrival, Capture, CaptureError, is_capture
from alg.observe.media_count import MediaCount
from alg.observe.network import Network
from alg.observe.passage import Passage
from alg.sip.grammar import SIP_PREFIX
from alg.sip.stream import Fault, Piece, PieceKind, SipStream
from alg.verdict import Outcome, Reason, Verdict
from nat_table.behavior import Behavior
from nat_table.binding import Kind
from nat_table.changes import Change, Closed, Opened
from nat_table.endpoint import Endpoint, Transport, parse_endpoint
from nat_table.snapshot import MappingRow, mapping_row
from nat_table.table import NatTable

MAX_MESSAGE_FILE = 1 << 20
STEP_BETWEEN_FILES = 1.0

_REASONS = {
    Fault.NOT_SIP: Reason.NOT_SIP,
    Fault.NO_LENGTH: Reason.MALFORMED,
    Fault.BAD_LENGTH: Reason.MALFORMED,
    Fault.TOO_LARGE: Reason.TOO_LARGE,
    Fault.CUT: Reason.TRUNCATED,
}


@dataclass(frozen=True, slots=True)
class Explanation:
    """What the gateway did with one message.

    The endpoints are as captured, those of `passage` as the engine saw them. `opened` and `closed`
    are rows as `show mappings --json` prints them; `expired` are those that time has closed since
    the message before.
    """

    index: int
    passage: Passage
    source: Endpoint
    destination: Endpoint
    opened: tuple[MappingRow, ...]
    closed: tuple[MappingRow, ...]
    expired: tuple[MappingRow, ...]


@dataclass(slots=True)
class _Connection:
    """One direction of a TCP connection, and what has been seen of it."""

    framer: SipStream = field(default_factory=SipStream)
    has_messages: bool = False
    is_opaque: bool = False


class Explainer:
    """One gateway for all the files of a call, in their order.

    `sip_ports` are shown whatever is sent to or from them; of the rest only what looks like SIP or
    belongs to a signalling mapping. `skipped` counts what is not shown, and `media` what of it
    passes mappings for media.
    """

    def __init__(self, network: Network, sip_ports: Sequence[int] = (5060,)) -> None:
        self.skipped: Counter[str] = Counter()
        self.verdicts: Counter[Verdict] = Counter()
        addresses = network.external_addresses
        self.table = NatTable(addresses, Behavior(), random.Random(0), network.translation)
        self.gateway = Gateway(GatewaySettings(addresses), self.table)
        self.media = MediaCount(self.table)
        self._network = network
        self._sip_ports = frozenset(sip_ports)
        self._now = float("-inf")
        self._index = 0
        self._expired: list[MappingRow] = []

    def capture(self, path: Path) -> Iterator[Explanation]:
        """Yields what happens to each message of a capture; raises CaptureError where it ends."""
        capture = Capture(path)
        connections: dict[int, _Connection] = {}
        try:
            for arrival in capture:
                self._pass_time(arrival.time)
                if arrival.transport is Transport.UDP:
                    yield from self._datagram(arrival)
                else:
                    yield from self._stream(arrival, connections)
        finally:
            self.skipped += capture.skipped

    def message(self, path: Path, source: Endpoint, destination: Endpoint) -> Explanation:
        """Returns what happens to the one message that a file holds, a second after the last."""
        try:
            with path.open("rb") as file:
                payload = file.read(MAX_MESSAGE_FILE + 1)
        except OSError as error:
            raise CaptureError(f"{path}: cannot be read: {error.strerror}") from error
        if len(payload) > MAX_MESSAGE_FILE:
            raise CaptureError(f"{path}: this is neither a capture nor a SIP message: too large")
        self._pass_time(max(self._now, 0.0) + STEP_BETWEEN_FILES)
        return self._receive(Arrival(self._now, Transport.UDP, source, destination, payload))

    def _pass_time(self, now: float) -> None:
        """Runs the timers up to `now`; time does not go back where a capture's does."""
        now = max(self._now, now)
        while (due := self.gateway.next_timer()) is not None and due <= now:
            self._now = max(self._now, due)
            for change in self.gateway.handle_timer(self._now):
                if isinstance(change, Closed):
                    self._expired.append(mapping_row(change.binding, change.pinholes, self._now))
        self._now = now

    def _datagram(self, arrival: Arrival) -> Iterator[Explanation]:
        if not self._is_signalling(arrival) and not _looks_like_sip(arrival.payload):
            self.skipped["datagrams without SIP"] += 1
            self.media.see(arrival)
        elif arrival.is_truncated:
            yield self._leave(arrival, Reason.TRUNCATED, "the capture holds only its beginning")
        else:
            yield self._receive(arrival)

    def _stream(
        self, arrival: Arrival, connections: dict[int, _Connection]
    ) -> Iterator[Explanation]:
        connection = connections.setdefault(arrival.stream, _Connection())
        framer = connection.framer
        pieces = framer.feed(arrival.payload)
        if arrival.is_end:
            pieces += framer.finish()
            del connections[arrival.stream]
        for piece in _join_keepalives(pieces):
            part = arrival._replace(payload=piece.data)
            if piece.kind is not PieceKind.OPAQUE:
                connection.has_messages |= piece.kind is PieceKind.MESSAGE
                yield self._receive(part)
            elif framer.fault is not None and self._is_news(part, connection):
                yield self._leave(part, _REASONS[framer.fault], framer.fault.value)
            else:
                self.skipped["bytes of TCP without SIP"] += len(piece.data)
            connection.is_opaque = piece.kind is PieceKind.OPAQUE

    def _is_news(self, part: Arrival, connection: _Connection) -> bool:
        """Whether opaque octets are worth showing: the first ones, where SIP was to be expected."""
        return not connection.is_opaque and (
            connection.has_messages or self._is_signalling(part) or _looks_like_sip(part.payload)
        )

    def _is_signalling(self, arrival: Arrival) -> bool:
        """Whether one end is a SIP port or has a signalling mapping."""
        transport = arrival.transport
        for endpoint in (arrival.source, arrival.destination):
            if endpoint.port in self._sip_ports:
                return True
            binding = self.table.look_up_internal(
                transport, endpoint
            ) or self.table.look_up_external(transport, endpoint)
            if binding is not None and binding.kind is Kind.SIP:
                return True
        return False

    def _route(self, arrival: Arrival) -> Datagram:
        """Returns the datagram as the engine would see it: its destination translated, its sides.

        What does not cross the NAT (or has crossed it when it was captured) goes to the other side.
        """
        network = self._network
        source, destination = arrival.source, arrival.destination
        came_from = Side.INTERNAL if network.is_internal(source.address) else Side.EXTERNAL
        goes_to = Side.INTERNAL if network.is_internal(destination.address) else Side.EXTERNAL
        if network.is_external(destination.address):
            binding = self.table.look_up_external(arrival.transport, destination)
            if binding is None:
                goes_to = Side.OTHER
            else:
                destination, goes_to = binding.internal, Side.INTERNAL
        elif came_from is goes_to or not network.is_routed(destination.address):
            goes_to = Side.OTHER
        if network.is_external(source.address):
            came_from = Side.OTHER
        return Datagram(source, destination, arrival.payload, came_from, goes_to, arrival.transport)

    def _receive(self, arrival: Arrival) -> Explanation:
        datagram = self._route(arrival)
        outcome = self.gateway.receive(datagram, self._now)
        opened, closed = self._rows(outcome.changes)
        self.gateway.confirm(outcome)
        return self._explanation(arrival, datagram, outcome, opened, closed)

    def _leave(self, arrival: Arrival, reason: Reason, detail: str) -> Explanation:
        """Explains what never gets to the engine, or not whole."""
        datagram = self._route(arrival)
        self.gateway.count(reason)
        outcome = Outcome(Verdict.UNCHANGED, reason, arrival.payload, detail=detail)
        return self._explanation(arrival, datagram, outcome, (), ())

    def _explanation(
        self,
        arrival: Arrival,
        datagram: Datagram,
        outcome: Outcome,
        opened: tuple[MappingRow, ...],
        closed: tuple[MappingRow, ...],
    ) -> Explanation:
        self._index += 1
        self.verdicts[outcome.verdict] += 1
        expired, self._expired = tuple(self._expired), []
        return Explanation(
            self._index,
            Passage(
                arrival.time,
                0.0,
                0.0,
                datagram,
                outcome,
                self._external(datagram, datagram.source),
                self._external(datagram, datagram.destination),
            ),
            arrival.source,
            arrival.destination,
            opened,
            closed,
            expired,
        )

    def _external(self, datagram: Datagram, end: Endpoint) -> Endpoint | None:
        binding = self.table.look_up_internal(datagram.transport, end)
        return binding.external if binding is not None else None

    def _rows(
        self, changes: Sequence[Change]
    ) -> tuple[tuple[MappingRow, ...], tuple[MappingRow, ...]]:
        """Returns the mappings opened and closed by one message."""
        opened = tuple(
            mapping_row(
                change.binding,
                self.table.pinholes(change.binding) or (change.pinhole,),
                self._now,
            )
            for change in changes
            if isinstance(change, Opened)
        )
        closed = tuple(
            mapping_row(change.binding, change.pinholes, self._now)
            for change in changes
            if isinstance(change, Closed)
        )
        return opened, closed


def explain_files(
    explainer: Explainer, paths: Sequence[Path], source: str | None, destination: str | None
) -> Iterator[Explanation]:
    """Returns an iterator over the messages of captures and raw files; it raises CaptureError.

    Raises ValueError, one sentence, where there are raw files and `source` or `destination`, which
    all of them go by, is missing or no endpoint.
    """
    are_captures = [_is_capture(path) for path in paths]
    ends: list[Endpoint] = []
    for option, text in (("--from", source), ("--to", destination)):
        if text is not None:
            ends.append(_parse_end(option, text))
        elif not all(are_captures):
            raw = paths[are_captures.index(False)]
            raise ValueError(
                f"{raw} is no capture: give --from and --to, which say where its message goes"
            )
    return _explain_each(explainer, zip(paths, are_captures, strict=True), ends)


def _explain_each(
    explainer: Explainer, files: Iterable[tuple[Path, bool]], ends: Sequence[Endpoint]
) -> Iterator[Explanation]:
    for path, is_one in files:
        if is_one:
            yield from explainer.capture(path)
        else:
            yield explainer.message(path, *ends)


def _is_capture(path: Path) -> bool:
    """Whether a file is a capture; one that cannot be read counts as such, and will say so."""
    try:
        with path.open("rb") as file:
            return is_capture(file.read(4))
    except OSError:
        return True


def _parse_end(option: str, text: str) -> Endpoint:
    try:
        return parse_endpoint(text)
    except ValueError:
        raise ValueError(f'{option} is "{text}", allowed is ADDRESS:PORT') from None


def _looks_like_sip(payload: bytes) -> bool:
    return SIP_PREFIX.match(payload.lstrip(b"\r\n")) is not None


def _join_keepalives(pieces: Sequence[Piece]) -> Iterator[Piece]:
    """Joins line ends that came together: two are a ping, one its answer (RFC 5626 §4.4.1)."""
    joined = b""
    for piece in pieces:
        if piece.kind is PieceKind.KEEPALIVE:
            joined += piece.data
            continue
        if joined:
            yield Piece(PieceKind.KEEPALIVE, joined)
            joined = b""
        yield piece
    if joined:
        yield Piece(PieceKind.KEEPALIVE, joined)
