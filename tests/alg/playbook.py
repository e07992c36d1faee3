"""A gateway on a table without a kernel, and messages written as text, for tests as transcripts.

    play = Playbook()
    sent = play.outbound(invite(PHONE, sdp("10.0.0.20", 4000)))
    rang = play.inbound(response(sent.payload, 180, to_tag="b"))
    play.wait(300)
    assert play.mappings() == {"10.0.0.20:5060": "203.0.113.1:5060"}

`outbound` and `inbound` hand a datagram to the gateway at `play.now` and confirm its outcome, as
the daemon does. `wait` moves time and runs timers. Messages are bytes, or text for `sip`.
"""

from __future__ import annotations

import random
import re
import textwrap
from dataclasses import replace
from ipaddress import IPv6Network

from alg.datagram import Datagram, Side
from alg.gateway import Gateway
from alg.gateway_settings import GatewaySettings
from alg.verdict import Outcome, Verdict
from nat_table.behavior import Behavior
from nat_table.binding import Binding, Kind, Owner
from nat_table.changes import Change
from nat_table.endpoint import Endpoint, Transport, parse_endpoint
from nat_table.prefix import PrefixTranslation
from nat_table.snapshot import mapping_row
from nat_table.table import NatTable

PHONE = Endpoint("10.0.0.20", 5060)
PHONE_2 = Endpoint("10.0.0.21", 5060)
SERVER = Endpoint("203.0.113.10", 5060)
EXTERNAL = "203.0.113.1"
CONNECTION = Owner("connection")

# IPv6: a phone of a routed site, one behind a NAT, what stands for it outside, and a server.
ROUTED6 = Endpoint("2001:db8:1::20", 5060)
PHONE6 = Endpoint("fd00:1::20", 5060)
EXTERNAL6 = "2001:db8:e::1"
SERVER6 = Endpoint("2001:db8:ff::10", 5060)
ROUTED = PrefixTranslation(IPv6Network("::/0"), IPv6Network("::/0"))
NPTV6 = PrefixTranslation(IPv6Network("fd00:1::/48"), IPv6Network("2001:db8:2::/48"))

# The fields that a response copies from its request, in the order they stood (RFC 3261 §8.2.6.2).
_COPIED = re.compile(
    rb"^(?:via|v|from|f|to|t|call-id|i|cseq|record-route)[ \t]*:[^\n]*\n(?:[ \t][^\n]*\n)*",
    re.IGNORECASE | re.MULTILINE,
)
_TO = re.compile(rb"^((?:to|t)[ \t]*:[^\r\n]*)", re.IGNORECASE | re.MULTILINE)
_LENGTH = re.compile(rb"^((?:content-length|l)[ \t]*:[ \t]*)(\?)?", re.IGNORECASE | re.MULTILINE)
_PHRASES = {100: "Trying", 180: "Ringing", 183: "Session Progress", 200: "OK", 401: "Unauthorized"}


def sip(text: str, body: str | bytes = b"", *, has_length: bool = True) -> bytes:
    """Encodes readable text as a message: CRLF line ends, the empty line, Content-Length.

    The text is dedented; what follows its first empty line is the body, unless `body` is given
    (bytes go in as they are). Content-Length is appended where there is none and filled in where
    its value is "?"; any other value stays. `has_length=False` adds none.
    """
    lines = textwrap.dedent(text).strip("\n")
    head_text, _, body_text = lines.partition("\n\n")
    if not body and body_text:
        body = body_text + "\n"
    content = body if isinstance(body, bytes) else crlf(textwrap.dedent(body).lstrip("\n"))
    head = crlf(head_text + "\n")
    length = b"%d" % len(content)
    match = _LENGTH.search(head)
    if match is not None and match[2]:
        head = head[: match.start(2)] + length + head[match.end(2) :]
    elif match is None and has_length:
        head += b"Content-Length: " + length + b"\r\n"
    return head + b"\r\n" + content


def crlf(text: str) -> bytes:
    """Encodes text with CRLF at the end of each line."""
    return text.replace("\r\n", "\n").replace("\n", "\r\n").encode()


def sdp(
    address: str,
    port: int,
    *attributes: str,
    media: str = "audio",
    protocol: str = "RTP/AVP",
    origin: str | None = None,
    version: int = 1,
) -> str:
    """Renders a session description with one stream, for `sip`; `origin` is `address` if not given.

    What is not an attribute of the stream ("m=video 4002 RTP/AVP 31") may stand among `attributes`.
    """
    family = "IP6" if ":" in address else "IP4"
    lines = (
        "v=0",
        f"o=- 1 {version} IN {family} {origin or address}",
        "s=-",
        f"c=IN {family} {address}",
        "t=0 0",
        f"m={media} {port} {protocol} 0",
        *attributes,
    )
    return "".join(f"{line}\n" for line in lines)


