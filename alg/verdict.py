"""What becomes of a packet, and why.

`Reason` is the counter set, the metric label and the command line's word: no verdict leaves the
gateway without one. An outcome is made for every message, as `nat_table.binding` makes its values.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from alg.sip.span import Edit
from nat_table.changes import Change


class Direction(enum.Enum):
    """Which way a datagram crosses the NAT; a hairpin goes from one internal host to another."""

    OUTBOUND = "outbound"
    INBOUND = "inbound"
    HAIRPIN = "hairpin"
    NONE = "none"

    __hash__ = object.__hash__  # as in `Transport`


class Verdict(enum.Enum):
    """What happens to the packet."""

    REWRITTEN = "rewritten"
    UNCHANGED = "unchanged"
    DROPPED = "dropped"
    HELD = "held"

    __hash__ = object.__hash__  # as in `Transport`


class Reason(enum.Enum):
    """Why a packet got its verdict."""

    REWRITTEN = "rewritten"
    NOTHING_TO_CHANGE = "nothing-to-change"
    NOT_TRANSLATED = "not-translated"
    HANDS_OFF = "hands-off"
    KEEPALIVE = "keepalive"
    NOT_SIP = "not-sip"
    NOT_UDP = "not-udp"
    TRUNCATED = "truncated"
    TOO_LARGE = "too-large"
    MALFORMED = "malformed"
    MALFORMED_SDP = "malformed-sdp"
    SIGNED = "signed"
    ENCODED_BODY = "encoded-body"
    DENIED_PORT = "denied-port"
    OWN_ADDRESS = "own-address"
    TOO_COMPLEX = "too-complex"
    NO_EXTERNAL_ADDRESS = "no-external-address"
    NO_FREE_PORT = "no-free-port"
    QUOTA = "quota"
    RATE = "rate"
    COMMIT_FAILED = "commit-failed"
    UPSTREAM = "upstream"
    DRAINING = "draining"
    OVERLOAD = "overload"
    ERROR = "error"

    # Of whole TCP connections.
    OPAQUE = "opaque"
    CONNECTION_LIMIT = "connection-limit"
    NOT_DIVERTED = "not-diverted"
    UNMAPPED = "unmapped"
    UNREACHABLE = "unreachable"

    __hash__ = object.__hash__  # as in `Transport`


class Step(enum.Enum):
    """What a message meant for the calls and registrations that the gateway follows."""

    OFFER = "offer"
    ANSWER = "answer"
    ROLLED_BACK = "rolled back"
    RINGING = "ringing"
    ANSWERED = "answered"
    ENDED = "ended"
    REFUSED = "refused"
    REGISTERED = "registered"
    UNREGISTERED = "unregistered"


@dataclass(init=False, slots=True)
class Outcome:
    """What the gateway decided about one datagram.

    `changes` must be in the kernel before `payload` leaves; `detail` says more than the reason
    where there is more to say; `steps` say what it meant.
    """

    verdict: Verdict
    reason: Reason
    payload: bytes
    edits: tuple[Edit, ...]
    changes: tuple[Change, ...]
    detail: str
    steps: tuple[Step, ...]

    def __init__(
        self,
        verdict: Verdict,
        reason: Reason,
        payload: bytes,
        edits: tuple[Edit, ...] = (),
        changes: tuple[Change, ...] = (),
        detail: str = "",
        steps: tuple[Step, ...] = (),
    ) -> None:
        self.verdict = verdict
        self.reason = reason
        self.payload = payload
        self.edits = edits
        self.changes = changes
        self.detail = detail
        self.steps = steps
