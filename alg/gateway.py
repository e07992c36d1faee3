"""The engine: a datagram in, an outcome out. No socket, no clock, no kernel.

    receive(datagram, now)   one datagram on its way through the router
    confirm(outcome)         its changes are in the kernel
    roll_back(outcome)       the kernel refused them: the table is as it was
    next_timer()             when to call handle_timer(now), which ends what is over
    calls_to_review(now)     the media of calls that end soon: does any of it flow?
    keep_calls(flowing, now) these do

    take_touched()           rows for the store, of what has changed
    restore(rows, now)       takes such rows back
    move_address(...)        the external address is another one
    configure(settings)      the administrator wants other settings
    is_draining, shedding    whether new calls are turned away; what becomes of them in an overload

Whatever goes wrong inside, the packet passes as it came and the table is as it was: a gateway that
cannot help must not hurt.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from ipaddress import ip_address
from typing import Final

from alg.datagram import Datagram
from alg.dialogs.call import CallKey, owner_of
from alg.dialogs.linger import FLOW
from alg.dialogs.session_timer import STEP
from alg.exchange import Exchange, local_tag_of
from alg.failures import FAILURES, reason_of
from alg.gateway_settings import GatewaySettings
from alg.inbound import Inbound
from alg.left import BODY, CONTACT, parts_left
from alg.methods import IN_DIALOG, METHODS
from alg.new_call import begins_call, gives_way
from alg.outbound import Limits, Outbound
from alg.outside import Outside
from alg.rewrite import rewrite
from alg.sip.message import NotSip, SipMessage, parse_message
from alg.sip.span import Edit, apply_ordered
from alg.state import HostLimits, State
from alg.verdict import Direction, Outcome, Reason, Step, Verdict
from nat_table.binding import Binding, Kind
from nat_table.changes import Change, Closed
from nat_table.endpoint import TCP, UDP, Endpoint, is_ipv6
from nat_table.lease import is_left_to_clients
from nat_table.table import NatTable

log = logging.getLogger("sipnat.gateway")

MAX_REMEMBERED = 4096
COMPLAINT_INTERVAL = 10.0

# A member of an enumeration is looked up by a function of Python; a name is not.
_OUTBOUND: Final = Direction.OUTBOUND
_INBOUND: Final = Direction.INBOUND
_HAIRPIN: Final = Direction.HAIRPIN
_NO_WAY: Final = Direction.NONE
_REWRITTEN: Final = Verdict.REWRITTEN
_UNCHANGED: Final = Verdict.UNCHANGED
_EDITED: Final = Reason.REWRITTEN
_NOTHING_TO_CHANGE: Final = Reason.NOTHING_TO_CHANGE
_SIP: Final = Kind.SIP


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
        self.state = State(table, settings.call_timeouts, _host_limits(settings))
        self._next_complaint = float("-inf")
        self.is_draining = False
        self.shedding: Verdict | None = None
        self.outside = Outside()
        self.external_addresses = settings.external_addresses
        self._addresses = frozenset(each.encode("ascii") for each in self.external_addresses)
        self.configure(settings)

    def configure(self, settings: GatewaySettings) -> None:
        """Goes by these settings from now on, but for the external addresses; what stands stays."""
        self._settings = settings
        self._hands_off: dict[str, bool] = {}
        self.state.limit(settings.call_timeouts, _host_limits(settings))
        self._limits = Limits(
            frozenset(
                host.encode("ascii")
                for host in settings.media_hosts
                if self.table.external_address(host) is not None
            ),
            frozenset(host.encode("ascii") for host in settings.own_addresses),
            settings.denied_ports,
            settings.max_media_streams,
            settings.has_tcp_media,
        )

    @property
    def registration_count(self) -> int:
        """How many registrations have state."""
        return len(self.state.registrations)

    @property
    def call_count(self) -> int:
        """How many calls have state."""
        return len(self.state.calls)

    @property
    def open_call_count(self) -> int:
        """How many calls have not ended."""
        return self.state.calls.open_count

    def receive(self, datagram: Datagram, now: float) -> Outcome:
        """Decides about one datagram; never raises."""
        direction = datagram.direction
        payload = datagram.payload
        try:
            outcome = self._decide(datagram, direction, now)
        except NotSip:
            outcome = self._leave(payload, Reason.NOT_SIP)
        except FAILURES as error:
            outcome = self._leave(payload, reason_of(error), str(error))
        except Exception as error:
            self._complain(now)
            outcome = self._leave(payload, Reason.ERROR, repr(error))
        if direction is _OUTBOUND:
            outcome = self._refresh(datagram, outcome, now)
        self.counters[outcome.reason] += 1
        return outcome

    def count(self, reason: Reason) -> None:
        """Counts a packet that never became a datagram."""
        self.counters[reason] += 1

    def confirm(self, outcome: Outcome) -> None:
        """Takes note that the outcome's changes stand in the kernel."""
        self.forget_closed(outcome.changes)

    def roll_back(self, outcome: Outcome, detail: str = "") -> Outcome:
        """Undoes the changes of an outcome; returns the drop that takes its place.

        The sender retransmits (RFC 3261 §17.1), so a drop is a free retry.
        """
        self._revert(outcome.changes)
        self.counters[outcome.reason] -= 1
        self.counters[Reason.COMMIT_FAILED] += 1
        return Outcome(Verdict.DROPPED, Reason.COMMIT_FAILED, outcome.payload, detail=detail)

    def forget_closed(self, changes: Iterable[Change]) -> None:
        """Takes note that these changes stand in the kernel."""
        for change in changes:
            if isinstance(change, Closed):
                self.state.written.forget(change.binding)

    def next_timer(self) -> float | None:
        """Returns when `handle_timer` has something to do, at the earliest."""
        return self.state.next_deadline()

    def handle_timer(self, now: float) -> tuple[Change, ...]:
        """Lets go of what has expired; returns the changes that the kernel must follow.

        After so many there may be more: `next_timer` tells.
        """
        self.state.expire(now)
        changes = tuple(self.table.take_changes())
        self.forget_closed(changes)
        return changes

    def calls_to_review(self, now: float) -> list[Binding]:
        """Returns the media bindings of calls that end within a minute, unless they flow."""
        return self.state.calls.to_review(now)

    def keep_calls(self, flowing: Set[Endpoint] | None, now: float) -> tuple[Change, ...]:
        """Keeps those calls to review of which one of these internal endpoints has media.

        None keeps them all, for where nobody can tell. Returns the changes, as `handle_timer` does.
        """
        self.state.calls.keep_flowing(self.table, flowing, now)
        return tuple(self.table.take_changes())

    def registered(self) -> list[tuple[Endpoint, Endpoint]]:
        """Returns the internal and external endpoints that phones have registered."""
        registered = self.state.registrations.registered()
        return [(binding.internal, binding.external) for binding in registered]

    def move_address(self, old: str, new: str, moved: Mapping[Binding, Binding]) -> None:
        """Follows the external address to another one, once the table has.

        `moved` has the new binding for every old one; what is not in it stays.
        """
        self.external_addresses = tuple(
            new if each == old else each for each in self.external_addresses
        )
        self._addresses = frozenset(each.encode("ascii") for each in self.external_addresses)
        self.state.move(old, moved)

    def take_touched(
        self, *, has_all: bool = False
    ) -> Iterator[tuple[tuple[str, str], bytes | None]]:
        """Yields rows, by kind and name: of all there is, or of what has changed since last time.

        None stands for what is gone. The first time that is everything too, unless `restore` was
        called before. Messages may be received between two rows.
        """
        return self.state.take_rows(has_all=has_all)

    def restore(self, rows: Mapping[tuple[str, str], bytes], now: float) -> None:
        """Takes rows back, against the bindings that the table has by now."""
        self.state.put_rows(rows, now)

    def _complain(self, now: float) -> None:
        """Logs an error of our own, but not once a packet."""
        if now >= self._next_complaint:
            self._next_complaint = now + COMPLAINT_INTERVAL
            log.exception("a packet was passed unmodified because of an error in sipnat")

    def _leave(self, payload: bytes, reason: Reason, detail: str = "") -> Outcome:
        """Lets a packet pass as it came; whatever was bound for it is undone."""
        self._revert(self.table.take_changes())
        return Outcome(_UNCHANGED, reason, payload, detail=detail)

    def _revert(self, changes: Sequence[Change]) -> None:
        if changes:
            self.table.revert(changes)
            self.state.calls.rewrite()

    def _decide(self, datagram: Datagram, direction: Direction, now: float) -> Outcome:
        payload = datagram.payload
        sender = datagram.source[0]
        if direction is _NO_WAY or sender in self.external_addresses:
            return self._leave(payload, Reason.NOT_TRANSLATED)
        if sender in self._settings.own_addresses:
            return self._leave(payload, Reason.OWN_ADDRESS)
        remote = datagram.destination if direction is _OUTBOUND else datagram.source
        if self.outside.passes(remote[0]) or self._is_left(remote[0]):
            return self._leave(payload, Reason.HANDS_OFF)
        if len(payload) > self._settings.max_message:
            return self._leave(payload, Reason.TOO_LARGE)
        if (not payload or payload[0] <= 32) and not payload.strip(b"\r\n\0 "):
            return Outcome(_UNCHANGED, Reason.KEEPALIVE, payload)
        message = parse_message(payload)
        if self.is_draining and begins_call(self.state, message, datagram):
            return Outcome(Verdict.DROPPED, Reason.DRAINING, payload)
        if self.shedding is not None and gives_way(self.state, message, datagram, self.shedding):
            return Outcome(self.shedding, Reason.OVERLOAD, payload)
        edits: list[Edit] = []
        steps: list[Step] = []
        left, reason = parts_left(message)
        if direction is _HAIRPIN and self._is_near(sender, datagram.destination[0]):
            left |= BODY
        if direction is not _INBOUND:
            edits = self._outbound(message, datagram, left, steps, now)
        if direction is not _OUTBOUND:
            edits += self._inbound(message, datagram, left, steps, now)
        changes = tuple(self.table.take_changes())
        if edits:
            edits.sort()
            payload = apply_ordered(payload, edits)
        elif reason is _EDITED:
            reason = _NOTHING_TO_CHANGE
        verdict = _REWRITTEN if edits else _UNCHANGED
        return Outcome(verdict, reason, payload, tuple(edits), changes, steps=tuple(steps))

    def _outbound(
        self,
        message: SipMessage,
        datagram: Datagram,
        left: frozenset[str],
        steps: list[Step],
        now: float,
    ) -> list[Edit]:
        source = datagram.source
        host, tag = source[0], local_tag_of(message, True)
        calls = self.state.calls
        call = calls.find(host, message.call_id, tag)
        owner = owner_of(CallKey(host, message.call_id, tag)) if call is None else call.owner
        remembered = None
        if call is not None and call.is_ended and (message.to_tag or not message.is_request):
            remembered = call.media.mapped
        mappings = Outbound(
            self.table,
            datagram.transport,
            source,
            self._limits,
            self._addresses_of(host),
            self.state.written,
            self._masqueraded,
            now=now,
            flow_until=self._flow_until(now),
            owner=owner,
            media_until=calls.deadline(call, now),
            is_answer=not message.is_request or message.method == b"ACK",
            remembered=remembered,
        )
        seen = self.outside.seen_from(datagram.destination.address, mappings)
        edits = rewrite(message, seen, _OUTBOUND, left)
        if datagram.transport is UDP:
            standing = self.table.look_up_internal(UDP, source)
            if standing is not None and not self.table.is_leased(standing):
                mappings.notes.come_from(standing)
        remote = datagram.destination
        self._follow(Exchange(message, host, call, remote, True, now, mappings.notes, steps))
        return edits

    def _inbound(
        self,
        message: SipMessage,
        datagram: Datagram,
        left: frozenset[str],
        steps: list[Step],
        now: float,
    ) -> list[Edit]:
        receiver = datagram.destination
        host, written = receiver[0], self.state.written
        known = self._addresses_of(host)
        mappings = Inbound(self.table, datagram.transport, receiver, known, written, self._is_near)
        seen = self.outside.seen_from(datagram.source.address, mappings)
        edits = rewrite(message, seen, _INBOUND, left - CONTACT)
        remote = datagram.source
        call = self.state.calls.find(host, message.call_id, local_tag_of(message, False))
        self._follow(Exchange(message, host, call, remote, False, now, mappings.notes, steps))
        return edits

    def _follow(self, exchange: Exchange) -> None:
        """Lets registrations and calls follow what a rewritten message means for them."""
        message = exchange.message
        on_request, on_response = METHODS.get(message.method, IN_DIALOG)
        handler = on_request if message.is_request else on_response
        handler(self.state, exchange)

    def _refresh(self, datagram: Datagram, outcome: Outcome, now: float) -> Outcome:
        """Keeps the sender's signalling mapping, whatever it sent (RFC 4787 REQ-6).

        Keepalives, STUN and requests that name nobody hold a mapping as well as any message. What a
        connection comes from is mapped for as long as the connection lasts, and what a client has
        asked for as long as it asked, unless signalling has needed it before.
        """
        if datagram.transport is TCP:
            return outcome
        standing = self.table.look_up_internal(UDP, datagram.source)
        if standing is None or standing.kind is not _SIP:
            return outcome
        if self.table.is_leased(standing) and is_left_to_clients(self.table.pinholes(standing)):
            return outcome
        until = self._flow_until(now)
        self.table.bind(UDP, datagram.source, _SIP, FLOW, now=now, expires_at=until)
        changes = self.table.take_changes()
        outcome.changes += tuple(changes)
        return outcome

    def _addresses_of(self, host: str) -> frozenset[bytes]:
        """Returns the external addresses that may stand for a host, its own computed one too."""
        if not is_ipv6(host):
            return self._addresses
        computed = self.table.external_address(host)
        return self._addresses if computed is None else self._addresses | {computed.encode("ascii")}

    def _is_left(self, address: str) -> bool:
        """Whether the administrator leaves the NAT traversal of this server to the server."""
        networks = self._settings.hands_off
        known = self._hands_off.get(address) if networks else False
        if known is None:
            if len(self._hands_off) >= MAX_REMEMBERED:
                self._hands_off.clear()
            known = any(ip_address(address) in network for network in networks)
            self._hands_off[address] = known
        return known

    def _is_near(self, one: str, other: str) -> bool:
        """Whether two internal hosts may send each other media without the gateway."""
        settings = self._settings
        if not settings.has_direct_media:
            return False
        networks, ends = settings.internal_networks, (ip_address(one), ip_address(other))
        if not networks:
            return ends[0].version == ends[1].version
        return any(all(end in network for end in ends) for network in networks)

    def _flow_until(self, now: float) -> float:
        """Returns the deadline of plain traffic, in steps, so that few packets move it."""
        return (now // STEP + 1) * STEP + self._settings.flow_timeout


def _host_limits(settings: GatewaySettings) -> HostLimits:
    return HostLimits(
        settings.max_calls_per_host,
        settings.max_unanswered_per_host,
        settings.max_registrations_per_host,
    )
