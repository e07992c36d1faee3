"""A view of one SIP message (RFC 3261 §7).

One pass: the start line, one pattern over the whole header block that proves its form, then one
pattern that stops only at the fields the gateway reads. The result is spans over the bytes as they
came; nothing is decoded that nobody asks for and nothing is ever written back from here.

A message that breaks the grammar raises `Malformed`: the caller lets it pass untouched, for a
gateway that guesses is how messages get damaged.
"""

from __future__ import annotations

from typing import NamedTuple

from alg.sip.grammar import (
    CSEQ,
    FIELD,
    HEADER_BLOCK,
    NAME_ADDR,
    SIP_DATE,
    SIP_PREFIX,
    START_LINE,
    TAG,
    search_param,
)
from alg.sip.span import Span
from alg.sip.via import ViaParm, branch_of, parse_via

MAGIC_COOKIE = b"z9hG4bK"
MAX_CSEQ = 2**31
MAX_DELTA_SECONDS = 2**32 - 1

COMPACT = {
    b"v": "via",
    b"m": "contact",
    b"f": "from",
    b"t": "to",
    b"i": "call-id",
    b"l": "content-length",
    b"c": "content-type",
    b"e": "content-encoding",
    b"r": "refer-to",
    b"x": "session-expires",
    b"y": "identity",
}


class NotSip(ValueError):
    """The bytes do not begin like a SIP message."""


class Malformed(ValueError):
    """The bytes begin like a SIP message and break its grammar; the text names where."""


class Field(NamedTuple):
    """A header field: its long name in lower case, and the span of its value."""

    name: str
    start: int
    end: int


class SipMessage:
    """A parsed message: what identifies it, and where its fields and its body stand.

    `status` is 0 in a request; `method` is the CSeq's in a response. `fields` has every field the
    gateway may edit, in order; `singles` those that stand once, by name. `body` is what
    Content-Length covers, or the rest of the datagram where there is none (RFC 3261 §18.3).
    """

    __slots__ = (
        "body",
        "call_id",
        "cseq",
        "data",
        "fields",
        "from_tag",
        "headers_end",
        "is_request",
        "method",
        "request_uri",
        "singles",
        "status",
        "to_tag",
        "top_via",
    )

    data: bytes
    is_request: bool
    method: bytes
    status: int
    request_uri: Span
    fields: list[Field]
    singles: dict[str, Span]
    top_via: ViaParm
    call_id: bytes
    cseq: int
    from_tag: bytes
    to_tag: bytes
    headers_end: int
    body: Span

    def value(self, name: str) -> bytes:
        """Returns the value of a field that stands once, without white space; b"" if absent."""
        span = self.singles.get(name)
        return self.data[span.start : span.end].strip() if span else b""

    def seconds(self, name: str) -> int | None:
        """Returns a delta-seconds field such as Expires, None if absent or not a number."""
        value = self.value(name).partition(b";")[0].strip()
        return int(value) if value.isdigit() else None

    @property
    def branch(self) -> bytes:
        """The topmost Via's branch (RFC 3261 §17.1.3)."""
        return branch_of(self.data, self.top_via)


_LISTS = frozenset(
    ("via", "contact", "record-route", "route", "path", "service-route", "refer-to", "reply-to")
)
_NAMES: dict[bytes, str] = {}


def parse_message(data: bytes) -> SipMessage:
    """Parses one datagram or one framed message; raises NotSip or Malformed."""
    begin = 0
    if data[:1] in (b"\r", b"\n"):
        begin = len(data) - len(data.lstrip(b"\r\n"))
    line = START_LINE.match(data, begin)
    if line is None:
        if SIP_PREFIX.match(data, begin):
            raise Malformed("start line")
        raise NotSip("start line")
    block = HEADER_BLOCK.match(data, line.end())
    if block is None:
        raise Malformed("header block")

    message = SipMessage()
    message.data = data
    message.headers_end = block.end()
    message.is_request = line[1] is not None
    message.fields = fields = []
    message.singles = singles = {}
    for match in FIELD.finditer(data, line.end() - 1, block.end()):
        name = _NAMES.get(match[1]) or _long_name(match[1])
        start, end = match.span(2)
        if name in _LISTS:
            fields.append(Field(name, start, end))
        elif name not in singles:
            singles[name] = Span(start, end)
        elif name != "identity":
            raise Malformed(f"{name} stands twice")
    _check_identity(message, line[1], line[3])
    if message.is_request:
        message.request_uri = Span(*line.span(2))
    _check_numbers(message)
    message.body = _body(message)
    return message


def _long_name(name: bytes) -> str:
    lower = name.lower()
    long = COMPACT.get(lower) or lower.decode("ascii")
    _NAMES[name] = long
    return long


def _check_identity(message: SipMessage, method: bytes | None, status: bytes | None) -> None:
    """Reads the five fields that every message has (RFC 3261 §8.1.1)."""
    data = message.data
    singles = message.singles
    for field in message.fields:
        if field.name == "via":
            try:
                message.top_via = next(parse_via(data, field.start, field.end))
            except ValueError:
                raise Malformed("Via") from None
            break
    else:
        raise Malformed("no Via")
    try:
        from_span, to_span = singles["from"], singles["to"]
        call_id, cseq_span = message.value("call-id"), singles["cseq"]
    except KeyError as missing:
        raise Malformed(f"no {missing.args[0]}") from None
    if not call_id:
        raise Malformed("no call-id")
    message.call_id = call_id
    message.from_tag = _tag(data, from_span, "From")
    message.to_tag = _tag(data, to_span, "To")
    cseq = CSEQ.match(data, *cseq_span)
    if cseq is None or int(cseq[1]) >= MAX_CSEQ:
        raise Malformed("CSeq")
    message.cseq = int(cseq[1])
    message.method = cseq[2]
    message.status = int(status) if status else 0
    if method is not None and method != cseq[2]:
        raise Malformed("CSeq names another method")
    if message.is_request and message.branch == MAGIC_COOKIE:
        raise Malformed("branch is the magic cookie alone")


def _tag(data: bytes, span: Span, what: str) -> bytes:
    match = NAME_ADDR.match(data, *span)
    if match is None or match[4]:
        raise Malformed(what)
    tag = search_param(TAG, data, *match.span(3))
    return tag[1] if tag else b""


def _check_numbers(message: SipMessage) -> None:
    """Refuses scalars out of range and a Date in another zone (RFC 3261 §20.17, §25.1)."""
    singles = message.singles
    if "max-forwards" in singles:
        hops = message.value("max-forwards")
        if not hops.isdigit() or len(hops) > 10 or int(hops) > 255:
            raise Malformed("max-forwards")
    if "expires" in singles:
        expires = message.value("expires")
        if expires.isdigit() and (len(expires) > 10 or int(expires) > MAX_DELTA_SECONDS):
            raise Malformed("expires")
    if "date" in singles and SIP_DATE.match(message.data, *singles["date"]) is None:
        raise Malformed("date")


def _body(message: SipMessage) -> Span:
    start = message.headers_end
    available = len(message.data)
    if "content-length" not in message.singles:
        return Span(start, available)
    length = message.value("content-length")
    if not length.isdigit() or len(length) > 10:
        raise Malformed("content-length")
    end = start + int(length)
    if end > available:
        raise Malformed("content-length is beyond the datagram")
    return Span(start, end)
