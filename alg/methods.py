"""What each method does to registrations, subscriptions and calls, after the message is rewritten.

`METHODS[method]` is a pair: what a request does, what a response does; a method that is not here
only tells a call that it is alive. A handler sees an `Exchange`, and notes there which steps the
message was.

What the phone sends is believed, for it speaks of itself. What comes from outside moves a call's
state as the phone will move its own; but to end a call, or to say where media may come from, it
must come from a peer of the call (`dialogs.peers`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from alg.dialogs.call import Call
from alg.dialogs.invitation import Invitation, InvitationKey
from alg.dialogs.origin import origin_of
from alg.dialogs.peers import join_peers, named_peers
from alg.dialogs.registration import DEFAULT_EXPIRES, Asked
from alg.dialogs.session_timer import session_interval
from alg.dialogs.states import (
    ACCEPTED,
    BYE,
    BYE_ANSWERED,
    BYE_CHALLENGED,
    CONFIRMED,
    PROVISIONAL,
    DialogEvent,
)
from alg.dialogs.subscription import REFER_EXPIRES, parse_state
from alg.exchange import Exchange
from alg.sip.message import SipMessage
from alg.state import State
from alg.verdict import Step

# The same by themselves, as with `Transport`.
_OFFER: Final = Step.OFFER
_ANSWER: Final = Step.ANSWER
_ROLLED_BACK: Final = Step.ROLLED_BACK
_REFUSED: Final = Step.REFUSED


def _expires(message: SipMessage) -> int:
    """Returns what the Expires field says, or means by its absence, in seconds."""
    seconds = message.seconds("expires")
    return DEFAULT_EXPIRES if seconds is None else seconds


def _register_request(state: State, exchange: Exchange) -> None:
    if exchange.is_outbound:
        notes = exchange.notes
        lifetimes = notes.lifetimes(_expires(exchange.message))
        user = exchange.message.addr_spec("to")
        asked = Asked(exchange.sent, lifetimes, notes.is_wildcard, user)
        state.registrations.ask(exchange.registration, asked, exchange.now)


def _register_response(state: State, exchange: Exchange) -> None:
    message = exchange.message
    if exchange.is_outbound or message.status < 200:
        return
    granted = _expires(message)
    step = state.registrations.answer(
        state.table,
        exchange.registration,
        exchange.sent,
        message.status,
        exchange.notes.lifetimes(granted),
        granted,
        exchange.now,
    )
    if step is not None:
        exchange.step(step)


def _subscribe_request(state: State, exchange: Exchange) -> None:
    if exchange.is_outbound:
        contacts = exchange.notes.contacts
        state.subscriptions.ask(exchange.registration, exchange.sent, contacts, exchange.now)
    _in_dialog(state, exchange)


def _subscribe_response(state: State, exchange: Exchange) -> None:
    """Grants or refuses; a REFER does not say for how long (RFC 3515 §2.4.4)."""
    message, key, now = exchange.message, exchange.registration, exchange.now
    is_granted = 200 <= message.status < 300
    seconds = REFER_EXPIRES if message.method == b"REFER" else _expires(message)
    if exchange.is_outbound and is_granted:
        contacts = exchange.notes.contacts
        state.subscriptions.accept(state.table, key, exchange.remote, contacts, seconds, now)
    elif not exchange.is_outbound and message.status >= 200:
        state.subscriptions.answer(
            state.table,
            key,
            exchange.sent,
            seconds if is_granted else None,
            named_peers(message, exchange.remote),
            now,
        )
    _in_dialog(state, exchange)


def _notify_request(state: State, exchange: Exchange) -> None:
    message = exchange.message
    notified = parse_state(message)
    if notified is not None:
        is_outbound = exchange.is_outbound
        state.subscriptions.notify(
            state.table,
            exchange.registration,
            None if is_outbound else exchange.remote,
            notified,
            () if is_outbound else named_peers(message, exchange.remote),
            exchange.now,
        )
    _in_dialog(state, exchange)


def _hear(state: State, exchange: Exchange, call: Call) -> bool:
    """Takes in who speaks, and that the call is alive; returns whether the speaker is believed."""
    message, notes = exchange.message, exchange.notes
    if exchange.is_outbound:
        for binding in notes.signalling.values():
            call.hear_at(binding)
        for binding in notes.contacts:
            call.hear_at(binding)
        if notes.media:
            call.media.remember(notes.media)
        if message.is_request or (message.method == b"INVITE" and message.status < 300):
            call.meet((exchange.remote,))
    elif not call.knows(exchange.remote[0]):
        return False
    else:
        call.meet(named_peers(message, exchange.remote))
    if call.is_in_use and call.interval is None:
        state.calls.prolong(call, exchange.now)
    return True


def _in_dialog(state: State, exchange: Exchange) -> None:
    """Lets a call know that it is alive."""
    call = exchange.call
    if call is not None and not call.is_ended and _hear(state, exchange, call):
        state.calls.update(state.table, call, exchange.now, exchange.notes.media)


def _describe(exchange: Exchange, call: Call, until: float | None) -> None:
    """Takes in the message's description, where it has one; `until` is None in a final answer."""
    message, notes = exchange.message, exchange.notes
    if notes.lines:
        is_answer = call.media.describe(
            exchange.remote_tag,
            exchange.is_outbound,
            exchange.request,
            notes.lines,
            notes.media,
            until,
        )
        is_offer = message.is_request and message.method in (b"INVITE", b"UPDATE")
        exchange.step(_OFFER if is_offer or not is_answer else _ANSWER)


