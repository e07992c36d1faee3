"""From the session descriptions of a message and its mappings to edits.

Within a description only addresses and ports change, and an a=rtcp line is added where the RTCP
port is not the one that would be expected. Content-Length is the last edit.
"""

from __future__ import annotations

from alg.mappings import Mappings, TooComplex
from alg.sdp.multipart import find_sdp
from alg.sdp.session import Address, Media, Rtcp, SessionDescription, Target, parse_sdp
from alg.sip.header_line import CONTENT_LENGTH, CONTENT_TYPE
from alg.sip.message import SipMessage
from alg.sip.span import Edit
from alg.verdict import Direction

MAX_MEDIA = 64


def edit_body(
    edits: list[Edit], message: SipMessage, mappings: Mappings, direction: Direction
) -> None:
    """Edits every session description, then Content-Length by the bytes that were added."""
    kind = message.single(CONTENT_TYPE)
    if kind is None:
        return
    data = message.data
    before = len(edits)
    for start, end in find_sdp(data, message.headers_end, message.body_end, kind.value):
        session = parse_sdp(data, start, end)
        if len(session.media) > MAX_MEDIA:
            if direction is not Direction.OUTBOUND:
                continue
            raise TooComplex(f"{len(session.media)} m= lines")
        mappings.describe(session)
        _edit_session(edits, data, session, mappings)
        if session.origin is not None and direction is Direction.OUTBOUND:
            _edit_address(edits, session.origin, mappings, "o=")
    growth = 0
    for index in range(before, len(edits)):
        growth += edits[index].growth
    length = message.single(CONTENT_LENGTH)
    if growth and length is not None:
        digits = length.value
        place = data.index(digits, message.length_place)
        text = b"%d" % (length.number + growth)
        edits.append(Edit(place, place + len(digits), text, "content-length"))


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
    connection, rtcp, path = stream.connection, stream.rtcp, stream.path
    if stream.is_cema:
        path = None
    if path is not None:
        _edit_address(edits, path.address, mappings, "a=path")
    for other in stream.alternatives:
        _edit_alternative(edits, stream, other, mappings, is_probed)
    has_rtcp = rtcp is not None and stream.names_rtcp()
    if rtcp is not None and rtcp.address is not None and not has_rtcp:
        _edit_distant_rtcp(edits, stream, rtcp, rtcp.address, mappings)
    if connection is None:
        return
    mapped = mappings.media(connection.host, stream, is_probed)
    if mapped is None:
        return
    port, rtcp_port = mapped
    if port != stream.port:
        edits.append(Edit(stream.port_start, stream.port_end, b"%d" % port, "m="))
        if path is not None and path.port == stream.port and path.address.host == connection.host:
            edits.append(Edit(path.port_start, path.port_end, b"%d" % port, "a=path"))
    if rtcp is None:
        if rtcp_port != 0 and rtcp_port != port + 1:
            _add_rtcp(edits, data, stream, rtcp_port)
    elif has_rtcp:
        if rtcp_port != 0 and rtcp_port != rtcp.port:
            edits.append(Edit(rtcp.port_start, rtcp.port_end, b"%d" % rtcp_port, "a=rtcp"))
        if rtcp.address is not None:
            _edit_address(edits, rtcp.address, mappings, "a=rtcp")


def _add_rtcp(edits: list[Edit], data: bytes, stream: Media, port: int) -> None:
    """Adds a line to a stream whose RTCP port is not the one after its RTP port (RFC 3605)."""
    end = len(data[: stream.end].rstrip(b"\r\n"))
    line_end = b"\n" if data[end : end + 1] == b"\n" else b"\r\n"
    edits.append(Edit(end, end, b"%ba=rtcp:%d" % (line_end, port), "a=rtcp"))


def _edit_alternative(
    edits: list[Edit], stream: Media, other: Target, mappings: Mappings, is_probed: bool
) -> None:
    mapped = mappings.media(other.address.host, stream.at(other), is_probed)
    if mapped is None:
        return
    port = mapped[0]
    if port != other.port:
        edits.append(Edit(other.port_start, other.port_end, b"%d" % port, "a=altc"))
    _edit_address(edits, other.address, mappings, "a=altc")


def _edit_distant_rtcp(
    edits: list[Edit], stream: Media, rtcp: Rtcp, address: Address, mappings: Mappings
) -> None:
    """Edits an a=rtcp line that names another address than the stream's c= (RFC 3605)."""
    port = mappings.rtcp(address.host, rtcp.port) if stream.port else None
    if port is None:
        return
    if port != rtcp.port:
        edits.append(Edit(rtcp.port_start, rtcp.port_end, b"%d" % port, "a=rtcp"))
    _edit_address(edits, address, mappings, "a=rtcp")


def _edit_address(edits: list[Edit], address: Address, mappings: Mappings, what: str) -> None:
    mapped = mappings.address(address.host)
    if mapped is not None and mapped != address.host:
        edits.append(Edit(address.start, address.end, mapped, what))
