"""Header fields, each read once however often it comes (RFC 3261 §7.3, §20).

Phones and servers repeat themselves: of the lines of a message nearly all have come before, in the
message before or in that of another call. So what is read in a line is kept by its bytes, with
places counted from its beginning, and a line that comes again costs one look-up. It is a cache and
nothing else: bounded, and what is in it depends on the bytes alone. When it is full it begins anew,
and takes over what comes again: the many lines of one call alone do not push out those of a phone.

Two parameters are new where the rest of the line is not: the branch of a Via and the tag of From
and To. Such a line is read as what stands before the parameter, which is kept too, and the rest.
"""

from __future__ import annotations

import re
from typing import Final

from alg.sip.grammar import FIELD, NEW_PARAM, SEQUENCE, SIP_DATE
from alg.sip.host import unicast_address
from alg.sip.host_port import MAX_PORT
from alg.sip.name_addr import NameAddr, addr_spec_of, parse_name_addrs, tag_of
from alg.sip.via import ViaParm, branch_of, parse_via
from nat_table.endpoint import Endpoint, endpoint_of

MOST: Final = 8192  # lines that are kept
LONGEST: Final = 256  # octets of one that is kept
MANY: Final = 4  # values of a list that is kept; one of more is read each time
MAX_CSEQ: Final = 2**31
MAX_DELTA_SECONDS: Final = 2**32 - 1
MAX_HOPS: Final = 255
MAX_DIGITS: Final = 10
BEYOND: Final = 10**10

# Which field a line is. Lists come first: they may stand several times, and may be edited.
OTHER: Final = 0
VIA: Final = 1
CONTACT: Final = 2
RECORD_ROUTE: Final = 3
ROUTE: Final = 4
PATH: Final = 5
SERVICE_ROUTE: Final = 6
REFER_TO: Final = 7
REPLY_TO: Final = 8
FROM: Final = 9
TO: Final = 10
CALL_ID: Final = 11
CSEQ: Final = 12
CONTENT_LENGTH: Final = 13
CONTENT_TYPE: Final = 14
CONTENT_ENCODING: Final = 15
EXPIRES: Final = 16
SESSION_EXPIRES: Final = 17
MAX_FORWARDS: Final = 18
DATE: Final = 19
IDENTITY: Final = 20
LAST_LIST: Final = REPLY_TO

NAMES: Final = (
    *("", "via", "contact", "record-route", "route", "path", "service-route", "refer-to"),
    *("reply-to", "from", "to", "call-id", "cseq", "content-length", "content-type"),
    *("content-encoding", "expires", "session-expires", "max-forwards", "date", "identity"),
)
KINDS: Final[dict[str, int]] = {name: kind for kind, name in enumerate(NAMES)}

# The compact forms (RFC 3261 §7.3.3, RFC 3515 "r", RFC 4028 "x", RFC 4474 "y").
_COMPACT = {
    **{b"v": VIA, b"m": CONTACT, b"r": REFER_TO, b"f": FROM, b"t": TO, b"i": CALL_ID},
    **{b"l": CONTENT_LENGTH, b"c": CONTENT_TYPE, b"e": CONTENT_ENCODING, b"x": SESSION_EXPIRES},
    **{b"y": IDENTITY},
}
_KINDS: Final[dict[bytes, int]] = {
    **{name.encode("ascii"): kind for name, kind in KINDS.items()},
    **_COMPACT,
}

# The parameter that is new each time, by the first letter of the field, and of which fields.
_NEW: Final = {
    **{b"V": b";branch=", b"v": b";branch="},
    **{b"F": b";tag=", b"f": b";tag=", b"T": b";tag=", b"t": b";tag="},
}
_FIELDS_OF: Final = {b";branch=": (VIA, VIA), b";tag=": (FROM, TO)}


