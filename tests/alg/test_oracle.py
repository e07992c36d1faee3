"""What other people's parsers read in a message is what ours reads.

`sipmessage` reads SIP, `sdp-transform` descriptions. sipmessage knows no folded lines, no white
space before a colon and no bare line feeds, so the header block is unfolded first (RFC 3261 §7.3.1
says that this changes nothing). Both refuse or misread some of what the RFCs allow: those
constructs stand in `THEIRS`, each with the rule that allows it, and excuse a value that has one.
Any other disagreement is a fault, theirs or ours.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import sdp_transform
import sipmessage

from alg.sdp.session import Address, Media, parse_sdp
from alg.sip.host_port import HostPort
from alg.sip.message import Field, Malformed, NotSip, SipMessage, parse_message
from alg.sip.name_addr import parse_name_addrs
from alg.sip.uri import parse_uri
from alg.sip.via import branch_of, parse_via
from tests.alg.abnf import read_choices, write_request, write_response
from tests.alg.abnf_sdp import default_world, write_sdp
from tests.alg.abnf_text import Scribe

DRAWN = 300
HEADERS = {"contact": "Contact", "route": "Route", "record-route": "Record-Route"}

THEIRS = {
    "schemes are case-insensitive (RFC 3261 §25.1)": r"(?!sips?:)(?i:sips?):",
    "SIP is case-insensitive in a Via (RFC 3261 §7.3.1)": r"(?!SIP)(?i:sip) ?/",
    "white space around a colon or slash (RFC 3261 §25.1)": r" :|: [0-9]|2\.0 ?/ |SIP |/ 2",
    "headers of a URI (RFC 3261 §19.1.1)": r"\?",
    "URIs of any scheme (RFC 3261 §25.1 absoluteURI)": (
        r'(?i)<(?!sips?:)[a-z]+:[^<>]*>(?!")|\A(?!sips?:)[a-z]+:'
    ),
    "an addr-spec ends at a comma (RFC 3261 §20.10)": r"(?:\A|,) ?sips?:[^<> ;]*,",
    "an empty password (RFC 3261 §25.1 password)": r":@",
    "semicolons and the like in a quoted string (RFC 3261 §25.1 qdtext)": r'"[^"]*[;,=][^"]*"',
    "an empty parameter of the field, which phones write": r";\s*(?:;|,|\Z)|=\s*(?:;|,|\Z)",
    "white space before a comma (RFC 3261 §25.1 COMMA)": r" ,",
    "received with a port, or IPv6 without brackets (RFC 5118 §4.5)": r"received=[^;,\s]*:",
    "no scheme: no URI, which ours leaves alone": r"\A(?:[^<:]*<)?[^:]*@[^:]*\Z",
    "a tag that is no token, which ours reads as phones do": r"tag=[^;]*\^",
    "a placeholder of a test tool": r"\$",
}


def normal(data: bytes) -> bytes:
    """Returns the message with CRLF in its head, nothing folded, no space before a colon."""
    head, *rest = re.split(rb"\r?\n\r?\n", data.lstrip(b"\r\n"), maxsplit=1)
    lines = re.sub(rb"[ \t]*\r?\n[ \t]+", b" ", head).replace(b"\r\n", b"\n").split(b"\n")
    names = [re.sub(rb"^([^\s:]+)[ \t]*:[ \t]*", rb"\1: ", line.rstrip()) for line in lines[1:]]
    return b"\r\n".join([b"OPTIONS sip:x SIP/2.0", *names]) + b"\r\n\r\n" + b"".join(rest)


def is_excused(value: str) -> bool:
    return any(re.search(pattern, value) for pattern in THEIRS.values())


def simple(value: bytes | str) -> str:
    """Returns the value with its white space simplified (RFC 3261 §7.3.1)."""
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    return " ".join(text.split())


class Comparison:
    """Compares one message after the other; counts what both have read."""

    def __init__(self) -> None:
        self.agreed: Counter[str] = Counter()
        self.wrong: list[tuple[str, str, object, object]] = []

    def value(
        self, what: str, text: str, ours: object, theirs: Callable[..., object], *given: object
    ) -> None:
        """Compares one value, unless it has something that the other parser does not know."""
        try:
            read = theirs(*given)
        except (ValueError, KeyError, TypeError):
            read = "refused"
        if ours == read:
            self.agreed[what] += 1
        elif not is_excused(text):
            self.wrong.append((what, text, ours, read))

    def message(self, data: bytes) -> None:
        ours = parse_message(data)
        try:
            theirs = sipmessage.Message.parse(normal(data))
        except ValueError:
            self.agreed["not theirs"] += 1
            return
        headers = theirs.headers
        self._start_line(ours)
        vias = [field for field in ours.fields if field.name == "via"]
        for via, text in zip(vias, headers.getlist("Via"), strict=True):
            text = simple(text)
            self.value("via", text, _vias(ours, via.start, via.end), _their_vias, text)
        for name, header in HEADERS.items():
            own = [field for field in ours.fields if field.name == name]
            for field, text in zip(own, headers.getlist(header), strict=True):
                text = simple(text)
                if text != "*":
                    self.value(name, text, _hosts(ours, field), _their_hosts, text)
        for header, tag in (("From", ours.from_tag), ("To", ours.to_tag)):
            text = simple(headers[header])
            self.value(header, text, tag.decode(), _their_tag, text)
        self.value("Call-ID", "", simple(ours.call_id), lambda: simple(headers["Call-ID"]))
        cseq = (ours.cseq, ours.method.decode())
        self.value("CSeq", "", cseq, lambda: (theirs.cseq.sequence, theirs.cseq.method))

    def _start_line(self, ours: SipMessage) -> None:
        line = ours.data.lstrip(b"\r\n").splitlines()[0].decode("utf-8", "replace")
        if not ours.is_request:
            self.value("status", "", str(ours.status), lambda: line.split(" ")[1])
            return
        text = ours.data[slice(*ours.request_uri)].decode("utf-8", "replace")
        uri = parse_uri(ours.data, *ours.request_uri)

        def theirs() -> object:
            read = sipmessage.URI.parse(text)
            return read.host, read.port

        named = _host_and_port(ours.data, uri) if uri else ("", None)
        self.value("Request-URI", text, named, theirs)
        self.value("method", "", ours.method.decode(), lambda: line.split(" ")[0])

    def description(self, data: bytes) -> None:
        ours = parse_sdp(data, 0, len(data))
        theirs = sdp_transform.parse(data.decode("latin-1"))
        self._address("o=", _written(data, ours.origin), theirs.get("origin"), "address", "ipVer")
        session = theirs.get("connection")
        sections = [one for one in theirs["media"] if one.get("protocol")]
        streams = [one for one in ours.media if _is_theirs(data, one)]
        self.value("m= lines", "", len(streams), lambda: len(sections))
        for stream, section in zip(streams, sections, strict=False):
            port = section["port"] if section["port"] < 65536 else 0
            read = (stream.kind.decode(), stream.port, stream.protocol.name.decode())
            wanted = (section["type"], port, section["protocol"])
            self.value("m=", "", read, tuple, wanted)
            given = section.get("connection", session)
            self._address("c=", _written(data, stream.connection), given, "ip", "version")
            rtcp = section.get("rtcp")
            if rtcp is not None and rtcp["port"] < 65536:
                self.value("a=rtcp", "", stream.rtcp and stream.rtcp.port, int, rtcp["port"])

    def _address(self, what: str, ours: object, theirs: object, name: str, family: str) -> None:
        if not isinstance(theirs, dict) or name not in theirs:
            self.value(what, "", ours, lambda: None)
            return
        text = str(theirs[name]).partition("/")[0]
        self.value(what, "", ours, lambda: (text, theirs[family]))


def _written(data: bytes, address: Address | None) -> object:
    """Returns an address as it stands there, and its family."""
    if address is None:
        return None
    return data[address.start : address.end].decode("latin-1"), address.family


def _is_theirs(data: bytes, stream: Media) -> bool:
    """Whether sdp-transform reads the m= line: it knows no port counts and only words as kinds."""
    is_counted = data.startswith(b"/", stream.port_end)
    is_plain = re.fullmatch(rb"\w+ [\w/]+", stream.kind + b" " + stream.protocol.name)
    return is_plain is not None and not is_counted


def _host_and_port(data: bytes, named: HostPort) -> tuple[str, int | None]:
    host = data[named.host_start : named.host_end].decode("utf-8", "replace")
    return host, None if named.is_bare else int(data[named.port_start : named.port_end])


def _vias(message: SipMessage, start: int, end: int) -> list[object]:
    vias, is_whole = parse_via(message.data, start, end)
    assert is_whole
    return [
        (
            via.transport.decode(),
            *_host_and_port(message.data, via),
            branch_of(message.data, via).decode(),
        )
        for via in vias
    ]


def _their_vias(text: str) -> list[object]:
    return [
        (via.transport.lower(), via.host, via.port, via.parameters.get("branch") or "")
        for via in sipmessage.Via.parse_many(text)
    ]


def _hosts(message: SipMessage, field: Field) -> object:
    values, is_whole = parse_name_addrs(message.data, field.start, field.end)
    if not is_whole:
        return "refused"
    uris = [value.uri for value in values]
    return [_host_and_port(message.data, uri) for uri in uris if uri is not None]


def _their_hosts(text: str) -> list[object]:
    return [
        (one.uri.host, one.uri.port) for one in sipmessage.Address.parse_many(text) if one.uri.host
    ]


def _their_tag(text: str) -> str:
    return sipmessage.Address.parse(text).parameters.get("tag") or ""


def test_drawn_messages_are_read_alike() -> None:
    comparison = Comparison()
    for seed in range(DRAWN):
        choose = read_choices(random.Random(seed).randbytes(1600))
        write = write_response if seed % 3 == 0 else write_request
        comparison.message(write(choose, default_world()).data)
    assert not comparison.wrong
    agreed = comparison.agreed
    assert agreed["via"] > DRAWN // 4
    assert agreed["contact"] > DRAWN // 20
    assert min(agreed["From"], agreed["Call-ID"], agreed["CSeq"]) > DRAWN // 2


def test_drawn_descriptions_are_read_alike() -> None:
    comparison = Comparison()
    for seed in range(DRAWN):
        choose = read_choices(random.Random(seed).randbytes(400))
        comparison.description(write_sdp(Scribe(choose, default_world())).data)
    assert not comparison.wrong
    assert min(comparison.agreed[what] for what in ("o=", "c=", "m=", "a=rtcp")) > DRAWN // 30


def test_real_messages_are_read_alike(cases: Path) -> None:
    comparison = Comparison()
    for path in [*(cases / "messages").glob("*.sip"), *(cases / "flows").rglob("*.sip")]:
        try:
            comparison.message(path.read_bytes())
        except (Malformed, NotSip):
            continue
    assert not comparison.wrong
    assert min(comparison.agreed[what] for what in ("via", "contact", "From", "To")) > 200


def test_real_descriptions_are_read_alike(cases: Path) -> None:
    comparison = Comparison()
    for path in (cases / "sdp").glob("*.sdp"):
        data = path.read_bytes()
        is_whole = re.search(rb"(?m)^o=(?:\S+ ){5}\S+\s*$", data)  # RFC 8866 §5.2
        if is_whole and b"[media_ip" not in data:
            comparison.description(data)
    assert not comparison.wrong
    assert min(comparison.agreed[what] for what in ("o=", "c=", "m=")) > 1000


@pytest.mark.parametrize("text", ["sip:a@b", "SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1"])
def test_what_both_know_is_not_excused(text: str) -> None:
    assert not is_excused(text)
