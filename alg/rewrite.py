"""From a message and its mappings to edits.

Two tables say which fields name the phone's own endpoints in which direction; a field that is not
in them is never edited, whatever it contains: From, To, Call-ID, Authorization, Identity, Replaces
and everything unknown leave as they came. Within a field only the host and port tokens change, and
a port is written only where one stood or where the default would be wrong.

Outbound, an address is the phone's own if `Mappings` says so; inbound, if it is the external side
of one of the phone's bindings. Content-Length is the last edit.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple, Protocol

from alg.sdp.multipart import find_sdp
from alg.sdp.session import Address, Alternative, Media, Rtcp, SessionDescription, parse_sdp
from alg.sip.host import canonical_host
from alg.sip.message import Field, Malformed, SipMessage
from alg.sip.name_addr import NameAddr, expires_of, parse_name_addrs
from alg.sip.span import Edit, Span
from alg.sip.uri import SIP_PORT, SipUri, parse_uri
from alg.sip.via import parse_via
from alg.verdict import Direction
from nat_table.endpoint import TCP, Endpoint, Transport

_ROUTING = {"record-route", "path", "service-route"}

# (direction, is a request) -> the fields in which own endpoints are edited. A response carries the
# requester's Vias: those we changed come back inbound, and outbound they are somebody else's.
EDITED_FIELDS: dict[tuple[Direction, bool], frozenset[str]] = {
    (Direction.OUTBOUND, True): frozenset(
        _ROUTING | {"via", "contact", "route", "refer-to", "reply-to"}
    ),
    (Direction.OUTBOUND, False): frozenset(_ROUTING | {"contact", "reply-to"}),
    (Direction.INBOUND, True): frozenset({"request-uri", "route"}),
    (Direction.INBOUND, False): frozenset(_ROUTING | {"via", "contact"}),
}

_HOPS = {transport: transport.label.encode("ascii") for transport in Transport}

MAX_MEDIA = 64
MAX_EDITS = 512


class TooComplex(ValueError):
    """A message names its sender, or describes media, more often than any phone does."""


class MalformedSdp(ValueError):
    """A session description says something that cannot be translated."""


class Mapped(NamedTuple):
    """An endpoint to write; `is_bare` says that its port is not written if it is the default."""

    endpoint: Endpoint
    is_bare: bool = False


class Mappings(Protocol):
    """What stands for what, in one direction, for one message.

    Hosts are in their one spelling (`alg.sip.host`), and what stands for one is of its family.
    """

    transport: Transport
    """The transport that the message came by; Vias of another are not this hop's."""

    def may_name(self, data: bytes, start: int, end: int) -> bool:
        """Whether an address that could be edited occurs in data[start:end]."""

    def signalling(
        self, host: bytes, port: int, named: bytes, role: str, is_bare: bool
    ) -> Mapped | None:
        """Returns what stands for a signalling endpoint, None where it is not ours to change.

        `named` is the transport in lower case, b"" where none is named; `role` is the field's name;
        `is_bare` says that the port was not written.
        """

    def contact(self, host: bytes, port: int, named: bytes, expires: int | None) -> None:
        """Takes note of a Contact, if its host and port are the phone's."""

    def wildcard(self) -> None:
        """Takes note of "Contact: *"."""

    def describe(self, session: SessionDescription) -> None:
        """Takes note of a whole session description, before anything in it is asked for."""

    def media(self, host: bytes, stream: Media, is_probed: bool) -> tuple[int, int] | None:
        """Returns the RTP and RTCP ports that stand for a stream's; 0 where it has no RTCP.

        A stream of several pairs has them in a row, and the first pair is returned. `is_probed`
        says that the phone has asked a STUN server what its sockets look like from outside.
        """

    def rtcp(self, host: bytes, port: int) -> int | None:
        """Returns the port that stands for an RTCP endpoint named apart from its stream."""

    def address(self, host: bytes) -> bytes | None:
        """Returns the address that stands for a host in a session description."""


