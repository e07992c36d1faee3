"""One message between an internal phone and a remote, as the dialogs see it.

The tags of a dialog are turned to the phone's point of view: the phone's own is the From tag of a
request it sends and of the responses to it, and the To tag of everything the other way round.
"""

from __future__ import annotations

from alg.dialogs.call import Call, CallKey
from alg.dialogs.grants import RegistrationKey
from alg.dialogs.offer_answer import RequestId
from alg.dialogs.request_sent import RequestSent
from alg.notes import Notes
from alg.sip.message import SipMessage
from alg.verdict import Step
from nat_table.endpoint import Endpoint


class Exchange:
    """One message between an internal phone and a remote.

    `call` is the phone's, None where it has none yet; `is_client` says that the phone has sent the
    request that this is, or that this answers; `request` names that one. `remote_tag` is the other
    party's, b"" in a request that begins a dialog. `steps` takes what the message meant.
    """

    __slots__ = (
        "call",
        "host",
        "is_client",
        "is_outbound",
        "local_tag",
        "message",
        "notes",
        "now",
        "remote",
        "remote_tag",
        "request",
        "steps",
    )

    def __init__(
        self,
        message: SipMessage,
        host: str,
        call: Call | None,
        remote: Endpoint,
        is_outbound: bool,
        now: float,
        notes: Notes,
        steps: list[Step],
    ) -> None:
        self.message = message
        self.host = host
        self.call = call
        self.remote = remote
        self.is_outbound = is_outbound
        self.now = now
        self.notes = notes
        self.steps = steps
        self.is_client = is_outbound == message.is_request
        self.request: RequestId
        if self.is_client:
            self.local_tag = message.from_tag
            self.remote_tag = message.to_tag
            self.request = (b"", message.cseq)
        else:
            self.local_tag = message.to_tag
            self.remote_tag = message.from_tag
            self.request = (message.from_tag, message.cseq)

    @property
    def key(self) -> CallKey:
        """The key of the phone's call; its tag is b"" until the phone has answered."""
        return CallKey(self.host, self.message.call_id, self.local_tag)

    @property
    def registration(self) -> RegistrationKey:
        """The phone's registration or subscription that the message belongs to."""
        return RegistrationKey(self.host, self.message.call_id)

    @property
    def sent(self) -> RequestSent:
        """What tells which request this is, or answers, and where it went or came from."""
        return RequestSent(self.message.cseq, self.message.branch, self.remote)

    def step(self, step: Step) -> None:
        """Notes what the message meant, once where that holds for both phones of a hairpin."""
        if step not in self.steps:
            self.steps.append(step)


def local_tag_of(message: SipMessage, is_outbound: bool) -> bytes:
    """Returns the tag of the phone, b"" until it has answered."""
    return message.from_tag if is_outbound == message.is_request else message.to_tag
