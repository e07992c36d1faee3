"""Session descriptions (RFC 8866 §9, RFC 3605, 4975, 5761) and multipart bodies (RFC 2046, 5621).

Written from their grammars into a `Scribe`, which notes every place that names an address or a port
of the sender. What a stream needs is noted too (`Stream`), because an RTCP port that cannot stay
next to its RTP port must appear as a line of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.alg.abnf_text import Named, Place, Scribe, World

RTP_PORTS = (4000, 4002, 4005, 49170, 20002, 65534)
RTP_PROTOCOLS = ("RTP/AVP", "RTP/SAVPF", "UDP/TLS/RTP/SAVPF", "rtp/avp")
DIRECT = ("10.0.0.2", "10.0.0.21", "110.0.0.20", "198.51.100.7", "203.0.113.1", "0.0.0.0")
ATTRIBUTES = (
    *("sendrecv", "inactive", "rtpmap:0 PCMU/8000", "ptime:20", "mid:1", "group:BUNDLE 1 2"),
    *(
        "rtcp-mux",
        "rtcp-fb:* nack",
        "rtcp-rsize",
        "setup:actpass",
        "x-own:10.0.0.20",
        "bundle-only",
    ),
    "candidate:1 1 UDP 2130706431 10.0.0.20 4000 typ host",
    "candidate:2 1 UDP 1 203.0.113.1 4000 typ srflx raddr 10.0.0.20 rport 4000",
    "crypto:1 AES_CM_128_HMAC_SHA1_80 inline:c=IN/IP4/10.0.0.20",
    "fingerprint:sha-256 00:11:22",
    "fmtp:101 c=IN IP4 10.0.0.20",
    "rtcp-xr:rcvr-rtt=all",
)


@dataclass(frozen=True)
class Stream:
    """An own RTP stream that names no RTCP port: such a line is added at `end` where it is needed.

    It is needed where the external RTCP port is not the one after the external RTP port.
    """

    address: str
    port: int
    end: int

    def moved(self, offset: int) -> Stream:
        """Returns the same for bytes that begin `offset` later."""
        return Stream(self.address, self.port, self.end + offset)


class SdpScribe(Scribe):
    """Writes one session description."""

    def __init__(self, scribe: Scribe) -> None:
        super().__init__(scribe.choose, scribe.world, "\n" if scribe.one_in(8) else "\r\n")
        self.streams: list[Stream] = []
        self.has_ports_in_a_row = False

    def line(self, text: str) -> None:
        self.write(text, self.eol)

    # session-description = version-field origin-field session-name-field [information-field]
    #   [uri-field] *email-field *phone-field [connection-field] *bandwidth-field
    #   1*time-description [key-field] *attribute-field *media-description

    def session(self) -> None:
        self.line("v=0")
        user = self.pick(("-", "alice", "10.0.0.20", "c=IN"))
        self.write(f"o={user} {self.pick(('1', '4294967297'))} {self.choose(200)} ")
        self.address("o=")
        self.write(self.eol)
        self.line(self.pick(("s=-", "s= ", "s=10.0.0.20", "s=IN IP4 10.0.0.20")))
        for text in ("i=c=IN IP4 10.0.0.20", "u=http://10.0.0.20/", "e=a@10.0.0.20", "p=+1 2"):
            if self.one_in(8):
                self.line(text)
        has_connection = self.choose(4) < 3
        host = self.connection() if has_connection else None
        if self.one_in(4):
            self.line("b=AS:64")
        self.line("t=0 0")
        if self.one_in(8):
            self.line("r=7d 1h 0 25h")
        self.attributes()
        for _ in range(self.choose(4)):
            self.media(host, must_connect=not has_connection)

    # connection-field = %s"c" "=" nettype SP addrtype SP connection-address CRLF

    def connection(self) -> str:
        self.write("c=")
        host = self.address("c=")
        self.write(self.eol)
        return host

    def address(self, what: str) -> str:
        """nettype SP addrtype SP address; returns an own or direct one, "ip6", or ""."""
        kinds = ("own", "own", "own", "direct", "ip6", "name", "multicast")
        kind = self.pick(kinds[:6] if what == "o=" else kinds)
        if kind == "own":
            host = self.pick(self.world.own_media)
            self.write(f"IN {family_of(host)} ")
            self.named.append(Named(what, host, 0, self.write(host), None))
            return host
        if kind == "direct":
            host = self.pick(DIRECT)
            self.write(f"IN IP4 {host}")
            return host
        others = {"ip6": "IN IP6 2001:db8::1", "name": "IN IP4 10.0.0.20.example.com"}
        self.write(others.get(kind, "IN IP4 233.252.0.1/127/3"))
        return "ip6" if kind == "ip6" else ""

    def attributes(self) -> None:
        for _ in range(self.choose(3)):
            self.line(f"a={self.pick(ATTRIBUTES)}")

    # media-field = %s"m" "=" media SP port ["/" integer] SP proto 1*(SP fmt) CRLF

    def media(self, session_host: str | None, *, must_connect: bool) -> None:
        kind = self.pick(("rtp", "rtp", "rtp", "udptl", "msrp", "bfcp", "off"))
        number = self.pick((0, 9) if kind == "off" else RTP_PORTS)
        protocol = {
            **{"udptl": "udptl", "msrp": "TCP/MSRP", "bfcp": "TCP/BFCP"},
            "off": "RTP/AVP",
        }.get(kind) or self.pick(RTP_PROTOCOLS)
        count = 1
        if kind == "rtp" and number < 65000 and self.one_in(8):
            count = 2
            self.has_ports_in_a_row = True
        self.write(f"m={self.pick(('audio', 'video', 'image', 'message', 'x-new'))} ")
        port = self.write(str(number))
        self.write("/2" if count == 2 else "", f" {protocol} {self.pick(('0', '0 8 101', '*'))}")
        self.write(self.eol)
        if self.one_in(8):
            self.line("i=m=audio 4000 RTP/AVP 0")
        host = session_host
        if must_connect or self.one_in(3):
            host = self.connection()
        self.attributes()
        names_rtcp = kind == "rtp" and count == 1 and self.one_in(3)
        if names_rtcp:
            self.rtcp(host or "", number)
        if kind == "msrp" and self.one_in(2):
            self.path(number)
        self.attributes()
        if host in self.world.own_media and kind in ("rtp", "udptl"):
            self.named.append(Named("m=", host, number, None, port))
            if kind == "rtp" and not names_rtcp:
                self.streams.append(Stream(host, number, len(self.out) - len(self.eol)))

    # rtcp-attribute = "a=rtcp:" port [nettype space addrtype space connection-address] CRLF

    def rtcp(self, host: str, number: int) -> None:
        """Writes an a=rtcp line for a stream whose c= names `host`."""
        form = self.pick(("port", "same", "browser", "foreign", "own"))
        if form == "browser":
            self.line("a=rtcp:9 IN IP4 0.0.0.0")
            return
        if form == "foreign" or (form == "same" and host in ("", "ip6")):
            self.line("a=rtcp:4711 IN IP4 198.51.100.77")
            return
        self.write("a=rtcp:")
        value = self.pick((number + 1, 4011, 4003))
        port = self.write(str(value))
        address = self.pick(self.world.own_media) if form == "own" else host
        place: Place | None = None
        if form != "port":
            self.write(f" IN {family_of(address)} ")
            place = self.write(address)
        self.write(self.eol)
        if address in self.world.own_media:
            self.named.append(Named("a=rtcp", address, value, place, port))

    # path-attr = "a=path:" MSRP-URI *(SP MSRP-URI) (RFC 4975 §8.1)

    def path(self, number: int) -> None:
        self.write("a=path:msrp://", self.pick(("", "alice@")))
        if self.one_in(2):
            host = self.pick(self.world.own_media)
            begin, end = ("[", "]") if ":" in host else ("", "")
            self.write(begin)
            self.named.append(Named("a=path", host, 0, self.write(host), None))
            self.write(end)
        else:
            self.write("msrp.example.com")
        self.write(f":{number}/s10.0.0.20;tcp", self.eol)


@dataclass(frozen=True)
class Body:
    """A body, its type, and what it names (places from its own beginning)."""

    data: bytes
    content_type: str
    named: tuple[Named, ...] = ()
    streams: tuple[Stream, ...] = ()
    has_ports_in_a_row: bool = False
    description: bytes = b""


def write_sdp(scribe: Scribe) -> Body:
    """Writes a session description as the whole body."""
    sdp = SdpScribe(scribe)
    sdp.session()
    slash = scribe.around("/") if scribe.one_in(4) else "/"
    content_type = scribe.any_case("application") + slash + scribe.any_case("sdp")
    content_type += scribe.params("charset=utf-8", 'profile="a;b"')
    data = bytes(sdp.out)
    return Body(
        data,
        content_type,
        tuple(sdp.named),
        tuple(sdp.streams),
        sdp.has_ports_in_a_row,
        data,
    )


# multipart-body := [preamble CRLF] dash-boundary transport-padding CRLF body-part
#   *encapsulation close-delimiter transport-padding [CRLF epilogue]


def write_multipart(scribe: Scribe, depth: int = 0) -> Body:
    """Writes a multipart body of up to three parts, one of which is a session description."""
    boundary = scribe.pick(("b", "unique-boundary-1", "a'()+_,-./:=?b", "==c==")) + str(depth)
    part = Scribe(scribe.choose, scribe.world)
    if part.one_in(4):
        part.write("This preamble says c=IN IP4 10.0.0.20\r\n")
    inner: Body | None = None
    start = 0
    before, after = part.choose(2), part.choose(2)
    for place in range(before + 1 + after):
        part.write("\r\n" if place else "", f"--{boundary}")
        part.write(part.pick(("", "", " ", " \t")), "\r\n")
        if place != before:
            _write_other_part(part)
            continue
        is_nested = depth < 2 and part.one_in(4)
        inner = write_multipart(part, depth + 1) if is_nested else write_sdp(part)
        _write_part_head(part, inner.content_type)
        start = part.write(inner.data).start
    part.write(
        f"\r\n--{boundary}--", part.pick(("", "", "\r\n", "\r\nepilogue c=IN IP4 10.0.0.20"))
    )
    assert inner is not None
    kind = part.any_case("multipart") + "/" + part.pick(("mixed", "alternative", "related"))
    quote = '"' if set(boundary).intersection("()+,/:=?'") or part.one_in(3) else ""
    content_type = f"{kind}{part.around(';')}{part.any_case('boundary')}={quote}{boundary}{quote}"
    if part.one_in(3):
        content_type += ";x=y"
    return Body(
        bytes(part.out),
        content_type,
        tuple(named.moved(start) for named in inner.named),
        tuple(stream.moved(start) for stream in inner.streams),
        inner.has_ports_in_a_row,
        inner.description,
    )


def _write_part_head(part: Scribe, content_type: str) -> None:
    heads = [f"{part.any_case('Content-Type')}: {content_type}"]
    if part.one_in(3):
        heads.append(f"Content-Disposition: session{part.around(';')}handling=required")
    if part.one_in(3):
        heads.append(part.any_case("Content-Transfer-Encoding") + ": " + part.pick(_PLAIN))
    if part.one_in(3):
        heads.append("Content-ID: <a@10.0.0.20>")
    while heads:
        part.write(heads.pop(part.choose(len(heads))), "\r\n")
    part.write("\r\n")


_PLAIN = ("binary", "8bit", "7BIT")


def _write_other_part(part: Scribe) -> None:
    kind = part.pick(("text/plain", "application/isup", "application/sdp", "application/pidf+xml"))
    part.write(f"Content-Type: {kind}\r\n")
    if kind == "application/sdp":
        part.write("Content-Transfer-Encoding: base64\r\n")
    part.write(
        "\r\n", part.pick((b"c=IN IP4 10.0.0.20\r\nv=0", b"\x01\x00\xff\x80\r\n\r\n--", b""))
    )


def family_of(address: str) -> str:
    """Returns addrtype."""
    return "IP6" if ":" in address else "IP4"


def default_world() -> World:
    """Returns the addresses of the playbook's phone 10.0.0.20, and decoys that look like it."""
    return World(
        ("10.0.0.20",),
        ("10.0.0.20", "10.0.0.20", "10.0.0.30"),
        (
            *("198.51.100.7", "10.0.0.2", "10.0.0.21", "110.0.0.20", "10.0.0.20.example.com"),
            *("pbx.lan", "[2001:db8::10:0:0:20]", "[::ffff:10.0.0.20]", "203.0.113.10", "a-b.c."),
        ),
    )