def _offer_request(state: State, exchange: Exchange) -> None:
    """Notes the offer of an INVITE, UPDATE, PRACK or INFO (RFC 3264 §4)."""
    message, calls, now = exchange.message, state.calls, exchange.now
    is_invite = message.method == b"INVITE"
    until = now + calls.timeouts.transaction
    call = exchange.call
    if exchange.is_outbound and (call is None or (call.is_ended and not message.to_tag)):
        if exchange.notes.media or is_invite:
            call = calls.open(exchange.key, origin_of(message, False, now))
    elif is_invite and not exchange.is_outbound and not message.to_tag:
        _invite(state, exchange)
    if call is None or call.is_ended:
        return
    if _hear(state, exchange, call):
        _describe(exchange, call, until)
    if not call.is_confirmed and exchange.is_outbound:
        call.expires_at = max(call.expires_at, until)
        if is_invite:
            call.attempt(exchange.sent)
    calls.update(state.table, call, now, exchange.notes.media)


def _invite(state: State, exchange: Exchange) -> None:
    """Notes what an INVITE from outside says, for when the phone answers it."""
    message = exchange.message
    if exchange.notes.lines:
        exchange.step(_OFFER)
    state.invitations.note(
        InvitationKey(exchange.host, message.call_id, message.from_tag),
        Invitation(
            message.cseq,
            tuple(exchange.notes.lines),
            join_peers((exchange.remote,), named_peers(message, exchange.remote)),
            exchange.now + state.calls.timeouts.ringing,
            exchange.now,
        ),
    )


def _offer_response(state: State, exchange: Exchange) -> None:
    """Settles what a 2xx answers or a failure refuses."""
    call = exchange.call
    if call is None or call.is_ended:
        return
    is_believed = _hear(state, exchange, call)
    _answer(state, exchange, call, is_believed)
    if 200 <= exchange.message.status < 300 and exchange.message.method == b"UPDATE":
        _follow_timer(state, exchange, call, is_believed)
    state.calls.update(state.table, call, exchange.now, exchange.notes.media)


def _answer(state: State, exchange: Exchange, call: Call, is_believed: bool) -> None:
    """Takes in what a response means for the offer of its request, and its own description."""
    status, tag, request = exchange.message.status, exchange.remote_tag, exchange.request
    until = exchange.now + state.calls.timeouts.ringing
    if status >= 300:
        if call.media.refuse(tag, request):
            exchange.step(_ROLLED_BACK)
        return
    if is_believed:
        _describe(exchange, call, until if status < 200 else None)
    if status < 200:
        call.media.prolong(tag, request, until)
    else:
        call.media.accept(tag, request)


def _follow_timer(state: State, exchange: Exchange, call: Call, is_believed: bool) -> None:
    """Takes in the session timer of a 2xx to INVITE or UPDATE (RFC 4028 §7.2, §9)."""
    if is_believed and call.is_in_use:
        call.interval = session_interval(exchange.message)
        state.calls.prolong(call, exchange.now)


def _invite_response(state: State, exchange: Exchange) -> None:
    message, calls, now = exchange.message, state.calls, exchange.now
    call, status = exchange.call, message.status
    if exchange.is_outbound:
        call = _take_up(state, exchange, call)
    if call is None or call.is_ended:
        return
    is_believed = _hear(state, exchange, call)
    if status >= 300 and not call.is_confirmed:
        if not exchange.is_client or call.fail(exchange.sent):
            if status not in (401, 407):
                exchange.step(_REFUSED)
                calls.refuse(state.table, call, now)
                return
            call.expires_at = now + calls.timeouts.transaction
    else:
        _answer(state, exchange, call, is_believed)
    if status == 100 and not call.is_confirmed:
        call.expires_at = max(call.expires_at, now + calls.timeouts.ringing)
    if 100 < status < 300:
        event = ACCEPTED if status >= 200 else PROVISIONAL
        _happen(state, exchange, call, event)
    if 200 <= status < 300:
        _follow_timer(state, exchange, call, is_believed)
    calls.update(state.table, call, now, exchange.notes.media)