class HeaderLine:
    """What one header field says; places are counted from its first octet.

    The value stands from `start` to `end`. `token` is the branch of a Via's first value, the tag
    of From and To, the Call-ID, the method of CSeq; `number` that of CSeq, the seconds or the
    length, -1 where there is none. `is_sound` says that the value is what the field demands; of a
    list that is known when it has been read, and `is_known` says that it has been, is sound, and
    that its ports are below 65536.
    """

    __slots__ = (
        "_addresses",
        "_vias",
        "end",
        "is_known",
        "is_sound",
        "kind",
        "number",
        "start",
        "text",
        "token",
    )

    kind: int
    text: bytes
    start: int
    end: int
    number: int
    token: bytes
    is_sound: bool
    is_known: bool
    _vias: list[ViaParm] | None
    _addresses: list[NameAddr] | None

    def __init__(self, kind: int, text: bytes, start: int, end: int) -> None:
        self.kind = kind
        self.text = text
        self.start = start
        self.end = end
        self.number = -1
        self.token = b""
        self.is_sound = True
        self.is_known = False
        self._vias = None
        self._addresses = None

    @property
    def value(self) -> bytes:
        """The value without the white space around it."""
        return self.text[self.start : self.end].strip()

    def vias(self) -> list[ViaParm]:
        """Returns the values of a Via, up to where its grammar ends."""
        vias = self._vias
        if vias is None:
            vias, self.is_sound = parse_via(self.text, self.start, self.end)
            if len(vias) <= MANY:
                self._vias = vias
            self.token = branch_of(self.text, vias[0]) if vias else b""
            self.is_known = self.is_sound and max([via.port for via in vias]) <= MAX_PORT
        return vias

    def addresses(self) -> list[NameAddr]:
        """Returns the values of a Contact, Route or their like, up to where the grammar ends."""
        addresses = self._addresses
        if addresses is None:
            addresses, self.is_sound = parse_name_addrs(self.text, self.start, self.end)
            if len(addresses) <= MANY:
                self._addresses = addresses
            ports = [0 if each.uri is None else each.uri.port for each in addresses]
            self.is_known = self.is_sound and max(ports) <= MAX_PORT
        return addresses

    def first_endpoint(self) -> Endpoint | None:
        """Returns what the first value of a Contact or its like names, if that is an address."""
        addresses = self.addresses()
        uri = addresses[0].uri if addresses else None
        if uri is None:
            return None
        address = unicast_address(uri.host)
        return None if address is None else endpoint_of(address, uri.port)

    def addr_spec(self) -> str:
        """Returns the URI of a From or To, cut short; "" if it is malformed."""
        return addr_spec_of(self.text, self.start, self.end)

    def check(self) -> None:
        """Reads the value of a field that stands once (RFC 3261 §8.1.1, §20.17, §25.1)."""
        kind = self.kind
        if kind in (FROM, TO):
            tag = tag_of(self.text, self.start, self.end)
            self.is_sound = tag is not None
            self.token = tag or b""
        elif kind == CSEQ:
            match = SEQUENCE.match(self.text, self.start, self.end)
            self.is_sound = match is not None and int(match[1]) < MAX_CSEQ
            if match is not None:
                self.number, self.token = int(match[1]), match[2]
        elif kind == CALL_ID:
            self.token = self.value
            self.is_sound = len(self.token) > 0
        elif kind == CONTENT_LENGTH:
            self.number = _number(self.value)
            self.is_sound = 0 <= self.number < BEYOND
        elif kind == MAX_FORWARDS:
            self.is_sound = 0 <= _number(self.value) <= MAX_HOPS
        elif kind in (EXPIRES, SESSION_EXPIRES):
            value = self.value
            self.number = _number(value.partition(b";")[0].strip())
            self.is_sound = kind == SESSION_EXPIRES or _number(value) <= MAX_DELTA_SECONDS
        elif kind == DATE:
            self.is_sound = SIP_DATE.match(self.text, self.start, self.end) is not None

    def with_new(self, token: bytes, text: bytes) -> HeaderLine:
        """Returns this line with the parameter behind it that it lacks."""
        line = HeaderLine(self.kind, text, self.start, len(text))
        line.token = token
        line.is_known = self.is_known
        line._vias = self._vias
        return line


UNREAD: Final = HeaderLine(OTHER, b"", 0, 0)
"""What every line is that nobody reads."""

LINES: Final[dict[bytes, HeaderLine]] = {}
"""Those that came lately, by their text without its line break."""

LINES_BEFORE: Final[dict[bytes, HeaderLine]] = {}
"""Those that came before `LINES` began anew."""

_STEMS: Final[dict[bytes, HeaderLine]] = {}
"""Beginnings of such lines, up to the parameter that is new each time."""


def read_line(text: bytes) -> HeaderLine | None:
    """Reads a field of one line, without its line break, and remembers it; None where it is none.

    An unusual one is none either.
    """
    line = LINES_BEFORE.get(text) or _vary(text)
    if line is None:
        match = FIELD.fullmatch(text)
        if match is None:
            return None
        line = _read(text, match)
    if len(LINES) >= MOST:
        LINES_BEFORE.clear()
        LINES_BEFORE.update(LINES)
        LINES.clear()
    if len(text) <= LONGEST:
        LINES[text] = line
    return line


def read_folded(text: bytes) -> HeaderLine:
    """Reads a field with its line breaks; its form is proven already."""
    match = FIELD.match(text)
    assert match is not None
    return _read(text, match)


def _read(text: bytes, match: re.Match[bytes]) -> HeaderLine:
    kind = _KINDS.get(match[1].lower(), OTHER)
    if kind == OTHER:
        return UNREAD
    start, end = match.span(2)
    line = HeaderLine(kind, text, start, end)
    if kind > LAST_LIST:
        line.check()
    return line


def _vary(text: bytes) -> HeaderLine | None:
    """Reads a line by its beginning and a new parameter, if it can be."""
    parameter = _NEW.get(text[:1])
    if parameter is None:
        return None
    before, _, behind = text.partition(parameter)
    match = NEW_PARAM.fullmatch(behind)
    if match is None:
        return None
    stem = _STEMS.get(before) or _read_stem(before, parameter)
    return stem.with_new(match[1], text) if stem.kind != OTHER else None


def _read_stem(text: bytes, parameter: bytes) -> HeaderLine:
    """Reads the beginning of a line that goes on with a parameter; `UNREAD` if it does not."""
    match = FIELD.fullmatch(text)
    stem = UNREAD if match is None else _read(text, match)
    is_one = stem.kind != VIA or len(stem.vias()) == 1
    if stem.kind not in _FIELDS_OF[parameter] or not (is_one and stem.is_sound) or stem.token:
        stem = UNREAD
    if len(_STEMS) >= MOST:
        _STEMS.clear()
    if len(text) <= LONGEST:
        _STEMS[text] = stem
    return stem


def _number(digits: bytes) -> int:
    """Returns the number; -1 where it is none, and `BEYOND` where it has too many digits."""
    if not digits.isdigit():
        return -1
    return int(digits) if len(digits) <= MAX_DIGITS else BEYOND
