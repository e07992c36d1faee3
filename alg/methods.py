"""What each method does to registrations and calls, after the message has been rewritten.

`METHODS[method]` is a pair: what a request does, what a response does; a method that is not here
changes no state and is rewritten by the general rules. A handler sees an `Exchange`: the message,
who the internal phone is and which way the message goes.

The tags of a dialog are turned to the phone's point of view: the phone's own is the From tag of a
request it sends and of the responses to it, and the To tag of everything the other way round.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from alg.dialogs.dialog import Call, CallKey, Calls
from alg.dialogs.registration import DEFAULT_EXPIRES, Answer, Asked, Registrations
from alg.dialogs.states import DialogEvent
from alg.mappings import Notes
from alg.sip.message import SipMessage
from nat_table.table import NatTable


@dataclass(slots=True)
class State:
    """Everything the gateway remembers beside the bytes of the message in hand."""

    table: NatTable
    registrations: Registrations
    subscriptions: Registrations
    calls: Calls


@dataclass(slots=True)
class Exchange:
    """One message between an internal phone and the outside."""

    message: SipMessage
    host: str
    is_outbound: bool
    now: float
    notes: Notes

    @property
    def key(self) -> CallKey:
        """The phone's call that the message belongs to."""
        return call_key(self.message, self.host, self.is_outbound)

    @property
    def remote_tag(self) -> bytes:
        """The other party's tag; b"" in a request that begins a dialog."""
        message = self.message
        return message.to_tag if self.is_outbound == message.is_request else message.from_tag


def call_key(message: SipMessage, host: str, is_outbound: bool) -> CallKey:
    """Returns the key of the phone's call; its tag is b"" until the phone has answered."""
    is_client = is_outbound == message.is_request
    return CallKey(host, message.call_id, message.from_tag if is_client else message.to_tag)


def _ask(registrations: Registrations, exchange: Exchange) -> None:
    """Notes what a REGISTER or SUBSCRIBE asks for."""
    if not exchange.is_outbound:
        return
    message, notes = exchange.message, exchange.notes
    asked = notes.lifetimes(_expires(message))
    registrations.ask(
        exchange.host, message.call_id, message.cseq, Asked(asked, notes.is_wildcard), exchange.now
    )


def _grant(state: State, registrations: Registrations, exchange: Exchange) -> None:
    """Takes in what the answer to a REGISTER or SUBSCRIBE grants."""
    message = exchange.message
    if exchange.is_outbound or message.status < 200:
        return
    granted = _expires(message)
    registrations.answer(
        state.table,
        Answer(exchange.host, message.call_id, message.cseq, message.status),
        exchange.notes.lifetimes(granted),
        granted,
        exchange.now,
    )


def _expires(message: SipMessage) -> int:
    """Returns what the Expires field says, or means by its absence, in seconds."""
    seconds = message.seconds("expires")
    return DEFAULT_EXPIRES if seconds is None else seconds


def _register_request(state: State, exchange: Exchange) -> None:
    _ask(state.registrations, exchange)


def _register_response(state: State, exchange: Exchange) -> None:
    _grant(state, state.registrations, exchange)


def _subscribe_request(state: State, exchange: Exchange) -> None:
    _ask(state.subscriptions, exchange)


def _subscribe_response(state: State, exchange: Exchange) -> None:
    _grant(state, state.subscriptions, exchange)


def _offer_request(state: State, exchange: Exchange) -> None:
    """Notes the offer of an INVITE, UPDATE, PRACK or INFO that the phone sends (RFC 3264 §4)."""
    if not exchange.is_outbound:
        return
    message, calls = exchange.message, state.calls
    media = exchange.notes.media_bindings()
    if not media and message.method != b"INVITE":
        return
    call = calls.open(exchange.key)
    if call.is_ended:
        return
    _take_in(call, exchange.notes)
    if media:
        calls.let_go(state.table, call, call.media.offer(message.cseq, media), exchange.now)
    if not call.is_confirmed:
        until = max(call.expires_at, exchange.now + calls.timeouts.transaction)
        calls.keep(state.table, call, until)


def _offer_response(state: State, exchange: Exchange) -> None:
    """Settles what a 2xx answers or a failure refuses; the phone's own answers count at once."""
    message, calls = exchange.message, state.calls
    call = calls.find(exchange.key)
    if call is None or call.is_ended:
        return
    if exchange.is_outbound:
        _answer(state, call, exchange)
    elif message.status >= 300:
        calls.let_go(state.table, call, call.media.refuse(message.cseq), exchange.now)
    elif message.status >= 200:
        calls.let_go(state.table, call, call.media.accept(message.cseq), exchange.now)


