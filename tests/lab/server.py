"""The provider's server: it remembers Contacts, calls them, and passes requests on.

Like every server that needs no help with NAT, it believes what it reads: a Contact is called
verbatim, a request within a call goes to the Contact that the other side gave.
"""

from __future__ import annotations

from collections.abc import Sequence

from tests.lab.agents import SipAgent
from tests.lab.message import (
    Message,
    bare_uri,
    encode,
    response_destination,
    stamp_via,
    uri_endpoint,
    uri_host,
    uri_user,
)
from tests.lab.namespace import Namespace
from tests.lab.transaction import branch_of


class Server(SipAgent):
    """A registrar, an agent that the phones can call, and a proxy for the users in `routes`.

    As a proxy it keeps no state (RFC 3261 §16.11): what is for a user goes to each URI of the
    user's route, with the server's Via and Record-Route, and so does what a call's Route brings.
    """

    def __init__(
        self,
        namespace: Namespace,
        address: str,
        *,
        media_port: int = 40000,
        transport: str = "udp",
    ) -> None:
        self.registrations: dict[str, str] = {}
        self.routes: dict[str, Sequence[str]] = {}
        super().__init__(namespace, "server", address, media_port=media_port, transport=transport)

    def accept_registration(self, *, expires: int = 3600, timeout: float = 5.0) -> Message:
        """Expects a REGISTER, keeps its Contact and grants it for `expires` seconds."""
        request = self.expect("REGISTER", timeout=timeout)
        self.registrations[uri_user(bare_uri(request["To"]))] = bare_uri(request["Contact"])
        self.reply(request, 200, headers=[("Contact", f"{request['Contact']};expires={expires}")])
        return request

    def call(self, user: str, *, sdp: bytes = b"") -> Message:
        """Invites a registered phone at the Contact that it registered."""
        contact = self.registrations[user]
        to = f"sip:{user}@{uri_host(self.endpoint.address)}"
        return self.send("INVITE", to, uri=contact, sdp=sdp or self.offer())

    def _receive_request(self, request: Message) -> None:
        user = uri_user(request.uri)
        targets = [request.uri] if request["Route"] else self.routes.get(user, ())
        if not targets:
            super()._receive_request(request)
            return
        stamp_via(request)
        for number, target in enumerate(targets):
            self._pass_on(request, target, f"{branch_of(request)}-{number}")

    def _pass_on(self, request: Message, target: str, branch: str) -> None:
        headers = [("Via", f"SIP/2.0/{self.carrier.name} {self.endpoint};branch={branch}")]
        if not request["Route"]:
            headers.append(("Record-Route", f"<sip:{self.endpoint}{self.uri_parameter};lr>"))
        headers += [each for each in request.headers if each[0] not in ("Route", "Content-Length")]
        message = Message(f"{request.method} {target} SIP/2.0", headers, request.body)
        self._transmit(encode(message), uri_endpoint(target))

    def _receive_response(self, response: Message) -> None:
        _, *others = response.all("Via")
        if not others:
            super()._receive_response(response)
            return
        headers = [each for each in response.headers if each[0] not in ("Via", "Content-Length")]
        message = Message(
            response.start_line, [*(("Via", via) for via in others), *headers], response.body
        )
        self._transmit(encode(message), response_destination(others[0]))
