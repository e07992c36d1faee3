"""How a call began: when, from which side, and whom From and To name.

Kept for whoever looks at calls. Nothing is decided by it.
"""

from __future__ import annotations

from typing import NamedTuple

from alg.sip.message import SipMessage


class Origin(NamedTuple):
    """When the first message came, in seconds, and the addr-specs of its From and To.

    `begun_at` is None of a call that an earlier release has stored.
    """

    begun_at: float | None = None
    is_inbound: bool = False
    caller: str = ""
    callee: str = ""


NO_ORIGIN = Origin()


def origin_of(message: SipMessage, is_inbound: bool, begun_at: float | None) -> Origin:
    """Returns how a call began, by its INVITE or by an answer to that."""
    return Origin(begun_at, is_inbound, message.addr_spec("from"), message.addr_spec("to"))