def rewrite(
    message: SipMessage, mappings: Mappings, direction: Direction, left: frozenset[str]
) -> list[Edit]:
    """Returns the edits of one message, in no order; `left` names fields (or "body") to leave.

    Raises Malformed, MalformedSdp or TooComplex, or whatever the mappings raise: then the
    message must be left as it is.
    """
    edits: list[Edit] = []
    edited = EDITED_FIELDS[direction, message.is_request]
    data = message.data
    if message.is_request and "request-uri" in edited:
        uri = parse_uri(data, *message.request_uri)
        if uri is not None:
            _edit_uri(edits, data, uri, mappings, "request-uri")
    for entry in message.fields:
        name, start, end = entry
        if name not in edited or name in left:
            continue
        if name == "contact":
            _edit_contacts(edits, data, entry, mappings)
        elif mappings.may_name(data, start, end):
            if name == "via":
                _edit_vias(edits, data, entry, mappings)
            else:
                for value in _values(data, entry):
                    _check_number(edits)
                    uri = parse_uri(data, *value.uri)
                    if uri is not None:
                        _edit_uri(edits, data, uri, mappings, name)
    if "body" not in left:
        _edit_body(edits, message, mappings, direction)
    return edits


def _check_number(edits: list[Edit]) -> None:
    if len(edits) > MAX_EDITS:
        raise TooComplex(f"more than {MAX_EDITS} places to edit")


def _values(data: bytes, entry: Field) -> list[NameAddr]:
    try:
        return list(parse_name_addrs(data, entry.start, entry.end))
    except ValueError:
        raise Malformed(entry.name) from None


def _edit_contacts(edits: list[Edit], data: bytes, entry: Field, mappings: Mappings) -> None:
    for value in _values(data, entry):
        _check_number(edits)
        if data[value.uri.start : value.uri.end] == b"*":
            mappings.wildcard()
            continue
        uri = parse_uri(data, *value.uri)
        if uri is None:
            continue
        host, port, named = _edit_uri(edits, data, uri, mappings, "contact")
        mappings.contact(host, port, named, expires_of(data, value.params))


def _edit_vias(edits: list[Edit], data: bytes, entry: Field, mappings: Mappings) -> None:
    try:
        vias = list(parse_via(data, entry.start, entry.end))
    except ValueError:
        raise Malformed("Via") from None
    hop = _HOPS[mappings.transport]
    for via in vias:
        _check_number(edits)
        if via.transport.lower() != hop:
            continue
        port = _number(data, via.port) if via.port else SIP_PORT
        host = canonical_host(data[via.host.start : via.host.end])
        mapped = mappings.signalling(host, port, hop, "via", via.port is None)
        if mapped is not None:
            _edit_host_port(edits, via.host, via.port, (host, port), SIP_PORT, mapped, "via")


def _edit_uri(
    edits: list[Edit], data: bytes, uri: SipUri, mappings: Mappings, what: str
) -> tuple[bytes, int, bytes]:
    """Edits a URI if it names the phone; returns the host, port and transport that it named."""
    host = canonical_host(data[uri.host.start : uri.host.end])
    port = _number(data, uri.port) if uri.port else uri.default_port
    named = uri.transport
    if not named and uri.is_secure and mappings.transport is TCP:
        named = b"tcp"  # what TLS runs over (RFC 5630 §3.1.1)
    mapped = mappings.signalling(host, port, named, what, uri.port is None)
    if mapped is not None:
        _edit_host_port(edits, uri.host, uri.port, (host, port), uri.default_port, mapped, what)
    return host, port, named


def _number(data: bytes, span: Span) -> int:
    port = int(data[span.start : span.end])
    if port > 65535:
        raise Malformed(f"port {port}")
    return port


def _edit_host_port(
    edits: list[Edit],
    host: Span,
    port: Span | None,
    named: tuple[bytes, int],
    default_port: int,
    mapped: Mapped,
    what: str,
) -> None:
    """Writes the mapped endpoint over host and port, touching only the token that differs.

    `named` is what stands there: another spelling of the same address does not differ.
    """
    address, number = mapped.endpoint
    text = address.encode("ascii")
    if named[0] != text:
        edits.append(Edit(host.start, host.end, b"[%b]" % text if b":" in text else text, what))
    if port is None:
        if number != default_port:
            edits.append(Edit(host.end, host.end, b":%d" % number, what))
    elif mapped.is_bare and number == default_port:
        edits.append(Edit(host.end, port.end, b"", what))
    elif named[1] != number:
        edits.append(Edit(port.start, port.end, b"%d" % number, what))


