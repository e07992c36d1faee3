"""What is being written, what it names, and the terminals of RFC 3261 §25.1.

A `Scribe` writes bytes from left to right and decides by `choose(n)`, a number below n: hypothesis'
draws in a property test (0 is the simplest choice, for shrinking), random numbers elsewhere. Where
it writes something that names an internal endpoint, it notes the place (`Named`): so a message is
known with its meaning before any parser has seen it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

Option = TypeVar("Option")

ALPHANUM = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
MARK = "-_.!~*'()"


class Place(NamedTuple):
    """A byte range [start, end)."""

    start: int
    end: int


@dataclass(frozen=True)
class Named:
    """A place that names an internal endpoint, or only its address or only its port.

    `what` is the field or line; `number` is the port that is meant, by `default` where none is
    written (`port` is None); `number` is 0 where only the address counts. `is_tcp` says that it is
    reached by TCP.
    """

    what: str
    address: str
    number: int
    host: Place | None
    port: Place | None
    default: int = 0
    is_tcp: bool = False

    def moved(self, offset: int) -> Named:
        """Returns the same for bytes that begin `offset` later."""
        host, port = (
            place and Place(place.start + offset, place.end + offset)
            for place in (self.host, self.port)
        )
        return replace(self, host=host, port=port)


@dataclass(frozen=True)
class World:
    """The addresses that a message may name.

    `own` are the sender's in signalling, `own_media` in descriptions. `bare` says whether ports
    may be left out (None: either way), `has_odd_ports` whether they may have leading zeros.
    """

    own: tuple[str, ...]
    own_media: tuple[str, ...]
    foreign: tuple[str, ...]
    ports: tuple[int, ...] = (5060, 5062, 5061, 40000, 1024, 65535)
    is_bare: bool | None = None
    has_odd_ports: bool = True


class Scribe:
    """Writes bytes by choice, and notes what they name."""

    def __init__(self, choose: Callable[[int], int], world: World, eol: str = "\r\n") -> None:
        self.choose = choose
        self.world = world
        self.eol = eol
        self.out = bytearray()
        self.named: list[Named] = []

    def pick(self, options: Sequence[Option]) -> Option:
        return options[self.choose(len(options))]

    def one_in(self, number: int) -> bool:
        return self.choose(number) == number - 1

    def write(self, *texts: str | bytes) -> Place:
        """Writes the texts; returns where they stand."""
        start = len(self.out)
        for text in texts:
            self.out += text.encode() if isinstance(text, str) else text
        return Place(start, len(self.out))

    def any_of(self, characters: str, most: int = 8) -> str:
        """Returns 1 to `most` of the characters."""
        return "".join(self.pick(characters) for _ in range(1 + self.choose(most)))

    def any_case(self, text: str) -> str:
        return self.pick((text, text, text.lower(), text.upper(), text.swapcase()))

    # SWS = [LWS], LWS = [*WSP CRLF] 1*WSP

    def sws(self) -> str:
        return "" if self.choose(8) < 6 else self.lws()

    def lws(self) -> str:
        fold = self.eol
        if self.choose(4) < 3:
            return " "
        return self.pick(("  ", "\t", f"{fold} ", f" \t{fold}\t ", f"  {fold}   ", f"{fold}\t"))

    def around(self, separator: str) -> str:
        """SEMI, COMMA, EQUAL, SLASH, COLON: the character with SWS on both sides."""
        return self.sws() + separator + self.sws()

    # token = 1*(alphanum / "-" / "." / "!" / "%" / "*" / "_" / "+" / "`" / "'" / "~")

    def token(self) -> str:
        known = ("a", "10.0.0.20", "203.0.113.1", "sip", "0")
        return self.pick((*known, self.any_of(ALPHANUM + "-.!%*_+`'~")))

    # word = 1*(the characters of token / ( ) < > : \ DQUOTE / [ ] ? { })

    def word(self) -> str:
        return self.pick(("abc", "10.0.0.20", self.any_of(ALPHANUM + "-.!%*_+`'~()<>:\\\"/[]?{}")))

    # quoted-string = SWS DQUOTE *(qdtext / quoted-pair) DQUOTE

    def quoted(self) -> str:
        pieces = (
            *("Alice", " ", "<sip:a@10.0.0.20:5060>", ",", ";", '\\"', "\\\\", "caf\u00e9", "="),
            *(f"{self.eol} ", "sip:10.0.0.20", ";tag=x", ";branch=y", ";expires=1", "\\<", "[::1]"),
        )
        return '"' + "".join(self.pick(pieces) for _ in range(self.choose(5))) + '"'

    # TEXT-UTF8-TRIM and header-value: anything, folded anywhere

    def free_text(self) -> str:
        pieces = (
            *(
                "text",
                "10.0.0.20:5060",
                "<sip:10.0.0.20:5060>",
                "a, b; c",
                "\u20ac",
                '"',
                "\\",
                "c=",
            ),
            *("Via: SIP/2.0/UDP 10.0.0.20", "c=IN IP4 10.0.0.20", "{}[]()", "auth-int", "%0d%0a"),
        )
        return self.lws().join(self.pick(pieces) for _ in range(1 + self.choose(4)))

    # generic-param = token [ EQUAL gen-value ]; gen-value = token / host / quoted-string

    def generic_param(self) -> str:
        text = "x" + self.token()
        if self.one_in(3):
            return text
        value = self.pick((self.token(), "[2001:db8::1]", "host.example.com", self.quoted()))
        return text + self.around("=") + value

    def params(self, *known: str) -> str:
        """*( SEMI param ), of the known ones (each once) and generic ones."""
        left = list(known)
        text = ""
        for _ in range(self.choose(4)):
            if left and self.choose(3) < 2:
                param = left.pop(self.choose(len(left)))
            else:
                param = self.generic_param()
            text += self.around(";") + param
        return text
