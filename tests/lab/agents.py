"""SIP user agents on plain sockets, used like a transcript:

    invite = phone.send("INVITE", "sip:200@203.0.113.10", sdp=phone.offer())
    arrived = server.expect("INVITE")
    server.reply(arrived, 200, sdp=server.offer())
    phone.expect(200)
    phone.send("ACK", call=invite)

An agent does what every phone does by itself and no more: it retransmits (RFC 3261 §17, T1 500 ms;
over TCP nothing but the 2xx to INVITE, §13.3.1.4), acknowledges failures, answers repeated requests
again, routes responses by Via (RFC 3581; over TCP by the connection of the request) and drops
responses whose Via is not its own (§18.1.2). It gives no help with NAT whatever: it believes each
Contact, Via and SDP address that it reads.
"""

from __future__ import annotations

import secrets
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from nat_table.endpoint import Endpoint
from tests.lab.carrier import CARRIERS
from tests.lab.closable import Closable
from tests.lab.dialog import Dialog, accept_dialog, confirm_dialog, start_dialog
from tests.lab.message import (
    REASONS,
    Message,
    bare_uri,
    encode,
    parse,
    response_destination,
    stamp_via,
    uri_endpoint,
    uri_host,
    via_sent_by,
)
from tests.lab.namespace import Namespace
from tests.lab.sdp import render_sdp
from tests.lab.transaction import GIVE_UP_TIMEOUT, Retransmission, branch_of

TICK = 0.05
ALLOW = "INVITE, ACK, CANCEL, BYE, OPTIONS, NOTIFY, MESSAGE, UPDATE, INFO, REFER"


class Timeout(AssertionError):
    """What an agent expected did not arrive."""