def _edit_body(
    edits: list[Edit], message: SipMessage, mappings: Mappings, direction: Direction
) -> None:
    """Edits every session description, then Content-Length by the bytes that were added."""
    body = message.body
    if body.start == body.end:
        return
    before = len(edits)
    for part in find_sdp(message.data, body, message.value("content-type")):
        session = parse_sdp(message.data, *part)
        if len(session.media) > MAX_MEDIA:
            if direction is not Direction.OUTBOUND:
                continue
            raise TooComplex(f"{len(session.media)} m= lines")
        mappings.describe(session)
        _edit_session(edits, message.data, session, mappings)
        if session.origin is not None and direction is Direction.OUTBOUND:
            _edit_address(edits, session.origin, mappings, "o=")
    growth = sum(len(edit.new) - (edit.end - edit.start) for edit in edits[before:])
    span = message.singles.get("content-length")
    if growth and span is not None:
        digits = message.value("content-length")
        start = message.data.index(digits, span.start)
        length = b"%d" % (int(digits) + growth)
        edits.append(Edit(start, start + len(digits), length, "content-length"))


def _edit_session(
    edits: list[Edit], data: bytes, session: SessionDescription, mappings: Mappings
) -> None:
    for stream in session.media:
        _edit_stream(edits, data, stream, mappings, session.has_candidates)
    for address in session.connections:
        _edit_address(edits, address, mappings, "c=")


def _edit_stream(
    edits: list[Edit], data: bytes, stream: Media, mappings: Mappings, is_probed: bool
) -> None:
    connection = stream.connection
    if stream.path is not None and not stream.is_cema:
        _edit_address(edits, stream.path.host, mappings, "a=path")
    for other in stream.alternatives:
        _edit_alternative(edits, stream, other, mappings, is_probed)
    rtcp = stream.rtcp
    if rtcp is not None and rtcp.address is not None and not stream.names_rtcp():
        _edit_distant_rtcp(edits, stream, rtcp, rtcp.address, mappings)
    if connection is None:
        return
    mapped = mappings.media(connection.host, stream, is_probed)
    if mapped is None:
        return
    port, rtcp_port = mapped
    if port != stream.port:
        edits.append(Edit(*stream.port_span, b"%d" % port, "m="))
        path = None if stream.is_cema else stream.path
        if path is not None and (path.host.host, path.port) == (connection.host, stream.port):
            edits.append(Edit(*path.port_span, b"%d" % port, "a=path"))
    if stream.rtcp is not None:
        if not stream.names_rtcp():
            return
        if rtcp_port not in (0, stream.rtcp.port):
            edits.append(Edit(*stream.rtcp.port_span, b"%d" % rtcp_port, "a=rtcp"))
        if stream.rtcp.address is not None:
            _edit_address(edits, stream.rtcp.address, mappings, "a=rtcp")
    elif rtcp_port not in (0, port + 1):
        end = len(data[: stream.end].rstrip(b"\r\n"))
        line_end = b"\n" if data[end : end + 1] == b"\n" else b"\r\n"
        edits.append(Edit(end, end, b"%ba=rtcp:%d" % (line_end, rtcp_port), "a=rtcp"))


def _edit_alternative(
    edits: list[Edit], stream: Media, other: Alternative, mappings: Mappings, is_probed: bool
) -> None:
    """Edits an a=altc line as if it were the stream's own c= and m= (RFC 6947)."""
    alone = replace(stream, port=other.port, count=1, connection=other.address, rtcp=None)
    mapped = mappings.media(other.address.host, alone, is_probed)
    if mapped is None:
        return
    if mapped[0] != other.port:
        edits.append(Edit(*other.port_span, b"%d" % mapped[0], "a=altc"))
    _edit_address(edits, other.address, mappings, "a=altc")


def _edit_distant_rtcp(
    edits: list[Edit], stream: Media, rtcp: Rtcp, address: Address, mappings: Mappings
) -> None:
    """Edits an a=rtcp line that names another address than the stream's c= (RFC 3605)."""
    port = mappings.rtcp(address.host, rtcp.port) if stream.port else None
    if port is None:
        return
    if port != rtcp.port:
        edits.append(Edit(*rtcp.port_span, b"%d" % port, "a=rtcp"))
    _edit_address(edits, address, mappings, "a=rtcp")


def _edit_address(edits: list[Edit], address: Address, mappings: Mappings, what: str) -> None:
    mapped = mappings.address(address.host)
    if mapped is not None and mapped != address.host:
        edits.append(Edit(*address.span, mapped, what))
