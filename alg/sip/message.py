"""A view of one SIP message (RFC 3261 §7).

A message is its start line, its header fields and its body; what each line says is read by
`alg.sip.start_line` and `alg.sip.header_line`, once for all messages that have it, and here only
put together. The result is places in the bytes as they came; nothing is decoded that nobody asks
for and nothing is ever written back from here.

Nearly every message is lines that end in line breaks and an empty one: they are split and looked
up. Whatever else there is (folded lines, leading line breaks, the end of the datagram instead of
the empty line) is proven by patterns over the whole, and split by them, into the same lines.

A message that breaks the grammar raises `Malformed`: the caller lets it pass untouched, for a
gateway that guesses is how messages get damaged.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from alg.sip.grammar import FIELDS, HEADER_BLOCK, LINE_BREAK, SIP_PREFIX, START_LINE
from alg.sip.header_line import (
    CALL_ID,
    CONTENT_LENGTH,
    CSEQ,
    DATE,
    EXPIRES,
    FROM,
    IDENTITY,
    KINDS,
    LAST_LIST,
    LINES,
    MAX_FORWARDS,
    NAMES,
    OTHER,
    TO,
    VIA,
    HeaderLine,
    read_folded,
    read_line,
)
from alg.sip.span import Span
from alg.sip.start_line import START_LINES, StartLine, read_start_line

MAGIC_COOKIE: Final = b"z9hG4bK"


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

    `status` is 0 in a request; `method` is the CSeq's in a response. `lines` has every field that
    may be edited, in order, and `places` where each begins; `start_line` begins at `start`. The
    body, from `headers_end` to `body_end`, is what Content-Length covers, or the rest of the
    datagram where there is none (RFC 3261 §18.3). `branch` is the topmost Via's (§17.1.3).
    """

    __slots__ = (
        "_length_place",
        "_singles",
        "body_end",
        "branch",
        "call_id",
        "cseq",
        "data",
        "from_tag",
        "headers_end",
        "is_request",
        "lines",
        "method",
        "places",
        "start",
        "start_line",
        "status",
        "to_tag",
    )

    data: bytes
    start: int
    start_line: StartLine
    is_request: bool
    method: bytes
    status: int
    lines: list[HeaderLine]
    places: list[int]
    branch: bytes
    call_id: bytes
    cseq: int
    from_tag: bytes
    to_tag: bytes
    headers_end: int
    body_end: int
    _length_place: int
    _singles: list[HeaderLine | None]

    def __init__(self, data: bytes, start: int, start_line: StartLine) -> None:
        self.data = data
        self.start = start
        self.start_line = start_line
        self.is_request = start_line.is_request
        self.status = start_line.status
        self.headers_end = 0
        self.body_end = len(data)
        self._length_place = 0
        self.lines = []
        self.places = []
        self._singles = [None] * len(NAMES)

    @property
    def request_uri(self) -> Span:
        """Where the Request-URI stands."""
        line = self.start_line
        return Span(self.start + line.uri_start, self.start + line.uri_end)

    @property
    def fields(self) -> list[Field]:
        """Every field that may be edited, in order."""
        return [
            Field(NAMES[line.kind], place + line.start, place + line.end)
            for line, place in zip(self.lines, self.places, strict=True)
        ]

    @property
    def body(self) -> Span:
        """Where the body stands."""
        return Span(self.headers_end, self.body_end)

    def single(self, kind: int) -> HeaderLine | None:
        """Returns a field that stands once, None if it is absent."""
        return self._singles[kind]

    @property
    def length_place(self) -> int:
        """Where the value of Content-Length begins, with white space before it; 0 if absent."""
        line = self._singles[CONTENT_LENGTH]
        return 0 if line is None else self._length_place + line.start

    def value(self, name: str) -> bytes:
        """Returns the value of a field that stands once, without white space; b"" if absent."""
        line = self._singles[KINDS[name]]
        return b"" if line is None else line.value

    def seconds(self, name: str) -> int | None:
        """Returns a delta-seconds field such as Expires, None if absent or not a number."""
        line = self._singles[KINDS[name]]
        return None if line is None or line.number < 0 else line.number

    def addr_spec(self, name: str) -> str:
        """Returns the URI of From or To, cut short."""
        line = self._singles[KINDS[name]]
        return "" if line is None else line.addr_spec()

    def take(self, line: HeaderLine, place: int) -> bool:
        """Takes the next field, which begins at a place; False where it may not stand twice."""
        kind = line.kind
        if kind <= LAST_LIST:
            self.lines.append(line)
            self.places.append(place)
        elif self._singles[kind] is None:
            self._singles[kind] = line
            if kind == CONTENT_LENGTH:
                self._length_place = place
        else:
            return kind == IDENTITY
        return True

    def check(self) -> None:
        """Reads what every message has (RFC 3261 §8.1.1), and refuses what is out of range."""
        self._check_via()
        singles = self._singles
        begun, ended, sequence = singles[FROM], singles[TO], singles[CSEQ]
        if begun is None or ended is None or sequence is None:
            missing = next(NAMES[kind] for kind in (FROM, TO, CSEQ) if singles[kind] is None)
            raise Malformed(f"no {missing}")
        call = singles[CALL_ID]
        if call is None or not call.is_sound:
            raise Malformed("no call-id")
        self.call_id = call.token
        if not begun.is_sound:
            raise Malformed("From")
        if not ended.is_sound:
            raise Malformed("To")
        self.from_tag = begun.token
        self.to_tag = ended.token
        if not sequence.is_sound:
            raise Malformed("CSeq")
        self.cseq = sequence.number
        self.method = sequence.token
        if self.is_request:
            if self.start_line.method != sequence.token:
                raise Malformed("CSeq names another method")
            if self.branch == MAGIC_COOKIE:
                raise Malformed("branch is the magic cookie alone")
        for kind in (MAX_FORWARDS, EXPIRES, DATE, CONTENT_LENGTH):
            line = singles[kind]
            if line is not None and not line.is_sound:
                raise Malformed(NAMES[kind])
        length = singles[CONTENT_LENGTH]
        if length is not None:
            end = self.headers_end + length.number
            if end > self.body_end:
                raise Malformed("content-length is beyond the datagram")
            self.body_end = end

    def _check_via(self) -> None:
        for line in self.lines:
            if line.kind == VIA:
                if not line.vias():
                    raise Malformed("Via")
                self.branch = line.token
                return
        raise Malformed("no Via")


