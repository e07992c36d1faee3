"""SIP messages written from the ABNF of RFC 3261 §25.1, RFC 3581 and their extensions.

`messages()` is the strategy; `write_request` and `write_response` work with any source of choices.
Nothing here knows the gateway's parser: what a message means is noted while it is written. Each
`Message` says which places name the sender's endpoints in the fields that a NAT must translate
(`named`); everything else, however much it looks like an address, must stay.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hypothesis import strategies as st

from tests.alg.abnf_sdp import Body, Stream, default_world, write_multipart, write_sdp
from tests.alg.abnf_text import ALPHANUM, MARK, Named, Place, Scribe, World

METHODS = ("INVITE", "INVITE", "INVITE", "ACK", "UPDATE", "PRACK", "INFO")
OTHER_METHODS = (
    *("REGISTER", "OPTIONS", "BYE", "CANCEL", "SUBSCRIBE", "NOTIFY", "MESSAGE", "REFER", "PUBLISH"),
    *("FOO", "x-Y.z", "!interesting-Method0123456789_*+`.%indeed'~"),
)
COMPACT = {
    **{"Via": "v", "Contact": "m", "From": "f", "To": "t", "Call-ID": "i", "Refer-To": "r"},
    **{"Content-Type": "c", "Content-Length": "l", "Content-Encoding": "e", "Subject": "s"},
    **{"Supported": "k", "Session-Expires": "x", "Event": "o", "Allow-Events": "u"},
    **{"Referred-By": "b", "Accept-Contact": "a", "Reject-Contact": "j", "Identity": "y"},
}
# What a host may be called in an escaped, quoted or otherwise irrelevant place.
EXTENSIONS = (
    ("Authorization", 'Digest username="10.0.0.20", uri="sip:10.0.0.20", qop=auth, response="0"'),
    ("P-Asserted-Identity", '"Alice" <sip:alice@10.0.0.20:5060>, <tel:+1>'),
    ("Referred-By", "<sip:alice@10.0.0.20:5060>;cid=1"),
    ("Replaces", "10.0.0.20@10.0.0.20;to-tag=1;from-tag=2"),
    ("Identity", "eyJhbGciOiJFUzI1NiJ9..c;info=<https://10.0.0.20/c.pem>;alg=ES256"),
    ("History-Info", "<sip:alice@10.0.0.20>;index=1"),
    ("Diversion", "<sip:alice@10.0.0.20:5060>;reason=no-answer"),
    ("Warning", '307 10.0.0.20:5060 "sip:10.0.0.20"'),
    ("User-Agent", "Phone/1.0 (10.0.0.20)"),
    ("Supported", "path, gruu,outbound"),
    ("Accept-Contact", '*;+sip.instance="<sip:10.0.0.20>"'),
    ("Session-Expires", "1800;refresher=uac"),
    ("Allow", "INVITE, ACK\t,BYE"),
    ("Date", "Sat, 13 Nov 2010 23:29:00 GMT"),
    ("Timestamp", "54.1 0.2"),
    ("Expires", "3600"),
    ("Max-Forwards", "70"),
    ("Max-Forwards", "0"),
    ("Event", "refer;id=10.0.0.20"),
)
OTHER_TYPES = ("text/plain", "application/trickle-ice-sdpfrag", "message/sipfrag;version=2.0")
PHRASES = ("OK", "", "10.0.0.20 says: no", "caf\u00e9 (sip:10.0.0.20)")
STATUS = (200, 100, 180, 183, 202, 302, 401, 404, 487, 503, 603)


@dataclass(frozen=True)
class Message:
    """A message, what it names, and what became of its parts while it was written.

    `length` is where Content-Length's digits stand, `body` where the body does; bytes may follow.
    `fields` has the name and the whole text of each field, folds and line end included.
    """

    data: bytes
    method: str
    fields: tuple[tuple[str, bytes], ...]
    named: tuple[Named, ...]
    streams: tuple[Stream, ...]
    length: Place | None
    body: Place
    description: bytes
    has_ports_in_a_row: bool
    from_tag: str


class SipScribe(Scribe):
    """Writes the fields of one message; `names_own` is off where the sender is not at home."""

    names_own = True

    # Via = ( "Via" / "v" ) HCOLON via-parm *(COMMA via-parm)

    def via_values(self) -> None:
        self.listed(self.via_parm)

    def via_parm(self) -> None:
        """via-parm = sent-protocol LWS sent-by *( SEMI via-params )"""
        transport = self.pick(("UDP", "UDP", "UDP", "udp", "TCP", "TLS", "x-new"))
        slash = self.around("/")
        self.write(self.any_case("SIP"), slash, "2.0", self.around("/"), transport, self.lws())
        is_mine = transport.upper() == "UDP"
        self.host_port("via", 5060, is_mine, colon=self.around(":"))
        branch = "branch" + self.around("=") + "z9hG4bK" + self.token()
        known = (branch, "ttl=16", "maddr=233.252.0.1", "received=192.0.2.1", "alias")
        self.write(self.around(";") + branch if self.one_in(2) else "", self.params(*known[1:]))
        if self.one_in(2):
            self.write(self.around(";") + self.any_case("rport"))

    def listed(self, write_one: Callable[[], None]) -> None:
        write_one()
        for _ in range(self.pick((0, 0, 1, 2))):
            self.write(self.around(","))
            write_one()

    # hostport = host [ ":" port ]

    def host_port(
        self, what: str, default: int, is_mine: bool, colon: str = ":", is_tcp: bool = False
    ) -> None:
        world = self.world
        is_own = self.choose(3) < 2
        host = self.pick(world.own if is_own else world.foreign)
        host_place = self.write(host)
        port_place, number = None, default
        if world.is_bare is False or (world.is_bare is None and self.choose(3)):
            number = self.pick(world.ports)
            self.write(colon)
            zeros = "0" if world.has_odd_ports and number < 10000 and self.one_in(16) else ""
            port_place = self.write(zeros + str(number))
        if is_own and is_mine and self.names_own:
            named = Named(what, host, number, host_place, port_place, default, is_tcp)
            self.named.append(named)

    # SIP-URI = "sip:" [ userinfo ] hostport uri-parameters [ headers ]

    def sip_uri(self, what: str, *, is_plain: bool = False) -> None:
        """Writes a SIP or SIPS URI; a plain one has nothing that needs angle brackets."""
        scheme = self.pick(("sip", "sip", "sip", "SIP", "Sip", "sips"))
        self.write(scheme, ":", self.userinfo(is_plain=is_plain))
        transport = "" if is_plain else self.pick(("", "", "", "udp", "tls", "tcp", "ws", "UDP"))
        is_tls = scheme == "sips" or transport == "tls"
        is_mine = transport not in ("tls", "ws")
        self.host_port(what, 5061 if is_tls else 5060, is_mine, is_tcp=transport == "tcp")
        if is_plain:
            return
        left = ["lr", "user=phone", "ob", "gr=urn:uuid:10.0.0.20", "maddr=233.252.0.1", "ttl=1"]
        left.append("x=" + self.any_of(ALPHANUM + MARK + "[]/:&+$"))
        params = [left.pop(self.choose(len(left))) for _ in range(self.choose(3))]
        if transport:
            params.insert(self.choose(len(params) + 1), f"transport={transport}")
        self.write(*(f";{param}" for param in params))
        if self.one_in(8):
            value = self.pick(("10.0.0.20", "%3Csip:10.0.0.20%3E", "a?b/c:d", ""))
            self.write(f"?Subject={value}", self.pick(("", "&x-h=10.0.0.20:5060")))

    def userinfo(self, *, is_plain: bool) -> str:
        """( user / telephone-subscriber ) [ ":" password ] "@" """
        unreserved = ALPHANUM + MARK + ("&=+$" if is_plain else "&=+$,;?/")
        users = ("alice", "", "10.0.0.20", "+1-201-555", "%40%20", self.any_of(unreserved))
        user = self.pick(users if is_plain else (*users, "a;b", "a;x=10.0.0.20"))
        password = self.pick(("", "", ":secret", ":10.0.0.20", ":")) if user else ""
        return f"{user}{password}@" if user else ""

    # name-addr = [ display-name ] LAQUOT addr-spec RAQUOT; display-name = *(token LWS)/ quoted

    def name_addr(self, what: str, *params: str) -> None:
        words = "".join(self.token() + self.lws() for _ in range(self.choose(3)))
        self.write(self.pick(("", words, self.quoted() + self.sws())), "<")
        if self.one_in(8):
            self.write(self.pick(("tel:+1-201-555", "mailto:a@10.0.0.20", "urn:service:sos")))
        else:
            self.sip_uri(what)
        self.write(">", self.sws(), self.params(*params))

    def address(self, what: str, *params: str) -> None:
        """(name-addr / addr-spec) *(SEMI params)"""
        if self.one_in(4):
            self.sip_uri(what, is_plain=True)
            self.write(self.params(*params))
        else:
            self.name_addr(what, *params)

    def contact_values(self) -> None:
        instance = '+sip.instance="<urn:uuid:00000000-0000-1000-8000-AABBCCDDEEFF>"'
        known = ("q=0.7", "expires=3600", "expires=0", instance, "reg-id=1")
        self.listed(lambda: self.address("contact", *known[self.choose(2) * 2 :]))

    def field(self, name: str, *values: str | Callable[[], None]) -> tuple[str, bytes]:
        """message-header = header-name HCOLON header-value CRLF"""
        start = len(self.out)
        written = COMPACT[name] if name in COMPACT and self.one_in(3) else name
        blank = self.pick(("", "", "", " ", "\t", " \t"))
        self.write(self.any_case(written), blank, ":", self.pick((" ", " ", "", self.lws())))
        for value in values:
            if isinstance(value, str):
                self.write(value)
            else:
                value()
        self.write(self.pick(("", "", "", " ")), self.eol)
        return name, bytes(self.out[start:])


def write_request(
    choose: Callable[[int], int], world: World, *, is_echoed: bool = False
) -> Message:
    """Writes a request; an echoed one has no field that a response would not copy."""
    scribe = SipScribe(choose, world)
    scribe.eol = "\n" if scribe.one_in(8) else "\r\n"
    method = scribe.pick(OTHER_METHODS if scribe.one_in(3) else METHODS)
    scribe.write(scribe.pick(("", "", "", "\r\n", "\r\n\r\n")), method, " ")
    if scribe.one_in(6):
        scribe.write(scribe.pick(("tel:+1-201-555", "urn:service:sos", "sip:a;b,c?d:e@h.example")))
    else:
        scribe.sip_uri("request-uri")
    scribe.write(" ", scribe.any_case("SIP"), "/2.0", scribe.eol)
    routing = ("Route", "Record-Route", "Path", "Service-Route", "Refer-To", "Reply-To")
    return _write_rest(scribe, method, () if is_echoed else routing, with_body=not is_echoed)


def write_response(choose: Callable[[int], int], world: World) -> Message:
    """Writes a response of the phone; its Vias are those of the request, and not the phone's."""
    scribe = SipScribe(choose, world)
    scribe.eol = "\n" if scribe.one_in(8) else "\r\n"
    method = scribe.pick(OTHER_METHODS if scribe.one_in(3) else METHODS)
    scribe.write(f"SIP/2.0 {scribe.pick(STATUS)} {scribe.pick(PHRASES)}", scribe.eol)
    return _write_rest(scribe, method, ("Record-Route", "Path", "Service-Route", "Reply-To"), True)


