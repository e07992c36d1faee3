"""What must hold for every message, tried on messages drawn from the RFC's grammar.

`Writer` writes what RFC 3261 §25.1 allows: any order of fields, any case and compact form of their
names, white space and folds where LWS may stand, lists and repeats, quoted strings, parameters
nobody knows, own and foreign addresses side by side, with or without body and Content-Length. It
knows nothing of the parser.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alg.sip.message import Malformed, NotSip, parse_message
from alg.verdict import Outcome, Reason, Verdict
from nat_table.endpoint import Endpoint
from tests.alg.playbook import PHONE, PHONE_2, Playbook, invite, register, response, sdp

OWN = "10.0.0.20"
HOSTS = (OWN, OWN, OWN, "10.0.0.2", "10.0.0.21", "198.51.100.7", "pbx.lan", "[::1]", "1.10.0.0.20")
PORTS = (5060, 5062, 40000, 1024, 65535)
SPACES = ("", "", "", " ", "\t", "\r\n ", " \r\n\t ")
TOKENS = ("a", "b1", "Z-9.!%*_+`'~", "10.0.0.20", "0")
NOISE = ("plain", "10.0.0.20:5060", "<sip:10.0.0.20:5060>", "a, b; c", "caf\u00e9", '\\"', "c=")
METHODS = (
    "INVITE",
    "INVITE",
    "INVITE",
    "REGISTER",
    "OPTIONS",
    "UPDATE",
    "ACK",
    "BYE",
    "FOO",
    "x-Y.z",
)
COMPACT = {"Via": "v", "Contact": "m", "From": "f", "To": "t", "Call-ID": "i", "Refer-To": "r"}
ROUTING = ("Route", "Record-Route", "Path", "Service-Route", "Reply-To", "Refer-To")
NEVER = (
    *("Authorization", "P-Asserted-Identity", "Referred-By", "Replaces", "Subject", "User-Agent"),
    *("Warning", "X-Own", "Diversion", "History-Info"),
)

Option = TypeVar("Option")


class Dice:
    """Choices read off drawn bytes: one draw a message, and zeros are the simplest message."""

    def __init__(self, rolls: bytes) -> None:
        self._rolls = iter(rolls)

    def pick(self, options: Sequence[Option]) -> Option:
        return options[next(self._rolls, 0) % len(options)]

    def number(self, below: int) -> int:
        return self.pick(range(below))

    def joined(self, *parts: str) -> str:
        """Joins the parts with white space of any kind."""
        text = parts[0]
        for part in parts[1:]:
            text += self.pick(SPACES) + part
        return text


@dataclass(frozen=True)
class Drawn:
    """A message as it was written: its start line, its fields in order, its body."""

    start: str
    fields: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def data(self) -> bytes:
        head = self.start + "".join(text for _, text in self.fields)
        return head.encode() + b"\r\n" + self.body

    def with_start(self, start: str) -> bytes:
        return start.encode() + self.data[len(self.start.encode()) :]


class Writer:
    """Writes messages; `ports` are those that an address may be followed by, None for no port."""

    def __init__(self, rolls: bytes, ports: Sequence[int | None] = (None, *PORTS)) -> None:
        self.dice = Dice(rolls)
        self.ports = ports

    def message(self, *, is_echoed: bool = False) -> Drawn:
        """Writes a request; what only a request carries is left out if it `is_echoed`."""
        dice = self.dice
        method = dice.pick(METHODS)
        body = b"" if is_echoed or dice.number(3) == 0 else self.body()
        fields = [("Via", self.list_of(self.via)) for _ in range(1 + dice.number(3))]
        for name in ("Contact", "Contact", *(() if is_echoed else ROUTING)):
            if dice.number(2):
                fields.append((name, self.list_of(self.name_addr)))
        fields += [
            ("From", f"<sip:alice@{OWN}:5060>;tag={dice.pick(TOKENS)}"),
            ("To", f'"{OWN}" <sip:bob@{OWN}>'),
            ("Call-ID", f"{dice.pick(TOKENS)}@{OWN}"),
            ("CSeq", f"{dice.pick((0, 1, 2**31 - 1))} {method}"),
        ]
        fields += [(dice.pick(NEVER), dice.pick(NOISE)) for _ in range(dice.number(4))]
        if body:
            kinds = ("application/sdp", "application/sdp", "Application / SDP ;x=y", "text/plain")
            fields.append(("Content-Type", dice.pick(kinds)))
        if dice.number(2):
            fields.append(("Content-Length", str(len(body))))
        for place in range(len(fields)):
            other = place + dice.number(len(fields) - place)
            fields[place], fields[other] = fields[other], fields[place]
        written = tuple((name, self.field(name, value)) for name, value in fields)
        return Drawn(f"{method} sip:bob@{dice.pick(HOSTS)} SIP/2.0\r\n", written, body)

    def field(self, name: str, value: str) -> str:
        names = (name, name.lower(), name.upper(), COMPACT.get(name, name))
        return f"{self.dice.pick(names)}{self.dice.pick((': ', ':', ' : ', ':' + FOLD))}{value}\r\n"

    def list_of(self, write: Callable[[], str]) -> str:
        text = write()
        for _ in range(self.dice.pick((0, 0, 1, 2))):
            text = self.dice.joined(text, ",", write())
        return text

    def via(self) -> str:
        dice, port = self.dice, self.dice.pick(self.ports)
        sent_by = dice.pick(HOSTS)
        if port is not None:
            sent_by = dice.joined(sent_by, ":", str(port))
        protocol = dice.joined("SIP", "/", "2.0", "/", "UDP")
        branch = dice.joined("", ";", f"branch=z9hG4bK{dice.pick(TOKENS)}")
        return f"{protocol} {sent_by}{branch}{self.params()}"

    def name_addr(self) -> str:
        dice, port = self.dice, self.dice.pick(self.ports)
        user = dice.pick(("alice@", "", "10.0.0.20@", "a;b=10.0.0.20@", "a:secret@"))
        uri = f"{dice.pick(('sip', 'SIP', 'Sip'))}:{user}{dice.pick(HOSTS)}"
        if port is not None:
            uri += f":{port}"
        if ";" not in user and dice.number(4) == 0:
            return uri + self.params()
        tail = dice.pick(("", ";lr", ";transport=udp;ob", ";x=10.0.0.20?Subject=10.0.0.20"))
        display = dice.pick(("", "Alice ", "A. B ", self.quoted()))
        return f"{display}{dice.pick(SPACES)}<{uri}{tail}>{self.params()}"

    def params(self) -> str:
        dice, text = self.dice, ""
        for _ in range(dice.pick((0, 0, 1, 2))):
            text += dice.joined("", ";", f"x{dice.pick(TOKENS)}")
            if value := dice.pick(("", dice.pick(TOKENS), self.quoted())):
                text += dice.joined("", "=", value)
        return text

    def quoted(self) -> str:
        return '"' + " ".join(self.dice.pick(NOISE) for _ in range(self.dice.number(3))) + '"'

    def body(self) -> bytes:
        dice = self.dice
        hosts = (OWN, OWN, "10.0.0.21", "0.0.0.0", "198.51.100.7")
        lines = ["v=0", f"o=- 1 1 IN IP4 {dice.pick(hosts)}", f"s={OWN}", "t=0 0"]
        lines.append(f"c=IN IP4 {dice.pick(hosts)}")
        for _ in range(dice.number(4)):
            port, protocol = (
                dice.pick((4000, 4002, 4005, 60000, 0, 9)),
                ("RTP/AVP", "udptl", "TCP/X"),
            )
            lines.append(f"m=audio {port} {dice.pick(protocol)} 0")
            more = (
                "a=sendrecv",
                f"c=IN IP4 {dice.pick(hosts)}",
                f"a=rtcp:4011 IN IP4 {dice.pick(hosts)}",
                "a=rtcp:4001",
                "a=rtcp-mux",
                f"a=candidate:1 1 UDP 1 {OWN} 4000 typ host",
            )
            lines += {line[:6]: line for line in (dice.pick(more), dice.pick(more))}.values()
        end = dice.pick(("\r\n", "\n"))
        return (end.join(lines) + dice.pick((end, ""))).encode()


FOLD = "\r\n "
ROLLS = st.binary(min_size=256, max_size=256)
MANY = settings(max_examples=2 * settings().max_examples)


def busy_playbook() -> Playbook:
    """Returns a playbook where phone 2 has the ports that phone 1 would like to keep."""
    play = Playbook()
    play.outbound(register(PHONE_2), PHONE_2)
    play.outbound(invite(PHONE_2, sdp("10.0.0.21", 4000)), PHONE_2)
    return play


def rewritten(play: Playbook, message: Drawn) -> Outcome:
    outcome = play.outbound(message.data)
    if outcome.reason is not Reason.NO_FREE_PORT:
        assert outcome.reason in (Reason.REWRITTEN, Reason.NOTHING_TO_CHANGE), outcome
    return outcome


@given(ROLLS)
def test_a01_a04_a05_a14_a34_what_changes_and_what_stays(rolls: bytes) -> None:
    message = Writer(rolls).message()
    play = Playbook() if rolls[-1] % 2 else busy_playbook()
    outcome = rewritten(play, message)
    payload = outcome.payload
    _only_the_edits_differ(message.data, outcome)
    _untouchable_fields_stay(message, payload)
    _content_length_is_right(message, payload)
    _no_internal_address_is_routed(payload)
    assert play.outbound(message.data).payload == payload, "same request, same answer"
    for source in (Endpoint("198.51.100.77", 5060), Endpoint("10.0.0.99", 5060)):
        again = play.outbound(payload, source)
        assert (again.payload, again.edits) == (payload, ()), "rewritten twice"


def _only_the_edits_differ(data: bytes, outcome: Outcome) -> None:
    rest, end = outcome.payload, 0
    for edit in outcome.edits:
        before = data[end : edit.start]
        assert rest.startswith(before + edit.new)
        rest, end = rest[len(before) + len(edit.new) :], edit.end
        replaced = data[edit.start : edit.end]
        assert re.fullmatch(rb"10\.0\.0\.20|:?[0-9]+|", replaced), edit
        assert edit.what != "a=rtcp" or replaced or edit.new.strip().startswith(b"a=rtcp:")
    assert rest == data[end:]


def _untouchable_fields_stay(message: Drawn, payload: bytes) -> None:
    assert payload.startswith(message.start.encode())
    for name, text in message.fields:
        if name in (*NEVER, "From", "To", "Call-ID", "CSeq", "Content-Type"):
            assert text.encode() in payload


def _content_length_is_right(message: Drawn, payload: bytes) -> None:
    head, _, body = payload.partition(b"\r\n\r\n")
    lengths = re.findall(rb"(?im)^content-length[ \t]*:\s*([0-9]+)", head)
    assert lengths == [b"%d" % len(body)] * len(lengths)
    assert len(lengths) == sum(name == "Content-Length" for name, _ in message.fields)
    assert payload[slice(*parse_message(payload).body)] == body


def _no_internal_address_is_routed(payload: bytes) -> None:
    head, _, body = payload.partition(b"\r\n\r\n")
    for line in re.split(rb"\r\n(?![ \t])", head):
        name = line.partition(b":")[0].strip().lower().decode()
        line = re.sub(rb'"(?:[^"\\]|\\.)*"', b"", line)
        if name in ("via", "v"):
            assert not re.search(rb"UDP[ \t]+10\.0\.0\.20(?![0-9])", line)
        elif name in ("contact", "m", "r", *map(str.lower, ROUTING)):
            assert not re.search(rb"(?i)sip:([^@>]*@)?10\.0\.0\.20(?![0-9.@;=])", line)
    if head.startswith(b"INVITE") and b"application/sdp" in head.lower():
        assert not re.search(rb"(?m)^[oc]=.* 10\.0\.0\.20\r?$", body)


@given(ROLLS)
def test_a13_a25_a_response_reads_as_the_phone_wrote_it(rolls: bytes) -> None:
    """Where the mapping is on another port, a phone writes its port always or never."""
    is_busy, has_port = rolls[-1] % 2, rolls[-2] % 2
    ports = (PORTS if has_port else (None,)) if is_busy else (None, *PORTS)
    message = Writer(rolls, ports).message(is_echoed=True)
    play = busy_playbook() if is_busy else Playbook()
    sent = rewritten(play, message)
    answer = "SIP/2.0 200 OK\r\n"
    arriving = answer.encode() + sent.payload[len(message.start.encode()) :]
    assert play.inbound(arriving).payload == message.with_start(answer)


SEEDS = (
    invite(PHONE, sdp(OWN, 4000, "a=rtcp:4001 IN IP4 10.0.0.20")),
    invite(PHONE, b"--b\r\nContent-Type: application/sdp\r\n\r\nv=0\r\n--b--\r\n").replace(
        b"application/sdp\r\nContent-Length", b"multipart/mixed;boundary=b\r\nContent-Length"
    ),
    register(
        PHONE, 'Contact: "x" <sip:a@10.0.0.20>;expires=5, <tel:1>', "Route: <sip:10.0.0.20;lr>"
    ),
    response(invite(PHONE), 200, body=sdp("203.0.113.1", 4000), contact="<sip:b@203.0.113.10>"),
)
PIECES = (
    *(
        b"\r\n",
        b"\n",
        b"\r",
        b" ",
        b"\t",
        b":",
        b";",
        b",",
        b'"',
        b"<",
        b">",
        b"\\",
        b"\0",
        b"\xff",
    ),
    *(b"=", b"\r\n ", b"9" * 30, b"10.0.0.20", b"Via: ", b"l: 5\r\n", b"", b"--b\r\n", b"/2 "),
    b"m=audio 99999 RTP/AVP 0\r\n",
)


def mutated(rolls: bytes) -> bytes:
    """Returns a message with pieces cut out, put in, or repeated."""
    dice = Dice(rolls)
    data = dice.pick(SEEDS)
    for _ in range(1 + dice.number(5)):
        start = (dice.number(256) * 256 + dice.number(256)) % (len(data) + 1)
        end = min(len(data), start + dice.pick((0, 0, 1, 2, 20)))
        data = data[:start] + dice.pick((*PIECES, data[start:end] * 3)) + data[end:]
    return data


@MANY
@given(st.one_of(st.binary(max_size=200), st.binary(min_size=24, max_size=24).map(mutated)))
def test_a85_a03_hostile_bytes_are_parsed_or_refused_and_never_hurt(data: bytes) -> None:
    try:
        parse_message(data)
        is_sip = True
    except (NotSip, Malformed):
        is_sip = False
    play = Playbook()
    play.outbound(register(PHONE))
    for outcome in (play.outbound(data), play.inbound(data), play.hairpin(data)):
        assert outcome.reason is not Reason.ERROR, outcome.detail
        assert is_sip or outcome.payload == data
        assert outcome.verdict is not Verdict.DROPPED


@pytest.mark.parametrize("place", ["header", "value", "body", "list"])
def test_a85_large_messages_are_no_burden(place: str) -> None:
    """60 kB of one thing, in the form that makes patterns start over."""
    head = invite(PHONE).partition(b"\r\n\r\n")[0].replace(b"Content-Length: 0", b"X: y")
    pile = {
        "header": b"X: y\r\n" * 10000,
        "value": b"Contact: " + b'"\\"' * 20000 + b"\r\n",
        "list": b"Contact: " + b"<sip:a@10.0.0.20>, " * 3000 + b"<sip:a@10.0.0.20>\r\n",
        "body": b"Content-Type: application/sdp\r\n",
    }[place]
    body = b"c=IN IP4 10.0.0.20\n" * 3000 if place == "body" else b""
    outcome = Playbook().outbound(head + b"\r\n" + pile + b"\r\n" + body)
    assert outcome.reason in (Reason.REWRITTEN, Reason.MALFORMED)
