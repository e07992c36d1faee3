"""Which messages begin a call: what a gateway that is draining turns away.

An INVITE without a To tag does, unless the gateway knows its call: it is sent again then, because
it was lost, or challenged (RFC 3261 §22.2). One with Replaces takes over a call that is up: an
attended transfer (RFC 3891 §4).
"""

from __future__ import annotations

import re

from alg.datagram import Datagram
from alg.dialogs.invitation import InvitationKey
from alg.exchange import call_key
from alg.sip.message import SipMessage
from alg.state import State
from alg.verdict import Direction

_REPLACES = re.compile(rb"^Replaces[ \t]*:", re.IGNORECASE | re.MULTILINE)


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
    call = state.calls.find(call_key(message, datagram.source.address, True))
    return call is None or call.is_ended
