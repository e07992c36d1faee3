"""The SIP echo: an INVITE, and an answer that tells how it came, in a form that no ALG knows.

What an ALG does to a message on its way is seen only at the other end. The answer is a SIP response
like any other; its body is the message as it came and where from, compressed and in base64, so that
no address is found in it. It is never longer than the request, so that nobody is flooded by asking
in his name: a request brings the room for its answer along, as padding.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from typing import NamedTuple

from alg.sip.message import Malformed, NotSip, SipMessage, parse_message
from nat_table.endpoint import Endpoint, parse_endpoint

MAX_MESSAGE = 65535
_SILENT = (b"ACK", b"CANCEL", b"BYE")
_ROOM = 300
_INVITE = """\
INVITE sip:echo@{server} SIP/2.0
Via: SIP/2.0/UDP {source};branch=z9hG4bK{token};rport
Max-Forwards: 70
From: <sip:doctor@{server}>;tag={token}
To: <sip:echo@{server}>
Call-ID: {token}@{address}
CSeq: 1 INVITE
Contact: <sip:doctor@{source}>
User-Agent: sipnat doctor
X-Padding: {padding}
Content-Type: application/sdp
Content-Length: {length}

"""
_SDP = """\
v=0
o=- 1 1 IN {family} {address}
s=-
c=IN {family} {address}
t=0 0
m=audio 40000 RTP/AVP 0 8
a=rtpmap:0 PCMU/8000
a=sendrecv
"""
_ACK = """\
ACK sip:echo@{server} SIP/2.0
Via: SIP/2.0/UDP {source};branch=z9hG4bK{token};rport
Max-Forwards: 70
From: <sip:doctor@{server}>;tag={token}
To: <sip:echo@{server}>;tag=echo
Call-ID: {token}@{address}
CSeq: 1 ACK
Content-Length: 0

"""


class Echo(NamedTuple):
    """A request as it came to the echo server, and where from."""

    source: Endpoint
    request: bytes


def render_request(source: Endpoint, server: str, token: str) -> bytes:
    """Renders the INVITE of a phone at `source`, with room for its answer."""
    short = _render_invite(source, server, token, 0)
    return _render_invite(source, server, token, len(render_answer(short, source)) - len(short))


def render_acknowledgement(source: Endpoint, server: str, token: str) -> bytes:
    """Renders the ACK that the answer is due (RFC 3261 §17.1.1.3)."""
    return _wire(_ACK, source=source, server=server, token=token, address=source.address)


def answer(request: bytes, source: Endpoint) -> bytes | None:
    """Returns what to answer, None where it is no request or brings too little room."""
    try:
        message = parse_message(request)
    except (NotSip, Malformed):
        return None
    if not message.is_request or message.method in _SILENT:
        return None
    response = _respond(message, source)
    return response if len(response) <= len(request) else None


def read_answer(response: bytes, token: str) -> Echo | None:
    """Returns what an answer tells, None where it is none to the request of this token."""
    try:
        message = parse_message(response)
        if message.is_request or not message.call_id.startswith(token.encode()):
            return None
        start, end = message.body
        packed = base64.b64decode(response[start:end], validate=True)
        told = zlib.decompressobj().decompress(packed, MAX_MESSAGE)
        came_from, _, request = told.partition(b"\n")
        return Echo(parse_endpoint(came_from.decode("ascii")), request)
    except (NotSip, Malformed, ValueError, binascii.Error, zlib.error):
        return None


def differences(sent: bytes, came: bytes) -> list[tuple[str, str]]:
    """Returns the lines that were changed, as sent and as they came; "" where there was none."""
    before, after = (message.decode("latin-1").split("\r\n") for message in (sent, came))
    if len(before) == len(after):
        return [pair for pair in zip(before, after, strict=True) if pair[0] != pair[1]]
    gone = [(line, "") for line in before if line not in after]
    return gone + [("", line) for line in after if line not in before]


def render_answer(request: bytes, source: Endpoint) -> bytes:
    """Renders the answer to a request; raises NotSip or Malformed."""
    return _respond(parse_message(request), source)


def _respond(message: SipMessage, source: Endpoint) -> bytes:
    told = str(source).encode() + b"\n" + message.data
    body = base64.b64encode(zlib.compress(told, 9))
    vias = (field for field in message.fields if field.name == "via")
    head = [
        b"SIP/2.0 480 Echo",
        *(b"Via: " + message.data[each.start : each.end] for each in vias),
        b"From: " + message.value("from"),
        b"To: " + message.value("to") + (b"" if message.to_tag else b";tag=echo"),
        b"Call-ID: " + message.call_id,
        b"CSeq: " + message.value("cseq"),
        b"Content-Type: application/octet-stream",
        b"Content-Length: %d" % len(body),
    ]
    return b"\r\n".join((*head, b"", body))


def _render_invite(source: Endpoint, server: str, token: str, padding: int) -> bytes:
    family = "IP6" if ":" in source.address else "IP4"
    body = _wire(_SDP, family=family, address=source.address)
    head = _wire(
        _INVITE,
        source=source,
        server=server,
        token=token,
        address=source.address,
        padding="." * (max(0, padding) + _ROOM),
        length=len(body),
    )
    return head + body


def _wire(template: str, **values: object) -> bytes:
    return template.format(**values).replace("\n", "\r\n").encode("ascii")
