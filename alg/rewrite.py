"""From a message and its mappings to edits.

Two tables say which fields name the phone's own endpoints in which direction; a field that is not
in them is never edited, whatever it contains: From, To, Call-ID, Authorization, Identity, Replaces
and everything unknown leave as they came. Within a field only the host and port tokens change, and
a port is written only where one stood or where the default would be wrong.

Outbound, an address is the phone's own if `Mappings` says so; inbound, if it is the external side
of one of the phone's bindings. The body is edited last (`alg.rewrite_body`).
"""

from __future__ import annotations

from typing import Final

from alg.mappings import Mapped, Mappings, TooComplex
from alg.rewrite_body import edit_body
from alg.sip.header_line import (
    CONTACT,
    NAMES,
    PATH,
    RECORD_ROUTE,
    REFER_TO,
    REPLY_TO,
    ROUTE,
    SERVICE_ROUTE,
    VIA,
    HeaderLine,
)
from alg.sip.host_port import MAX_PORT, HostPort
from alg.sip.message import Malformed, SipMessage
from alg.sip.span import Edit
from alg.sip.uri import SIP_PORT, SipUri
from alg.verdict import Direction
from nat_table.endpoint import TCP, Transport, is_ipv6

_ROUTING: Final = frozenset((RECORD_ROUTE, PATH, SERVICE_ROUTE))

# The fields in which own endpoints are edited. A response carries the requester's Vias: those we
# changed come back inbound, and outbound they are somebody else's. The Request-URI is the phone's
# own in a request to it.
_OUTBOUND_REQUEST: Final = _ROUTING | {VIA, CONTACT, ROUTE, REFER_TO, REPLY_TO}
_OUTBOUND_RESPONSE: Final = _ROUTING | {CONTACT, REPLY_TO}
_INBOUND_REQUEST: Final = frozenset((ROUTE,))
_INBOUND_RESPONSE: Final = _ROUTING | {VIA, CONTACT}

_HOPS: Final = {transport: transport.label.encode("ascii") for transport in Transport}

MAX_EDITS: Final = 512


def rewrite(
    message: SipMessage, mappings: Mappings, direction: Direction, left: frozenset[str]
) -> list[Edit]:
    """Returns the edits of one message, in no order; `left` names fields (or "body") to leave.

    Raises Malformed, MalformedSdp or TooComplex, or whatever the mappings raise: then the
    message must be left as it is.
    """
    edits: list[Edit] = []
    if direction is Direction.OUTBOUND:
        edited = _OUTBOUND_REQUEST if message.is_request else _OUTBOUND_RESPONSE
    else:
        edited = _INBOUND_REQUEST if message.is_request else _INBOUND_RESPONSE
        uri = message.start_line.uri()
        if uri is not None:
            _edit_uri(edits, message.start, uri, mappings, "request-uri")
    places = message.places
    for index, line in enumerate(message.lines):
        kind = line.kind
        if kind not in edited:
            continue
        place = places[index]
        if kind == CONTACT:
            if "contact" not in left:
                _edit_contacts(edits, line, place, mappings)
        elif line.is_known or mappings.may_name(message.data, place + line.start, place + line.end):
            if kind == VIA:
                _edit_vias(edits, line, place, mappings)
            else:
                _edit_addresses(edits, line, place, mappings)
    if message.headers_end < message.body_end and "body" not in left:
        edit_body(edits, message, mappings, direction)
    return edits


def _check_number(edits: list[Edit]) -> None:
    if len(edits) > MAX_EDITS:
        raise TooComplex(f"more than {MAX_EDITS} places to edit")


def _edit_addresses(edits: list[Edit], line: HeaderLine, place: int, mappings: Mappings) -> None:
    name = NAMES[line.kind]
    values = line.addresses()
    if not line.is_sound:
        raise Malformed(name)
    for value in values:
        _check_number(edits)
        if value.uri is not None:
            _edit_uri(edits, place, value.uri, mappings, name)


def _edit_contacts(edits: list[Edit], line: HeaderLine, place: int, mappings: Mappings) -> None:
    values = line.addresses()
    if not line.is_sound:
        raise Malformed("contact")
    for value in values:
        _check_number(edits)
        uri = value.uri
        if value.is_star:
            mappings.wildcard()
        elif uri is not None:
            named = _edit_uri(edits, place, uri, mappings, "contact")
            mappings.contact(uri.host, uri.port, named, value.expires)


def _edit_vias(edits: list[Edit], line: HeaderLine, place: int, mappings: Mappings) -> None:
    vias = line.vias()
    if not line.is_sound:
        raise Malformed("Via")
    hop = _HOPS[mappings.transport]
    for via in vias:
        _check_number(edits)
        if via.transport == hop:
            _check_port(via)
            mapped = mappings.signalling(via.host, via.port, hop, "via", via.is_bare)
            if mapped is not None:
                _edit_host_port(edits, place, via, SIP_PORT, mapped, "via")


def _edit_uri(edits: list[Edit], place: int, uri: SipUri, mappings: Mappings, what: str) -> bytes:
    """Edits a URI if it names the phone; returns the transport that it named."""
    _check_port(uri)
    named = uri.transport
    if not named and uri.is_secure and mappings.transport is TCP:
        named = b"tcp"  # what TLS runs over (RFC 5630 §3.1.1)
    mapped = mappings.signalling(uri.host, uri.port, named, what, uri.is_bare)
    if mapped is not None:
        _edit_host_port(edits, place, uri, uri.default_port, mapped, what)
    return named


def _check_port(named: HostPort) -> None:
    if named.port > MAX_PORT:
        raise Malformed(f"port {named.port}")


def _edit_host_port(
    edits: list[Edit], place: int, named: HostPort, default_port: int, mapped: Mapped, what: str
) -> None:
    """Writes the mapped endpoint over host and port, touching only the token that differs.

    Another spelling of the same address does not differ.
    """
    address, port = mapped.endpoint
    host = address.encode("ascii")
    host_end, port_end = place + named.host_end, place + named.port_end
    if named.host != host:
        text = b"[%b]" % host if is_ipv6(address) else host
        edits.append(Edit(place + named.host_start, host_end, text, what))
    if named.is_bare:
        if port != default_port:
            edits.append(Edit(host_end, host_end, b":%d" % port, what))
    elif mapped.is_bare and port == default_port:
        edits.append(Edit(host_end, port_end, b"", what))
    elif named.port != port:
        edits.append(Edit(place + named.port_start, port_end, b"%d" % port, what))