class SipAgent(Closable):
    """One user agent, bound to an address and port inside a namespace, over "udp" or "tcp".

    `proxy` is where requests outside of dialogs go; without one they go where their URI says.
    `discarded` keeps the responses that were not its own; `repeated` counts requests that came
    again, byte for byte.
    """

    def __init__(
        self,
        namespace: Namespace,
        user: str,
        address: str,
        port: int = 5060,
        *,
        proxy: Endpoint | None = None,
        media_port: int = 4000,
        transport: str = "udp",
    ) -> None:
        self.user = user
        self.endpoint = Endpoint(address, port)
        self.media = Endpoint(address, media_port)
        self.uri_parameter = "" if transport == "udp" else f";transport={transport}"
        self.contact = f"<sip:{user}@{self.endpoint}{self.uri_parameter}>"
        self.address_of_record = f"sip:{user}@{uri_host(proxy.address if proxy else address)}"
        self.discarded: list[Message] = []
        self.repeated = 0
        self._proxy = proxy
        self._register_call_id = f"{secrets.token_hex(8)}@{address}"
        self._register_sequence = 0
        self._dialogs: dict[str, Dialog] = {}
        self._inbox: list[Message] = []
        self._seen: set[bytes] = set()
        self._answers: dict[tuple[str, str], tuple[bytes, Endpoint]] = {}
        self._sent: dict[str, Message] = {}
        self._retransmissions: dict[tuple[str, str], Retransmission] = {}
        self._changed = threading.Condition(threading.RLock())
        self.carrier = CARRIERS[transport](namespace, self.endpoint)
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, name=user, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stops the agent and closes its sockets."""
        self._is_closing = True
        self._thread.join()
        self.carrier.close()

    def offer(
        self, *, media: Endpoint | None = None, version: int = 1, direction: str = "sendrecv"
    ) -> bytes:
        """Renders the SDP that names `media`, or this agent's usual media endpoint."""
        return render_sdp(media or self.media, version=version, direction=direction)

    def register(self, *, expires: int = 3600) -> Message:
        """Sends a REGISTER for the agent's address of record."""
        self._register_sequence += 1
        destination = self._proxy or uri_endpoint(self.address_of_record)
        headers = [
            ("From", f"<{self.address_of_record}>;tag={secrets.token_hex(4)}"),
            ("To", f"<{self.address_of_record}>"),
            ("Call-ID", self._register_call_id),
            ("CSeq", f"{self._register_sequence} REGISTER"),
            ("Contact", self.contact),
            ("Expires", str(expires)),
        ]
        uri = f"sip:{uri_host(destination.address)}"
        return self._request("REGISTER", uri, destination, headers)

    def send(
        self,
        method: str,
        to: str = "",
        *,
        call: Message | None = None,
        uri: str = "",
        sdp: bytes = b"",
        body: tuple[str, bytes] = ("", b""),
        headers: Sequence[tuple[str, str]] = (),
    ) -> Message:
        """Sends a request `to` an address, or within the dialog that the message `call` is of.

        `uri` is the Request-URI where it differs from `to`; `body` is a content type and bytes.
        """
        content_type, content = ("application/sdp", sdp) if sdp else body
        if method == "CANCEL" and call is not None:
            return self._cancel(call)
        if call is None:
            dialog = start_dialog(self.address_of_record, to, uri or to, self.endpoint.address)
            destination = self._proxy or uri_endpoint(dialog.target)
            self._dialogs[dialog.call_id] = dialog
        else:
            dialog = self._dialogs[call.call_id]
            destination = uri_endpoint(bare_uri((*dialog.route_set, dialog.target)[0]))
        lines = [*dialog.headers(method), ("Contact", self.contact), *headers]
        if content:
            lines.append(("Content-Type", content_type))
        return self._request(method, dialog.target, destination, lines, content)

    def reply(
        self,
        request: Message,
        status: int,
        *,
        sdp: bytes = b"",
        headers: Sequence[tuple[str, str]] = (),
    ) -> Message:
        """Answers a request, to where its top Via says."""
        to = request["To"]
        if status > 100 and ";tag=" not in to:
            to += f";tag={self._local_tag(request)}"
        lines = [("Via", via) for via in request.all("Via")]
        lines += [("Record-Route", route) for route in request.all("Record-Route")]
        lines += [("From", request["From"]), ("To", to)]
        lines += [("Call-ID", request.call_id), ("CSeq", request["CSeq"])]
        if request.method not in ("REGISTER", "BYE", "CANCEL"):
            lines.append(("Contact", self.contact))
        lines += headers
        if sdp:
            lines.append(("Content-Type", "application/sdp"))
        response = Message(f"SIP/2.0 {status} {REASONS.get(status, 'Other')}", lines, sdp)
        response.raw = encode(response)
        destination = response_destination(request["Via"])
        with self._changed:
            self._answers[branch_of(request), request.method] = (response.raw, destination)
            end = 300 if self.carrier.is_reliable else 700
            if request.method == "INVITE" and 200 <= status < end:
                key = (request.call_id, f"answer {request.sequence}")
                self._retransmissions[key] = Retransmission(response.raw, destination)
            self._transmit(response.raw, destination)
        return response

    def expect(
        self, wanted: str | int, *, call: Message | None = None, timeout: float = 5.0
    ) -> Message:
        """Waits for a request by method or a response by status, and takes it out of the inbox."""

        def is_wanted(message: Message) -> bool:
            if call is not None and message.call_id != call.call_id:
                return False
            if isinstance(wanted, int):
                return message.status == wanted
            return message.is_request and message.method == wanted

        found: list[Message] = []

        def look() -> bool:
            found[:] = [message for message in self._inbox if is_wanted(message)][:1]
            return bool(found)

        with self._changed:
            if not self._changed.wait_for(look, timeout):
                raise Timeout(
                    f"{self.user} waited {timeout:g} s for {wanted}; "
                    f"has {[str(m) for m in self._inbox]}, "
                    f"discarded {[str(m) for m in self.discarded]}"
                )
            self._inbox.remove(found[0])
        return found[0]

    def forget(self) -> None:
        """Empties the inbox."""
        with self._changed:
            self._inbox.clear()

    def _request(
        self,
        method: str,
        uri: str,
        destination: Endpoint,
        headers: Sequence[tuple[str, str]],
        body: bytes = b"",
    ) -> Message:
        branch = f"z9hG4bK{secrets.token_hex(8)}"
        via = f"SIP/2.0/{self.carrier.name} {self.endpoint};branch={branch};rport"
        lines = [("Via", via), ("Max-Forwards", "70"), *headers]
        lines += [("User-Agent", "sipnat lab"), ("Allow", ALLOW)]
        return self._start(Message(f"{method} {uri} SIP/2.0", lines, body), branch, destination)

    def _cancel(self, invite: Message) -> Message:
        """Cancels an INVITE: its Via, URI, route and number, by RFC 3261 §9.1."""
        kept = ("via", "max-forwards", "route", "from", "to", "call-id")
        lines = [pair for pair in invite.headers if pair[0].lower() in kept]
        lines.append(("CSeq", f"{invite.sequence} CANCEL"))
        destination = self._proxy or uri_endpoint(invite.uri)
        message = Message(f"CANCEL {invite.uri} SIP/2.0", lines)
        return self._start(message, branch_of(invite), destination)

    def _start(self, message: Message, branch: str, destination: Endpoint) -> Message:
        """Sends a request; over UDP it is repeated until it is answered, unless it is an ACK."""
        message.raw = encode(message)
        with self._changed:
            if message.method == "ACK":
                self._dialogs[message.call_id].acknowledgement = (message.raw, destination)
            else:
                self._sent.setdefault(branch, message)
                if not self.carrier.is_reliable:
                    self._retransmissions[branch, message.method] = Retransmission(
                        message.raw, destination
                    )
            self._transmit(message.raw, destination)
        return message

    def _local_tag(self, request: Message) -> str:
        dialog = self._dialogs.get(request.call_id)
        return dialog.local_tag if dialog else secrets.token_hex(4)

    def _transmit(self, raw: bytes, destination: Endpoint) -> None:
        self.carrier.send(raw, destination)

    def _run(self) -> None:
        while not self._is_closing:
            for raw, source in self.carrier.receive(TICK):
                message = parse(raw, source)
                if message is not None:
                    # Whom an answer does not reach has hung up, or asks again.
                    with self._changed, suppress(OSError):
                        self._receive(message)
                    with self._changed:
                        self._changed.notify_all()
            with self._changed, suppress(OSError):
                self._retransmit(time.monotonic())

    def _retransmit(self, now: float) -> None:
        for key, retransmission in list(self._retransmissions.items()):
            if now - retransmission.started_at > GIVE_UP_TIMEOUT:
                del self._retransmissions[key]
            elif retransmission.is_due(now):
                self._transmit(retransmission.raw, retransmission.destination)

    def _receive(self, message: Message) -> None:
        handle: Callable[[Message], None]
        handle = self._receive_request if message.is_request else self._receive_response
        handle(message)

    def _receive_request(self, request: Message) -> None:
        if request.method == "ACK":
            self._retransmissions.pop((request.call_id, f"answer {request.sequence}"), None)
        stamp_via(request)
        answer = self._answers.get((branch_of(request), request.method))
        if answer is not None:
            self._transmit(*answer)
        if self._is_seen(request):
            self.repeated += 1
            return
        self._seen.add(request.raw)
        if request.method == "INVITE":
            known = self._dialogs.get(request.call_id)
            self._dialogs[request.call_id] = accept_dialog(request, known)
        self._inbox.append(request)

    def _receive_response(self, response: Message) -> None:
        branch = branch_of(response)
        request = self._sent.get(branch)
        if request is None or via_sent_by(response["Via"]) != self.endpoint:
            self.discarded.append(response)
            return
        self._stop_retransmitting(response, branch)
        dialog = self._dialogs.get(response.call_id)
        if response.method == "INVITE" and dialog is not None:
            if response.status >= 300:
                self._acknowledge_failure(request, response)
            elif response.status > 100:
                confirm_dialog(dialog, response)
            if 200 <= response.status < 300 and dialog.acknowledgement and self._is_seen(response):
                self._transmit(*dialog.acknowledgement)
        if not self._is_seen(response):
            self._seen.add(response.raw)
            self._inbox.append(response)

    def _is_seen(self, message: Message) -> bool:
        return message.raw in self._seen

    def _stop_retransmitting(self, response: Message, branch: str) -> None:
        key = (branch, response.method)
        if response.status >= 200 or response.method == "INVITE":
            self._retransmissions.pop(key, None)
        elif key in self._retransmissions:
            self._retransmissions[key].slow_down()

    def _acknowledge_failure(self, invite: Message, response: Message) -> None:
        """Sends the ACK that belongs to the INVITE's own transaction (RFC 3261 §17.1.1.3)."""
        kept = ("via", "max-forwards", "route", "from", "call-id")
        lines = [pair for pair in invite.headers if pair[0].lower() in kept]
        lines += [("To", response["To"]), ("CSeq", f"{invite.sequence} ACK")]
        dialog = self._dialogs[invite.call_id]
        first_hop = (*dialog.route_set, invite.uri)[0]
        destination = self._proxy or uri_endpoint(bare_uri(first_hop))
        self._transmit(encode(Message(f"ACK {invite.uri} SIP/2.0", lines)), destination)


def wait_until(is_true: Callable[[], bool], timeout: float) -> bool:
    """Waits until a condition holds; returns whether it came to hold."""
    deadline = time.monotonic() + timeout
    while not is_true():
        if time.monotonic() > deadline:
            return False
        time.sleep(TICK)
    return True


def receive_all(udp: socket.socket, quiet: float = 0.5) -> list[tuple[bytes, Endpoint]]:
    """Returns every datagram that arrives until nothing has come for `quiet` seconds."""
    udp.settimeout(quiet)
    received: list[tuple[bytes, Endpoint]] = []
    try:
        while True:
            raw, source = udp.recvfrom(65535)
            received.append((raw, Endpoint(*source[:2])))
    except TimeoutError:
        return received
