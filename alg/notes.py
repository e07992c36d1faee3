"""What one message named, for the dialogs: Contacts, bindings, and the lines of its descriptions.

Whoever translates the message (`alg.outbound`, `alg.inbound`) takes the notes on the way; nothing
is read twice.
"""

from __future__ import annotations

from alg.dialogs.offer_answer import Line
from alg.sdp.session import DISCARD_PORT, Media, SessionDescription
from alg.sip.host import unicast_address
from nat_table.binding import Binding, Kind
from nat_table.endpoint import Endpoint, Socket, endpoint_of

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
        named = self.contacts.get(binding)
        if named is None:
            self.contacts[binding] = [expires]
        else:
            named.append(expires)

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
        for stream in session.media:
            self.lines.append(_line(stream))

    def come_from(self, binding: Binding) -> None:
        """Takes in what the message itself comes from, if that is mapped for signalling."""
        if binding.kind is Kind.SIP:
            self.signalling[binding.transport, binding.internal] = binding


def _line(stream: Media) -> Line:
    port, protocol = stream.port, stream.protocol
    address = None if stream.connection is None else unicast_address(stream.connection.host)
    return Line(
        _reachable(stream, address, port),
        _reachable(stream, address, stream.rtcp_port),
        stream.count,
        port == 0,
        stream.is_mux,
        stream.setup if protocol.is_tcp else None,
        stream.kind[:MAX_MEDIA].lower(),
        _is_two_way(stream),
    )


def _is_two_way(stream: Media) -> bool:
    """Whether the side sends and receives; the address 0.0.0.0 is hold (RFC 3264 §8.4)."""
    if stream.direction != b"sendrecv" or stream.port == 0:
        return False
    address = stream.connection
    return address is None or (address.host != b"0.0.0.0" and address.host != b"::")


def _reachable(stream: Media, address: str | None, port: int) -> Endpoint | None:
    """Returns the stream's address with a port of it, if both say where to send.

    Port 9 of a stream over TCP says from where: it connects, and has no port yet (RFC 4145 §4.1).
    """
    if address is None or port == 0 or (port == DISCARD_PORT and not stream.protocol.is_tcp):
        return None
    return endpoint_of(address, port)
