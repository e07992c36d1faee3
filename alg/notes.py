"""What one message named, for the dialogs: Contacts, bindings, and the lines of its descriptions.

Whoever translates the message (`alg.outbound`, `alg.inbound`) takes the notes on the way; nothing
is read twice.
"""

from __future__ import annotations

from alg.dialogs.offer_answer import Line
from alg.sdp.session import DISCARD_PORT, Media, SessionDescription
from alg.sip.host import unicast_address
from nat_table.binding import Binding, Kind
from nat_table.endpoint import Endpoint, Socket

MAX_MEDIA = 16


class Notes:
    """What one message named: our Contacts with their expires, bindings, and the media lines."""

    __slots__ = ("contacts", "is_wildcard", "lines", "media", "signalling")

    def __init__(self) -> None:
        self.contacts: dict[Binding, list[int | None]] = {}
        self.is_wildcard = False
        self.signalling: dict[Socket, Binding] = {}
        self.media: dict[Socket, Binding] = {}
        self.lines: list[Line] = []

    def name(self, binding: Binding, expires: int | None) -> None:
        """Takes a Contact in."""
        self.contacts.setdefault(binding, []).append(expires)

    def lifetimes(self, default: int) -> dict[Binding, int]:
        """Returns the seconds that each binding is named for, `default` where nothing is written.

        The longest counts where several Contacts are one binding: two accounts on one phone, or an
        old Contact that is removed while its successor is registered.
        """
        return {
            binding: max(default if seconds is None else seconds for seconds in named)
            for binding, named in self.contacts.items()
        }

    def describe(self, session: SessionDescription) -> None:
        """Takes in the lines of a session description, whoever wrote it."""
        self.lines += map(_line, session.media)

    def come_from(self, binding: Binding) -> None:
        """Takes in what the message itself comes from, if that is mapped for signalling."""
        if binding.kind is Kind.SIP:
            self.signalling[binding.transport, binding.internal] = binding


def _line(stream: Media) -> Line:
    rtp, rtcp = _reachable(stream, stream.port), _reachable(stream, stream.rtcp_port)
    setup = stream.setup if stream.is_tcp else None
    media = stream.kind[:MAX_MEDIA].lower()
    is_rejected, is_two_way = stream.port == 0, _is_two_way(stream)
    return Line(rtp, rtcp, stream.count, is_rejected, stream.is_mux, setup, media, is_two_way)


def _is_two_way(stream: Media) -> bool:
    """Whether the side sends and receives; the address 0.0.0.0 is hold (RFC 3264 §8.4)."""
    address = stream.connection
    is_held = address is not None and address.host in (b"0.0.0.0", b"::")
    return stream.direction == b"sendrecv" and stream.port != 0 and not is_held


def _reachable(stream: Media, port: int) -> Endpoint | None:
    """Returns the stream's address with a port of it, if both say where to send.

    Port 9 of a stream over TCP says from where: it connects, and has no port yet (RFC 4145 §4.1).
    """
    address = stream.connection
    if address is None or port == 0 or (port == DISCARD_PORT and not stream.is_tcp):
        return None
    host = unicast_address(address.host)
    return None if host is None else Endpoint(host, port)
