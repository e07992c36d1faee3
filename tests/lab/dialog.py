"""What an agent remembers of a call, so that requests within it are right (RFC 3261 §12)."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

from nat_table.endpoint import Endpoint
from tests.lab.message import Message, bare_uri, parameter


@dataclass
class Dialog:
    """One side's view of a dialog; `target` is the peer's Contact, where requests go."""

    call_id: str
    local_uri: str
    remote_uri: str
    target: str
    local_tag: str = field(default_factory=lambda: secrets.token_hex(4))
    remote_tag: str = ""
    route_set: list[str] = field(default_factory=list)
    sequence: int = 0
    invite_sequence: int = 0
    acknowledgement: tuple[bytes, Endpoint] | None = None

    def headers(self, method: str) -> list[tuple[str, str]]:
        """Returns Route, From, To, Call-ID and CSeq of the next request in this dialog."""
        if method == "ACK":
            number = self.invite_sequence
        else:
            self.sequence += 1
            number = self.sequence
        if method == "INVITE":
            self.invite_sequence = number
        to = f"<{self.remote_uri}>" + (f";tag={self.remote_tag}" if self.remote_tag else "")
        return [
            *(("Route", route) for route in self.route_set),
            ("From", f"<{self.local_uri}>;tag={self.local_tag}"),
            ("To", to),
            ("Call-ID", self.call_id),
            ("CSeq", f"{number} {method}"),
        ]


def start_dialog(local_uri: str, remote_uri: str, target: str, address: str) -> Dialog:
    """Makes the caller's side of a new dialog; the Call-ID names the host, as phones' do."""
    return Dialog(f"{secrets.token_hex(8)}@{address}", local_uri, remote_uri, target)


def confirm_dialog(dialog: Dialog, response: Message) -> None:
    """Takes the peer's tag, Contact and route set out of a response to the INVITE."""
    dialog.remote_tag = parameter(response["To"], "tag") or dialog.remote_tag
    if response["Contact"]:
        dialog.target = bare_uri(response["Contact"])
    dialog.route_set = response.all("Record-Route")[::-1]


def accept_dialog(invite: Message, known: Dialog | None) -> Dialog:
    """Makes the called side of a dialog, or moves the target of a known one (re-INVITE)."""
    target = bare_uri(invite["Contact"])
    if known is not None:
        known.target = target
        return known
    return Dialog(
        invite.call_id,
        local_uri=bare_uri(invite["To"]),
        remote_uri=bare_uri(invite["From"]),
        target=target,
        remote_tag=parameter(invite["From"], "tag") or "",
        route_set=invite.all("Record-Route"),
    )