def request(
    method: str,
    phone: Endpoint = PHONE,
    body: str | bytes = b"",
    *headers: str,
    uri: str = "sip:bob@203.0.113.10",
    call_id: str = "call-1",
    cseq: int = 1,
    branch: str | None = None,
    from_tag: str = "a",
    to_tag: str = "",
) -> bytes:
    """Encodes a request as a phone writes it, with its own address in Via and Contact."""
    tag = f";tag={to_tag}" if to_tag else ""
    branch = branch or f"z9hG4bK-{call_id}-{cseq}-{method}"
    content_type = ("Content-Type: application/sdp",) if body else ()
    return sip(
        "\n".join(
            (
                f"{method} {uri} SIP/2.0",
                f"Via: SIP/2.0/UDP {phone};rport;branch={branch}",
                "Max-Forwards: 70",
                f"From: <sip:alice@example.com>;tag={from_tag}",
                f"To: <sip:bob@example.com>{tag}",
                f"Call-ID: {call_id}",
                f"CSeq: {cseq} {method}",
                f"Contact: <sip:alice@{phone}>",
                *headers,
                *content_type,
            )
        ),
        body,
    )


def invite(
    phone: Endpoint = PHONE,
    body: str | bytes = b"",
    *headers: str,
    call_id: str = "call-1",
    cseq: int = 1,
    from_tag: str = "a",
    to_tag: str = "",
) -> bytes:
    """Encodes an INVITE of a phone."""
    return request(
        "INVITE",
        phone,
        body,
        *headers,
        call_id=call_id,
        cseq=cseq,
        from_tag=from_tag,
        to_tag=to_tag,
    )


def register(
    phone: Endpoint = PHONE,
    *headers: str,
    call_id: str = "registration-1",
    cseq: int = 1,
    expires: int | None = 3600,
) -> bytes:
    """Encodes a REGISTER of a phone."""
    lines = (f"Expires: {expires}",) if expires is not None else ()
    uri = "sip:203.0.113.10"
    return request("REGISTER", phone, b"", *headers, *lines, uri=uri, call_id=call_id, cseq=cseq)


def response(
    to: bytes,
    status: int = 200,
    *headers: str,
    body: str | bytes = b"",
    to_tag: str = "b",
    contact: str | None = None,
) -> bytes:
    """Encodes the response to a request as it arrived: Vias, From, To, Call-ID and CSeq copied.

    `to_tag` goes on To where it has no tag yet and the status is not 100.
    """
    head = to.partition(b"\r\n\r\n")[0].partition(b"\n")[2] + b"\r\n"
    copied = b"".join(_COPIED.findall(head))
    to_line = _TO.search(copied)
    if status > 100 and to_tag and to_line is not None and b"tag=" not in to_line[1]:
        tagged = to_line[1] + b";tag=" + to_tag.encode()
        copied = copied[: to_line.start()] + tagged + copied[to_line.end() :]
    lines = [*headers]
    if contact is not None:
        lines.append(f"Contact: {contact}")
    if body:
        lines.append("Content-Type: application/sdp")
    first = f"SIP/2.0 {status} {_PHRASES.get(status, 'Whatever')}"
    return sip("\n".join((first, copied.decode().replace("\r\n", "\n").strip("\n"), *lines)), body)


