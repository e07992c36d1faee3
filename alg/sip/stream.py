"""SIP framed out of a byte stream (RFC 3261 §7.5, §18.3; keepalives: RFC 5626 §3.5.1).

`feed` takes the stream in whatever cuts it comes and returns pieces: whole messages, keepalives,
and octets that are nobody's business. Nothing is lost, added or reordered: what `feed` and `finish`
return, joined, is what went in. Messages and keepalives do not depend on the cuts; opaque octets
are handed on as they come.

A stream is SIP only while message follows message without a doubt. Its first octets must be a start
line (line ends may stand before it, RFC 3261 §7.5), and whoever fails once (another protocol, no
Content-Length, two of them that differ, a message too long) is opaque for ever: a gateway that
looks for the next start line further on can be talked into reading a web form as a REGISTER (NAT
slipstreaming). How far a message goes is all that is decided here; whether it is a good one is for
`parse_message`.
"""

from __future__ import annotations

import enum
import re
from typing import NamedTuple

from alg.sip.grammar import FIELD, START_LINE, TOKEN

MAX_MESSAGE = 65535
MAX_START_LINE = 8192

# The end of the header block: an empty line.
_BLOCK_END = re.compile(rb"\n\r?\n")

# What may yet become a start line, or the line end of a keepalive.
_VERSION = rb"S(?:I(?:P(?:/(?:2(?:\.(?:0)?)?)?)?)?)?"
_START_OF_LINE = re.compile(
    rb"(?:" + TOKEN + rb"++(?: (?:[^\s<>\"]++(?: (?:" + _VERSION + rb")?)?)?)?"
    rb"|SIP/(?:2(?:\.(?:0(?: (?:[1-6](?:[0-9](?:[0-9](?: [^\r\n]*+)?)?)?)?)?)?)?)?)?\r?",
    re.IGNORECASE,
)


class PieceKind(enum.Enum):
    """What a piece of a stream is."""

    MESSAGE = "message"
    KEEPALIVE = "keepalive"
    OPAQUE = "opaque"


class Piece(NamedTuple):
    """Consecutive octets of a stream: one message, one line end between messages, or neither."""

    kind: PieceKind
    data: bytes


class Fault(enum.Enum):
    """Why a stream is opaque."""

    NOT_SIP = "not a start line"
    NO_LENGTH = "no Content-Length"
    BAD_LENGTH = "Content-Length is no number, or stands twice and differs"
    TOO_LARGE = "message too large"
    CUT = "the stream ended in the middle of a message"
    ABANDONED = "the other direction is opaque"


class SipStream:
    """One direction of a connection; holds at most `max_message` octets."""

    def __init__(self, max_message: int = MAX_MESSAGE) -> None:
        self.fault: Fault | None = None
        self._max_message = max_message
        self._held = bytearray()
        self._searched = 0
        self._size: int | None = None

    @property
    def held(self) -> int:
        """How many octets wait for the rest of their message."""
        return len(self._held)

    def feed(self, data: bytes) -> list[Piece]:
        """Takes the next octets; returns the pieces that they complete."""
        if self.fault is not None:
            return [Piece(PieceKind.OPAQUE, data)] if data else []
        self._held += data
        pieces: list[Piece] = []
        begin = 0
        while self.fault is None:
            size = self._keepalive(begin)
            kind = PieceKind.KEEPALIVE
            if not size:
                size = self._message(begin)
                kind = PieceKind.MESSAGE
            if not size:
                break
            pieces.append(Piece(kind, bytes(self._held[begin : begin + size])))
            begin += size
            self._searched, self._size = begin, None
        if begin:
            del self._held[:begin]
            self._searched -= begin
        return pieces if self.fault is None else pieces + self._give_up(self.fault)

    def finish(self) -> list[Piece]:
        """Ends the stream; returns what was held back for a message that never became whole."""
        return self._give_up(self.fault or Fault.CUT) if self._held else []

    def abandon(self) -> list[Piece]:
        """Takes what is held, and all that follows, for opaque; returns what was held."""
        return self._give_up(self.fault or Fault.ABANDONED)

    def _give_up(self, fault: Fault) -> list[Piece]:
        self.fault = fault
        rest = bytes(self._held)
        self._held.clear()
        return [Piece(PieceKind.OPAQUE, rest)] if rest else []

    def _keepalive(self, begin: int) -> int:
        """Returns the size of the line end that stands before the next start line; 0 if none."""
        held = self._held
        if held.startswith(b"\n", begin):
            return 1
        return 2 if held.startswith(b"\r\n", begin) else 0

    def _message(self, begin: int) -> int:
        """Returns the size of the message that is whole; 0 if none is."""
        if self._size is None:
            self._size = self._measure(begin)
        if self._size is None or len(self._held) - begin < self._size:
            return 0
        return self._size

    def _measure(self, begin: int) -> int | None:
        """Returns how long the message from `begin` on will be, once its header block is there."""
        held = self._held
        if begin == len(held) or not self._has_start_line(begin):
            return None
        limit = begin + self._max_message
        end = _BLOCK_END.search(held, self._searched, limit)
        if end is None:
            self._searched = max(begin, len(held) - 2)
            if len(held) >= limit:
                self.fault = Fault.TOO_LARGE
            return None
        lengths = {
            match[2].strip()
            for match in FIELD.finditer(held, begin, end.end())
            if match[1].lower() in (b"content-length", b"l")
        }
        if not lengths:
            self.fault = Fault.NO_LENGTH
            return None
        length = lengths.pop()
        if lengths or not length.isdigit() or len(length) > 10:
            self.fault = Fault.BAD_LENGTH
            return None
        size = end.end() - begin + int(length)
        if size > self._max_message:
            self.fault = Fault.TOO_LARGE
            return None
        return size

    def _has_start_line(self, begin: int) -> bool:
        """Whether a whole start line stands at `begin`; what can never become one is a fault."""
        held = self._held
        if self._searched > begin:
            return True
        longest = min(MAX_START_LINE, self._max_message)
        if START_LINE.match(held, begin, begin + longest):
            return True
        line_end = held.find(b"\n", begin, begin + longest)
        is_over = line_end >= 0 or len(held) - begin >= longest
        if is_over or not _START_OF_LINE.fullmatch(held, begin):
            self.fault = Fault.NOT_SIP
        return False