def _take_up(state: State, exchange: Exchange, call: Call | None) -> Call | None:
    """Returns the call that the phone's answer to an INVITE begins, or belongs to."""
    message = exchange.message
    invited = InvitationKey(exchange.host, message.call_id, message.from_tag)
    if call is None and message.status < 300 and exchange.local_tag:
        invitation = state.invitations.find(invited)
        begun_at = exchange.now if invitation is None else invitation.begun_at
        call = state.calls.open(exchange.key, origin_of(message, True, begun_at))
        if invitation is not None and invitation.cseq == message.cseq:
            until = exchange.now + state.calls.timeouts.ringing
            call.meet(invitation.peers)
            if invitation.lines:
                call.media.describe(
                    invited.remote_tag, False, exchange.request, invitation.lines, {}, until
                )
    if message.status >= 200:
        state.invitations.drop(invited)
        if call is None:
            exchange.step(_REFUSED)
    return call


def _ack_request(state: State, exchange: Exchange) -> None:
    """Settles the answer that an ACK carries when the 2xx made the offer (RFC 3261 §13.2.1)."""
    call = exchange.call
    if call is None or call.is_ended:
        return
    if _hear(state, exchange, call):
        _describe(exchange, call, None)
    state.calls.update(state.table, call, exchange.now, exchange.notes.media)


def _cancel_request(state: State, exchange: Exchange) -> None:
    """Gives a cancelled call the time its 487 may take, and no more (RFC 3261 §9.1)."""
    call = exchange.call
    if exchange.is_outbound and call is not None and not call.is_confirmed and not call.is_ended:
        call.expires_at = exchange.now + state.calls.timeouts.transaction
        state.calls.update(state.table, call, exchange.now)


def _bye_request(state: State, exchange: Exchange) -> None:
    _hang_up(state, exchange, BYE)


def _bye_response(state: State, exchange: Exchange) -> None:
    """Ends the dialog; what the phone accepts though the BYE was not believed is only doubted."""
    status = exchange.message.status
    if status >= 200:
        is_challenge = status in (401, 407)
        event = BYE_CHALLENGED if is_challenge else BYE_ANSWERED
        _hang_up(state, exchange, event)
    if exchange.is_outbound and 200 <= status < 300:
        call = exchange.call
        if call is not None and call.dialogs.get(exchange.remote_tag) is CONFIRMED:
            state.calls.doubt(state.table, call, exchange.now)


def _hang_up(state: State, exchange: Exchange, event: DialogEvent) -> None:
    """Moves the dialog of a BYE on, if both its tags and where it comes from are the dialog's."""
    call = exchange.call
    if call is None or call.is_ended or exchange.remote_tag not in call.dialogs:
        return
    if _hear(state, exchange, call):
        _happen(state, exchange, call, event)
        state.calls.update(state.table, call, exchange.now)


def _happen(state: State, exchange: Exchange, call: Call, event: DialogEvent) -> None:
    """Moves the dialog of the message on."""
    tag = exchange.remote_tag
    before = call.dialogs.get(tag)
    state.calls.happen(state.table, call, tag, event, exchange.now)
    if call.dialogs.get(tag) is not before:
        step = _STEPS.get(event)
        if step is not None:
            exchange.step(step)


def _nothing(state: State, exchange: Exchange) -> None:
    """Changes no state."""


_STEPS = {
    PROVISIONAL: Step.RINGING,
    ACCEPTED: Step.ANSWERED,
    BYE_ANSWERED: Step.ENDED,
}

Handler = Callable[[State, Exchange], None]

METHODS: dict[bytes, tuple[Handler, Handler]] = {
    b"REGISTER": (_register_request, _register_response),
    b"SUBSCRIBE": (_subscribe_request, _subscribe_response),
    b"REFER": (_subscribe_request, _subscribe_response),
    b"NOTIFY": (_notify_request, _in_dialog),
    b"INVITE": (_offer_request, _invite_response),
    b"ACK": (_ack_request, _nothing),
    b"CANCEL": (_cancel_request, _nothing),
    b"BYE": (_bye_request, _bye_response),
    b"UPDATE": (_offer_request, _offer_response),
    b"PRACK": (_offer_request, _offer_response),
    b"INFO": (_offer_request, _offer_response),
}
IN_DIALOG: tuple[Handler, Handler] = (_in_dialog, _in_dialog)