def _answer(state: State, call: Call, exchange: Exchange) -> None:
    """Takes in the description that the phone wrote into a response or an ACK."""
    media = exchange.notes.media_bindings()
    if not media or call.is_ended:
        return
    _take_in(call, exchange.notes)
    if exchange.message.status < 200 and not exchange.message.is_request:
        call.media.preview(media)
    else:
        state.calls.let_go(state.table, call, call.media.settle(media), exchange.now)
    state.calls.keep(state.table, call, max(call.expires_at, exchange.now))


def _take_in(call: Call, notes: Notes) -> None:
    """Lets the call keep the signalling mappings of a message, and remember its media's."""
    call.signalling.update(dict.fromkeys(notes.signalling.values()))
    call.media.remember(notes.media)


def _invite_response(state: State, exchange: Exchange) -> None:
    message, calls = exchange.message, state.calls
    if message.status == 100:
        return
    key = exchange.key
    call = calls.find(key)
    if exchange.is_outbound and call is None and message.status < 300 and key.local_tag:
        call = calls.open(key)
    if call is None or call.is_ended:
        return
    remote_tag = exchange.remote_tag
    if message.status >= 300:
        _invite_failure(state, call, exchange)
        return
    if exchange.is_outbound:
        _answer(state, call, exchange)
    elif message.status >= 200:
        calls.let_go(state.table, call, call.media.accept(message.cseq), exchange.now)
    event = DialogEvent.ACCEPTED if message.status >= 200 else DialogEvent.PROVISIONAL
    calls.happen(state.table, call, remote_tag, event, exchange.now)


def _invite_failure(state: State, call: Call, exchange: Exchange) -> None:
    """Rolls a re-INVITE back, or ends a call that was never answered.

    A challenge is not the end: the phone will ask again, with credentials and the same ports.
    """
    status, calls = exchange.message.status, state.calls
    if call.is_confirmed:
        if not exchange.is_outbound:
            unused = call.media.refuse(exchange.message.cseq)
            calls.let_go(state.table, call, unused, exchange.now)
    elif status in (401, 407):
        calls.keep(state.table, call, exchange.now + calls.timeouts.transaction)
    else:
        calls.refuse(state.table, call, exchange.now)


def _ack_request(state: State, exchange: Exchange) -> None:
    """Settles the answer that an ACK carries when the 2xx made the offer (RFC 3261 §13.2.1)."""
    call = state.calls.find(exchange.key)
    if exchange.is_outbound and call is not None:
        _answer(state, call, exchange)


def _cancel_request(state: State, exchange: Exchange) -> None:
    """Gives a cancelled call the time its 487 may take, and no more (RFC 3261 §9.1)."""
    call = state.calls.find(exchange.key)
    if exchange.is_outbound and call is not None and not call.is_confirmed:
        state.calls.keep(state.table, call, exchange.now + state.calls.timeouts.transaction)


def _bye_request(state: State, exchange: Exchange) -> None:
    call = state.calls.find(exchange.key)
    if call is not None and exchange.remote_tag in call.dialogs:
        state.calls.happen(state.table, call, exchange.remote_tag, DialogEvent.BYE, exchange.now)


def _bye_response(state: State, exchange: Exchange) -> None:
    status = exchange.message.status
    call = state.calls.find(exchange.key)
    if call is None or status < 200 or exchange.remote_tag not in call.dialogs:
        return
    is_challenge = status in (401, 407)
    event = DialogEvent.BYE_CHALLENGED if is_challenge else DialogEvent.BYE_ANSWERED
    state.calls.happen(state.table, call, exchange.remote_tag, event, exchange.now)


def _nothing(state: State, exchange: Exchange) -> None:
    """Changes no state."""


Handler = Callable[[State, Exchange], None]

METHODS: dict[bytes, tuple[Handler, Handler]] = {
    b"REGISTER": (_register_request, _register_response),
    b"SUBSCRIBE": (_subscribe_request, _subscribe_response),
    b"INVITE": (_offer_request, _invite_response),
    b"ACK": (_ack_request, _nothing),
    b"CANCEL": (_cancel_request, _nothing),
    b"BYE": (_bye_request, _bye_response),
    b"UPDATE": (_offer_request, _offer_response),
    b"PRACK": (_offer_request, _offer_response),
    b"INFO": (_offer_request, _offer_response),
}
