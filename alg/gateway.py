"""The engine: a datagram in, an outcome out. No socket, no clock, no kernel.

    receive(datagram, now)   one datagram on its way through the router
    confirm(outcome)         its changes are in the kernel
    roll_back(outcome)       the kernel refused them: the table is as it was
    next_timer()             when handle_timer wants to be called, at the latest
    handle_timer(now)        what has ended by itself

Whatever goes wrong inside, the packet passes as it came and the table is as it was: a gateway that
cannot help must not hurt.
"""

from __future__ import annotations

import enum
import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network

from alg.dialogs.dialog import Calls, CallTimeouts, owner_of
from alg.dialogs.registration import Registrations
from alg.mappings import FLOW, DeniedPort, Inbound, Outbound
from alg.methods import METHODS, Exchange, State, call_key
from alg.rewrite import MalformedSdp, TooComplex, rewrite
from alg.sdp.multipart import is_signed
from alg.sip.message import Malformed, NotSip, SipMessage, parse_message
from alg.sip.span import Edit, apply_edits
from alg.verdict import Direction, Outcome, Reason, Verdict
from alg.written import Written
from nat_table.binding import Kind
from nat_table.changes import Change, Closed
from nat_table.endpoint import Endpoint, Transport
from nat_table.table import NatTable, NoFreePort, QuotaExceeded

log = logging.getLogger("sipnat.gateway")

MAX_MESSAGE = 65535
MAX_REMEMBERED = 4096
FLOW_STEP = 30.0
COMPLAINT_INTERVAL = 10.0
DEFAULT_TIMEOUTS = CallTimeouts()

# The methods that carry offers and answers; a description anywhere else describes no media of ours
# (OPTIONS lists capabilities, MESSAGE and PUBLISH carry documents).
_MEDIA_METHODS = frozenset((b"INVITE", b"ACK", b"PRACK", b"UPDATE", b"INFO"))

_AUTH_INT = re.compile(
    rb"\n(?:proxy-)?auth(?:orization|entication-info)[ \t]*:[^\n]*(?:\n[ \t][^\n]*)*"
    rb"qop[ \t]*=[ \t]*\"?auth-int\b",
    re.IGNORECASE,
)
_NOTHING_LEFT: frozenset[str] = frozenset()
_BODY: frozenset[str] = frozenset(("body",))
_BODY_AND_CONTACT: frozenset[str] = frozenset(("body", "contact"))


# What makes a message pass as it came, and the word for it.
_REASONS: dict[type[Exception], Reason] = {
    Malformed: Reason.MALFORMED,
    MalformedSdp: Reason.MALFORMED_SDP,
    TooComplex: Reason.TOO_COMPLEX,
    DeniedPort: Reason.DENIED_PORT,
    NoFreePort: Reason.NO_FREE_PORT,
    QuotaExceeded: Reason.QUOTA,
}


class Side(enum.Enum):
    """Which side of the NAT an interface or address is on."""

    INTERNAL = "internal"
    EXTERNAL = "external"
    OTHER = "other"


_DIRECTIONS: dict[tuple[Side, Side], Direction] = {
    (Side.INTERNAL, Side.EXTERNAL): Direction.OUTBOUND,
    (Side.EXTERNAL, Side.INTERNAL): Direction.INBOUND,
    (Side.INTERNAL, Side.INTERNAL): Direction.HAIRPIN,
}


@dataclass(frozen=True, slots=True)
class Datagram:
    """A UDP payload, its endpoints in internal form, and the sides it comes from and goes to.

    A message framed out of a TCP stream is one too, with that `transport`.
    """

    source: Endpoint
    destination: Endpoint
    payload: bytes
    came_from: Side = Side.INTERNAL
    goes_to: Side = Side.EXTERNAL
    transport: Transport = Transport.UDP

    @property
    def direction(self) -> Direction:
        """Which way the datagram crosses the NAT, by the sides it comes from and goes to."""
        return _DIRECTIONS.get((self.came_from, self.goes_to), Direction.NONE)


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """What the engine must know of the configuration; timeouts in seconds.

    `media_hosts` are addresses that any internal host may name in its descriptions; `hands_off` are
    servers that traverse the NAT by themselves, whose traffic passes as it is. A host may have
    `max_per_host` calls, registrations and subscriptions each.
    """

    external_addresses: tuple[str, ...]
    media_hosts: frozenset[str] = frozenset()
    hands_off: tuple[IPv4Network, ...] = ()
    flow_timeout: float = 300.0
    call_timeouts: CallTimeouts = DEFAULT_TIMEOUTS
    max_message: int = MAX_MESSAGE
    max_per_host: int = 1024


