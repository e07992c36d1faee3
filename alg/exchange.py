"""One message between an internal phone and a remote, as the dialogs see it.

The tags of a dialog are turned to the phone's point of view: the phone's own is the From tag of a
request it sends and of the responses to it, and the To tag of everything the other way round.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from alg.dialogs.call import CallKey
from alg.dialogs.grants import RegistrationKey
from alg.dialogs.offer_answer import RequestId
from alg.dialogs.registration import RequestSent
from alg.notes import Notes
from alg.sip.message import SipMessage
from alg.verdict import Step
from nat_table.endpoint import Endpoint


@dataclass(slots=True)
class Exchange:
    """One message between an internal phone and a remote; `key` is the phone's call.

    `is_client` says that the phone has sent the request that this is, or that this answers;
    `remote_tag` is the other party's, b"" in a request that begins a dialog. `steps` takes what the
    message meant.
    """

    message: SipMessage
    key: CallKey
    remote: Endpoint
    is_outbound: bool
    now: float
    notes: Notes
    steps: list[Step]
    is_client: bool = field(init=False)
    remote_tag: bytes = field(init=False)

    def __post_init__(self) -> None:
        message = self.message
        self.is_client = self.is_outbound == message.is_request
        self.remote_tag = message.to_tag if self.is_client else message.from_tag

    @property
    def request(self) -> RequestId:
        """The request that this is, or that this answers."""
        return RequestId(b"" if self.is_client else self.remote_tag, self.message.cseq)

    @property
    def registration(self) -> RegistrationKey:
        """The phone's registration or subscription that the message belongs to."""
        return RegistrationKey(self.key.host, self.message.call_id)

    @property
    def sent(self) -> RequestSent:
        """What tells which request this is, or answers, and where it went or came from."""
        return RequestSent(self.message.cseq, self.message.branch, self.remote)

    def step(self, step: Step) -> None:
        """Notes what the message meant, once where that holds for both phones of a hairpin."""
        if step not in self.steps:
            self.steps.append(step)


def call_key(message: SipMessage, host: str, is_outbound: bool) -> CallKey:
    """Returns the key of the phone's call; its tag is b"" until the phone has answered."""
    is_client = is_outbound == message.is_request
    return CallKey(host, message.call_id, message.from_tag if is_client else message.to_tag)