def parse_message(data: bytes) -> SipMessage:
    """Parses one datagram or one framed message; raises NotSip or Malformed."""
    message = _split(data)
    if message is None:
        message = _search(data)
    message.check()
    return message


def _split(data: bytes) -> SipMessage | None:
    """Takes a message whose lines are fields each, up to an empty one; None for any other."""
    texts = data.split(b"\r\n")
    text = texts[0]
    start_line = START_LINES.get(text) or read_start_line(text)
    if start_line is None:
        return None
    message = SipMessage(data, 0, start_line)
    place = len(text) + 2
    for index in range(1, len(texts)):
        text = texts[index]
        line = LINES.get(text)
        if line is None:
            if not text:
                message.headers_end = place + 2
                return message if index < len(texts) - 1 else None
            line = read_line(text)
            if line is None:
                return None
        if line.kind != OTHER and not message.take(line, place):
            return None
        place += len(text) + 2
    return None


def _search(data: bytes) -> SipMessage:
    """Takes any message; raises NotSip or Malformed where it has no form."""
    start = len(data) - len(data.lstrip(b"\r\n"))
    first = START_LINE.match(data, start)
    start_line = read_start_line(first[0]) if first else None
    line_break = LINE_BREAK.match(data, first.end()) if first else None
    if start_line is None or line_break is None:
        if SIP_PREFIX.match(data, start):
            raise Malformed("start line")
        raise NotSip("start line")
    place = line_break.end()
    block = HEADER_BLOCK.match(data, place)
    if block is None:
        raise Malformed("header block")
    message = SipMessage(data, start, start_line)
    message.headers_end = block.end()
    for text in FIELDS.findall(data, place, block.end()):
        line = read_folded(text)
        if line.kind != OTHER and not message.take(line, place):
            raise Malformed(f"{NAMES[line.kind]} stands twice")
        place += len(text)
    return message