def _write_rest(
    scribe: SipScribe, method: str, routing: tuple[str, ...], with_body: bool
) -> Message:
    is_request = not scribe.out.lstrip().startswith(b"SIP/")
    body = Body(b"", "")
    if with_body and scribe.choose(4):
        body = write_multipart(scribe) if scribe.one_in(4) else write_sdp(scribe)
    has_encoding = bool(body.data) and scribe.one_in(12)
    is_other_type = bool(body.data) and scribe.one_in(12)
    is_left = method not in METHODS or has_encoding or is_other_type
    fields: list[tuple[str, bytes]] = []
    length: list[Place] = []

    def via() -> None:
        scribe.names_own = is_request
        fields.append(scribe.field("Via", scribe.via_values))
        scribe.names_own = True

    def routed(name: str) -> Callable[[], None]:
        what = name.lower()
        if name in ("Refer-To", "Reply-To"):
            return lambda: fields.append(scribe.field(name, lambda: scribe.address(what)))
        values = lambda: scribe.listed(lambda: scribe.name_addr(what, "rr=1"))  # noqa: E731
        return lambda: fields.append(scribe.field(name, values))

    def plain(name: str, *values: str) -> Callable[[], None]:
        return lambda: fields.append(scribe.field(name, *values))

    def content_length() -> None:
        place = lambda: length.append(scribe.write(str(len(body.data))))  # noqa: E731
        fields.append(scribe.field("Content-Length", place))

    from_tag = scribe.any_of(ALPHANUM)
    tag = f"{scribe.around(';')}tag{scribe.around('=')}{from_tag}"
    called = scribe.pick(("", "Bob ", scribe.quoted()))
    call_id = scribe.word() + scribe.pick(("", "@10.0.0.20", "@" + scribe.word()))
    writers = [
        *(via for _ in range(1 + scribe.choose(2))),
        plain("From", f"<sip:alice@10.0.0.20:5060>{scribe.params()}{tag}"),
        plain("To", f"{called}<sip:bob@10.0.0.20>{tag if scribe.one_in(2) else ''}"),
        plain("Call-ID", call_id),
        plain("CSeq", f"{scribe.pick((1, 0, 2**31 - 1))}{scribe.lws()}{method}"),
        *(routed(name) for name in routing if scribe.one_in(4)),
    ]
    if scribe.choose(6):
        for _ in range(1 + scribe.choose(2)):
            writers.append(lambda: fields.append(scribe.field("Contact", scribe.contact_values)))
    elif method == "REGISTER":
        writers.append(plain("Contact", "*"))
    once = dict(scribe.pick(EXTENSIONS) for _ in range(scribe.choose(4)))
    writers += [plain(name, value) for name, value in once.items()]
    writers += [
        plain(f"X-{scribe.any_of(ALPHANUM)}", scribe.free_text()) for _ in range(scribe.choose(3))
    ]
    if body.data:
        content_type = scribe.pick(OTHER_TYPES) if is_other_type else body.content_type
        writers.append(plain("Content-Type", content_type))
    if has_encoding:
        writers.append(plain("Content-Encoding", "gzip"))
    if scribe.choose(4):
        writers.append(content_length)
    while writers:
        writers.pop(scribe.choose(len(writers)))()
    scribe.write(scribe.eol)
    place = scribe.write(body.data)
    if length and scribe.one_in(8):
        scribe.write("\r\nc=IN IP4 10.0.0.20\r\n")
    inner = () if is_left else tuple(named.moved(place.start) for named in body.named)
    streams = () if is_left else tuple(stream.moved(place.start) for stream in body.streams)
    return Message(
        bytes(scribe.out),
        method,
        tuple(fields),
        (*scribe.named, *inner),
        streams,
        length[0] if length else None,
        place,
        body.description,
        body.has_ports_in_a_row and not is_left,
        from_tag,
    )


CHOICES = 1000
_ROLLS = st.binary(min_size=CHOICES, max_size=CHOICES)


def read_choices(rolls: bytes) -> Callable[[int], int]:
    """Returns choices read off bytes: one a choice, and the simplest ones when they are used up."""
    left = iter(rolls)
    return lambda below: next(left, 0) % below


@st.composite
def messages(
    draw: st.DrawFn, world: World | None = None, *, is_echoed: bool = False, kind: str = "any"
) -> Message:
    """Draws a message that a phone sends: a request, a response, or any of both.

    It is one draw of bytes, for one draw a choice would take ten times as long.
    """
    choose = read_choices(draw(_ROLLS))
    world = world or default_world()
    if kind == "request" or (kind == "any" and choose(3) < 2):
        return write_request(choose, world, is_echoed=is_echoed)
    return write_response(choose, world)
