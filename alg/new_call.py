"""Which messages begin a call: what a gateway that is draining turns away, or that is overloaded.

An INVITE without a To tag does, unless the gateway knows its call: it is sent again then, because
it was lost, or challenged (RFC 3261 §22.2). One with Replaces takes over a call that is up: an
attended transfer (RFC 3891 §4).

Under overload any other request that begins something gives way too. Where such an INVITE passes as
it came its call is not known, and the rest of the call passes like it, for it costs as much.
"""

from __future__ import annotations

import re

from alg.datagram import Datagram
from alg.dialogs.invitation import InvitationKey
from alg.exchange import local_tag_of
from alg.sip.message import SipMessage
from alg.state import State
from alg.verdict import Direction, Verdict
from nat_table.endpoint import UDP

_REPLACES = re.compile(rb"^Replaces[ \t]*:", re.IGNORECASE | re.MULTILINE)

_OF_CALLS = frozenset((b"INVITE", b"ACK", b"BYE", b"CANCEL", b"PRACK", b"UPDATE"))


def begins_call(state: State, message: SipMessage, datagram: Datagram) -> bool:
    """Tells whether a message begins a call that the gateway does not know yet."""
    if message.method != b"INVITE" or not message.is_request or message.to_tag:
        return False
    if _REPLACES.search(message.data, 0, message.headers_end):
        return False
    if datagram.direction is Direction.INBOUND:
        host = datagram.destination.address
        invitation = InvitationKey(host, message.call_id, message.from_tag)
        return state.invitations.find(invitation) is None
    host, tag = datagram.source.address, local_tag_of(message, True)
    call = state.calls.find(host, message.call_id, tag)
    return call is None or call.is_ended


def gives_way(state: State, message: SipMessage, datagram: Datagram, verdict: Verdict) -> bool:
    """Tells whether a message is left aside, with this verdict, while there are too many.

    What comes by TCP is not: a connection slows its sender down.
    """
    if datagram.transport is not UDP:
        return False
    if message.method == b"INVITE" and message.is_request and not message.to_tag:
        return begins_call(state, message, datagram)
    if message.method in _OF_CALLS:
        return verdict is Verdict.UNCHANGED and not _is_known(state, message, datagram)
    return message.is_request and not message.to_tag


def _is_known(state: State, message: SipMessage, datagram: Datagram) -> bool:
    """Tells whether a message is of a call, or an invitation, that the gateway knows."""
    is_outbound = datagram.direction is not Direction.INBOUND
    host = (datagram.source if is_outbound else datagram.destination).address
    if state.calls.find(host, message.call_id, local_tag_of(message, is_outbound)) is not None:
        return True
    is_client = is_outbound == message.is_request
    remote_tag = message.to_tag if is_client else message.from_tag
    return state.invitations.find(InvitationKey(host, message.call_id, remote_tag)) is not None