class Playbook:
    """One gateway between 10.0.0.0/24 and the world, whose external address is 203.0.113.1.

    `mode6` puts fd00:1::/48 behind 2001:db8:e::1 ("nat66") or 2001:db8:2::/48 ("nptv6"), or
    routes every prefix ("pinhole").
    `changes` has every change of the table so far, in order.
    """

    def __init__(
        self,
        *,
        behavior: Behavior | None = None,
        settings: GatewaySettings | None = None,
        mode6: str = "off",
        seed: int = 1,
        now: float = 1000.0,
    ) -> None:
        self.settings = settings or GatewaySettings((EXTERNAL,))
        if mode6 == "nat66":
            addresses = (*self.settings.external_addresses, EXTERNAL6)
            self.settings = replace(self.settings, external_addresses=addresses)
        self.table = NatTable(
            self.settings.external_addresses,
            behavior or Behavior(),
            random.Random(seed),
            {"pinhole": ROUTED, "nptv6": NPTV6}.get(mode6),
        )
        self.gateway = Gateway(self.settings, self.table)
        self.now = now
        self.changes: list[Change] = []
        self.stored: dict[tuple[str, str], bytes] = {}

    def outbound(
        self,
        message: bytes | str,
        source: Endpoint = PHONE,
        destination: Endpoint = SERVER,
        *,
        now: float | None = None,
        transport: Transport = Transport.UDP,
    ) -> Outcome:
        """Sends a message from a phone to the outside."""
        return self.send(
            message, source, destination, Side.INTERNAL, Side.EXTERNAL, now=now, transport=transport
        )

    def inbound(
        self,
        message: bytes | str,
        destination: Endpoint = PHONE,
        source: Endpoint = SERVER,
        *,
        now: float | None = None,
        transport: Transport = Transport.UDP,
    ) -> Outcome:
        """Sends a message from the outside to a phone, as the kernel hands it over: translated."""
        return self.send(
            message, source, destination, Side.EXTERNAL, Side.INTERNAL, now=now, transport=transport
        )

    def arrive(
        self,
        message: bytes | str,
        at: str = "203.0.113.1:5060",
        source: Endpoint = SERVER,
        *,
        now: float | None = None,
        transport: Transport = Transport.UDP,
    ) -> Outcome:
        """Sends a message from the outside to an external endpoint that must be mapped."""
        binding = self.table.look_up_external(transport, parse_endpoint(at))
        assert binding is not None, f"nothing is mapped at {at}"
        return self.inbound(message, binding.internal, source, now=now, transport=transport)

    def hairpin(
        self,
        message: bytes | str,
        source: Endpoint = PHONE,
        destination: Endpoint = PHONE_2,
        *,
        now: float | None = None,
        transport: Transport = Transport.UDP,
    ) -> Outcome:
        """Sends a message from one phone to another, through an external endpoint."""
        return self.send(
            message, source, destination, Side.INTERNAL, Side.INTERNAL, now=now, transport=transport
        )

    def send(
        self,
        message: bytes | str,
        source: Endpoint,
        destination: Endpoint,
        came_from: Side,
        goes_to: Side,
        *,
        now: float | None = None,
        is_confirmed: bool = True,
        transport: Transport = Transport.UDP,
    ) -> Outcome:
        """Hands one datagram to the gateway, at `now` if given, and confirms the outcome."""
        if now is not None:
            assert now >= self.now, "time does not go back"
            self.now = now
        payload = sip(message) if isinstance(message, str) else message
        datagram = Datagram(source, destination, payload, came_from, goes_to, transport)
        outcome = self.gateway.receive(datagram, self.now)
        if is_confirmed and outcome.verdict is not Verdict.DROPPED:
            self.gateway.confirm(outcome)
            self.changes += outcome.changes
        return outcome

    def wait(self, seconds: float) -> None:
        """Lets time pass, running the timers when they fall due."""
        end = self.now + seconds
        while (due := self.gateway.next_timer()) is not None and due <= end:
            self.now = max(self.now, due)
            changes = self.gateway.handle_timer(self.now)
            after = self.gateway.next_timer()
            assert changes or after is None or after > due, "a timer that ends nothing spins"
            self.changes += changes
        self.now = end

    def remotes(self, internal: str, transport: Transport = Transport.UDP) -> list[str]:
        """Returns the addresses that signalling lets send to the mapping of an endpoint."""
        binding = self.binding(internal, transport)
        assert binding is not None, f"{internal} is not mapped"
        pinholes = self.table.pinholes(binding)
        named = (remote.address for pinhole in pinholes for remote in pinhole.remotes)
        return list(dict.fromkeys(named))

    def review(self, *flowing: str) -> list[str]:
        """Has the gateway keep calls that end soon, if media of these internal endpoints flows."""
        asked = self.gateway.calls_to_review(self.now)
        endpoints = {parse_endpoint(each) for each in flowing}
        self.changes += self.gateway.keep_calls(endpoints, self.now)
        return [str(binding.internal) for binding in asked]

    def store(self) -> None:
        """Stores what has changed since the last time, as the daemon does twice a second."""
        for key, row in self.gateway.take_touched():
            if row is None:
                self.stored.pop(key, None)
            else:
                self.stored[key] = row

    def restart(self) -> None:
        """Puts a new gateway on the table, which knows what was stored and nothing else."""
        self.store()
        self.gateway = Gateway(self.settings, self.table)
        self.gateway.restore(self.stored, self.now)

    def connect(self, internal: str, remote: Endpoint = SERVER) -> Binding:
        """Maps what a phone connects from, as the relay does before the first message."""
        binding = self.table.bind(
            Transport.TCP,
            parse_endpoint(internal),
            Kind.SIP,
            CONNECTION,
            now=self.now,
            expires_at=self.now + 86400,
            remotes=(remote,),
        )
        self.changes += self.table.take_changes()
        return binding

    def disconnect(self, internal: str) -> None:
        """Ends what `connect` began."""
        binding = self.binding(internal, Transport.TCP)
        assert binding is not None
        self.table.close(binding, CONNECTION, self.now)
        self.changes += self.table.take_changes()

    def binding(self, internal: str, transport: Transport = Transport.UDP) -> Binding | None:
        """Returns the binding of an internal endpoint, written "10.0.0.20:4000"."""
        return self.table.look_up_internal(transport, parse_endpoint(internal))

    def mappings(
        self, kind: str | None = None, transport: Transport | None = None
    ) -> dict[str, str]:
        """Returns internal -> external endpoint, as text, of every mapping (of one kind)."""
        return {
            str(binding.internal): str(binding.external)
            for binding in self.table.bindings()
            if kind is None or binding.kind.value == kind
            if transport is None or binding.transport is transport
        }

    def rows(self) -> list[dict[str, object]]:
        """Returns the mappings as `sipnat show mappings --json` prints them."""
        return [
            dict(mapping_row(binding, self.table.pinholes(binding), self.now))
            for binding in self.table.bindings()
        ]