class Gateway:
    """Rewrites SIP between internal and external, and keeps the table for it."""

    def __init__(
        self,
        settings: GatewaySettings,
        table: NatTable,
        masqueraded: Callable[[Endpoint], Endpoint | None] = lambda internal: None,
    ) -> None:
        """Takes the table it works on, and a way to ask how the kernel masquerades a socket now."""
        self.table = table
        self._masqueraded = masqueraded
        self.counters: dict[Reason, int] = dict.fromkeys(Reason, 0)
        self._settings = settings
        timeouts = settings.call_timeouts
        self._state = State(
            table,
            Registrations("registration", timeouts.transaction, settings.max_per_host),
            Registrations("subscription", timeouts.transaction, settings.max_per_host),
            Calls(timeouts, settings.max_per_host),
        )
        self._written = Written()
        self._hands_off: dict[str, bool] = {}
        self._next_complaint = float("-inf")
        self._addresses = frozenset(a.encode("ascii") for a in settings.external_addresses)
        self._media_hosts = frozenset(host.encode("ascii") for host in settings.media_hosts)

    @property
    def registration_count(self) -> int:
        """How many registrations have state."""
        return len(self._state.registrations)

    @property
    def call_count(self) -> int:
        """How many calls have state."""
        return len(self._state.calls)

    def receive(self, datagram: Datagram, now: float) -> Outcome:
        """Decides about one datagram; never raises."""
        direction = datagram.direction
        payload = datagram.payload
        try:
            outcome = self._decide(datagram, direction, now)
        except NotSip:
            outcome = self._leave(payload, Reason.NOT_SIP)
        except tuple(_REASONS) as error:
            outcome = self._leave(payload, _REASONS[type(error)], str(error))
        except Exception as error:
            self._complain(now)
            outcome = self._leave(payload, Reason.ERROR, repr(error))
        if direction is Direction.OUTBOUND:
            outcome = self._refresh(datagram, outcome, now)
        self.counters[outcome.reason] += 1
        return outcome

    def count(self, reason: Reason) -> None:
        """Counts a packet that never became a datagram."""
        self.counters[reason] += 1

    def confirm(self, outcome: Outcome) -> None:
        """Takes note that the outcome's changes stand in the kernel."""
        self._forget_closed(outcome.changes)

    def roll_back(self, outcome: Outcome) -> Outcome:
        """Undoes the changes of an outcome; returns the drop that takes its place.

        The sender retransmits (RFC 3261 §17.1), so a drop is a free retry.
        """
        self.table.revert(outcome.changes)
        self.counters[outcome.reason] -= 1
        self.counters[Reason.COMMIT_FAILED] += 1
        return Outcome(Verdict.DROPPED, Reason.COMMIT_FAILED, outcome.payload)

    def next_timer(self) -> float | None:
        """Returns when `handle_timer` has something to do, at the earliest."""
        deadlines = (
            self.table.next_deadline(),
            self._state.calls.next_deadline(),
            self._state.registrations.next_deadline(),
            self._state.subscriptions.next_deadline(),
        )
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def handle_timer(self, now: float) -> tuple[Change, ...]:
        """Lets go of what has expired; returns the changes that the kernel must follow."""
        self._state.calls.expire(now)
        self._state.registrations.expire(now)
        self._state.subscriptions.expire(now)
        self.table.expire(now)
        changes = tuple(self.table.take_changes())
        self._forget_closed(changes)
        return changes

    def _complain(self, now: float) -> None:
        """Logs an error of our own, but not once a packet."""
        if now >= self._next_complaint:
            self._next_complaint = now + COMPLAINT_INTERVAL
            log.exception("a packet was passed unmodified because of an error in sipnat")

    def _leave(self, payload: bytes, reason: Reason, detail: str = "") -> Outcome:
        """Lets a packet pass as it came; whatever was bound for it is undone."""
        self.table.revert(self.table.take_changes())
        return Outcome(Verdict.UNCHANGED, reason, payload, detail=detail)

    def _decide(self, datagram: Datagram, direction: Direction, now: float) -> Outcome:
        payload = datagram.payload
        is_ours = datagram.source.address in self._settings.external_addresses
        if direction is Direction.NONE or is_ours:
            return self._leave(payload, Reason.NOT_TRANSLATED)
        remote = datagram.destination if direction is Direction.OUTBOUND else datagram.source
        if self._settings.hands_off and self._is_hands_off(remote.address):
            return self._leave(payload, Reason.HANDS_OFF)
        if len(payload) > self._settings.max_message:
            return self._leave(payload, Reason.TOO_LARGE)
        if not payload.strip(b"\r\n\0 "):
            return Outcome(Verdict.UNCHANGED, Reason.KEEPALIVE, payload)
        message = parse_message(payload)
        reason = Reason.REWRITTEN
        edits: list[Edit] = []
        if direction is not Direction.INBOUND:
            left, reason = self._left(message)
            edits = self._outbound(message, datagram, left, now)
        if direction is not Direction.OUTBOUND:
            edits += self._inbound(message, datagram, now)
        changes = tuple(self.table.take_changes())
        if edits:
            edits.sort()
            rewritten = apply_edits(payload, edits)
            return Outcome(Verdict.REWRITTEN, reason, rewritten, tuple(edits), changes)
        if reason is Reason.REWRITTEN:
            reason = Reason.NOTHING_TO_CHANGE
        return Outcome(Verdict.UNCHANGED, reason, payload, (), changes)

    def _outbound(
        self, message: SipMessage, datagram: Datagram, left: frozenset[str], now: float
    ) -> list[Edit]:
        source = datagram.source
        key = call_key(message, source.address, True)
        calls = self._state.calls
        call = calls.find(key)
        remembered = None
        if call is not None and call.is_ended and (message.to_tag or not message.is_request):
            remembered = call.media.mapped
        mappings = Outbound(
            self.table,
            datagram.transport,
            source,
            self._media_hosts | {source.address.encode("ascii")},
            self._addresses,
            self._written,
            self._masqueraded,
            now=now,
            flow_until=self._flow_until(now),
            owner=call.owner if call is not None else owner_of(key),
            media_until=calls.deadline(call, now),
            remembered=remembered,
        )
        edits = rewrite(message, mappings, Direction.OUTBOUND, left)
        self._follow(Exchange(message, source.address, True, now, mappings.notes))
        return edits

    def _inbound(self, message: SipMessage, datagram: Datagram, now: float) -> list[Edit]:
        host = datagram.destination.address
        mappings = Inbound(self.table, datagram.transport, host, self._addresses, self._written)
        edits = rewrite(message, mappings, Direction.INBOUND, _NOTHING_LEFT)
        self._follow(Exchange(message, host, False, now, mappings.notes))
        return edits

    def _follow(self, exchange: Exchange) -> None:
        """Lets registrations and calls follow what a rewritten message means for them."""
        handlers = METHODS.get(exchange.message.method)
        if handlers is not None:
            on_request, on_response = handlers
            handler = on_request if exchange.message.is_request else on_response
            handler(self._state, exchange)

    def _left(self, message: SipMessage) -> tuple[frozenset[str], Reason]:
        """Returns what must not be edited, and the reason if that is worth counting.

        A digest over the body (RFC 7616 qop=auth-int), S/MIME and RFC 4474 Identity (whose value
        is a quoted string; it covers Contact and body) break when what they sign is changed.
        """
        if message.value("identity").startswith(b'"'):
            return _BODY_AND_CONTACT, Reason.SIGNED
        if message.body.start == message.body.end:
            return _NOTHING_LEFT, Reason.REWRITTEN
        if message.method not in _MEDIA_METHODS:
            return _BODY, Reason.REWRITTEN
        data = message.data
        if is_signed(message.value("content-type")):
            return _BODY, Reason.SIGNED
        end = message.headers_end
        if data.find(b"auth-int", 0, end) >= 0 and _AUTH_INT.search(data, 0, end):
            return _BODY, Reason.SIGNED
        if message.value("content-encoding").lower() not in (b"", b"identity"):
            return _BODY, Reason.ENCODED_BODY
        return _NOTHING_LEFT, Reason.REWRITTEN

    def _refresh(self, datagram: Datagram, outcome: Outcome, now: float) -> Outcome:
        """Keeps the sender's signalling mapping, whatever it sent (RFC 4787 REQ-6).

        Keepalives, STUN and requests that name nobody hold a mapping as well as any message.
        """
        standing = self.table.look_up_internal(datagram.transport, datagram.source)
        if standing is None or standing.kind is not Kind.SIP:
            return outcome
        until = self._flow_until(now)
        self.table.bind(
            datagram.transport, datagram.source, Kind.SIP, FLOW, now=now, expires_at=until
        )
        changes = self.table.take_changes()
        return replace(outcome, changes=outcome.changes + tuple(changes)) if changes else outcome

    def _is_hands_off(self, address: str) -> bool:
        """Whether the administrator leaves the NAT traversal of this server to the server."""
        known = self._hands_off.get(address)
        if known is None:
            if len(self._hands_off) >= MAX_REMEMBERED:
                self._hands_off.clear()
            networks = self._settings.hands_off
            known = any(IPv4Address(address) in network for network in networks)
            self._hands_off[address] = known
        return known

    def _flow_until(self, now: float) -> float:
        """Returns the deadline of plain traffic, in steps, so that few packets move it."""
        return (now // FLOW_STEP + 1) * FLOW_STEP + self._settings.flow_timeout

    def _forget_closed(self, changes: Iterable[Change]) -> None:
        for change in changes:
            if isinstance(change, Closed):
                self._written.forget(change.binding.external)
