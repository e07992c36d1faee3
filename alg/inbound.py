"""What stands for what in a message on its way in: the table as the rewriter sees it.

It only looks up: nothing that comes from outside makes a mapping. Notes are taken for the dialogs
as on the way out (`alg.outbound`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from alg.mappings import Mapped, Mappings
from alg.notes import Notes
from alg.sdp.session import Media, SessionDescription
from alg.written import BARE, EXTERNAL, Written
from nat_table.binding import Binding, Kind
from nat_table.endpoint import TCP, UDP, Endpoint, Transport, endpoint_of, is_ipv6
from nat_table.lease import Source, is_left_to_clients, source_of
from nat_table.table import NatTable

_NONE: Final[tuple[Transport, ...]] = ()
_UDP: Final[tuple[Transport, ...]] = (UDP,)
_TCP: Final[tuple[Transport, ...]] = (TCP,)
_EITHER: Final[tuple[Transport, ...]] = (UDP, TCP)
_NAMED: Final = {b"udp": _UDP, b"tcp": _TCP}
_SIP: Final = Kind.SIP


class Inbound(Mappings):
    """External to internal, for one message to `receiver`."""

    __slots__ = (
        "_addresses",
        "_direct",
        "_direct_external",
        "_host",
        "_is_near",
        "_receiver",
        "_table",
        "_written",
        "notes",
    )

    def __init__(
        self,
        table: NatTable,
        transport: Transport,
        receiver: Endpoint,
        addresses: frozenset[bytes],
        written: Written,
        is_near: Callable[[str, str], bool],
    ) -> None:
        """Takes who receives the message, and which internal hosts reach each other directly."""
        super().__init__(transport)
        self._table = table
        self._receiver = receiver
        self._host = receiver[0]
        self._addresses = addresses
        self._written = written
        self._is_near = is_near
        self._direct: bytes | None = None
        self._direct_external = b""
        self.notes = Notes()

    def may_name(self, data: bytes, start: int, end: int) -> bool:
        """Whether one of our external addresses occurs in data[start:end].

        One of IPv6 may be spelled in any way, but stands in brackets.
        """
        if is_ipv6(self._host):
            return data.find(b"[", start, end) >= 0
        return has_any(data, start, end, self._addresses)

    def signalling(
        self, host: bytes, port: int, named: bytes, role: str, is_bare: bool
    ) -> Mapped | None:
        """Returns the internal endpoint behind one of the receiver's external endpoints.

        None also where the receiver itself writes the external one.
        """
        bindings = self._external(host, port, named)
        if not bindings:
            return None
        binding = bindings[0]
        form = self._written.form(role, binding)
        if form is EXTERNAL or (form is None and self._is_written_external(binding)):
            return None
        return Mapped(binding.internal, form is BARE)

    def contact(self, host: bytes, port: int, named: bytes, expires: int | None) -> None:
        """Notes a Contact that names the receiver."""
        for binding in self._external(host, port, named):
            self.notes.name(binding, expires)

    def wildcard(self) -> None:
        """Does nothing: no response lists a wildcard."""

    def describe(self, session: SessionDescription) -> None:
        """Notes what the remote wants, and whether it is an internal host's media after all.

        A description that names mappings of one other internal host comes from there: the media of
        the two stays inside, unless they look for the shortest way by themselves (RFC 8839), or one
        of them has asked for its mappings, and so names external endpoints.
        """
        self.notes.describe(session)
        if session.has_candidates:
            return
        first: Binding | None = None
        for stream in session.media:
            if stream.port == 0:
                continue
            found = self._mapped(stream)
            if found is None or (first is not None and not _is_between(found, first)):
                return
            first = found
        if first is None:
            return
        standing = self._table.look_up_internal(self.transport, self._receiver)
        if standing is not None and self._is_written_external(standing):
            return
        other = first.internal[0]
        if other != self._host and self._is_near(other, self._host):
            self._direct = other.encode("ascii")
            self._direct_external = first.external[0].encode("ascii")

    def media(self, host: bytes, stream: Media, is_probed: bool) -> tuple[int, int] | None:
        """Returns the internal ports of media that stays inside."""
        if self._direct is None or host != self._direct_external:
            return None
        rtp, rtcp = self._mapped(stream), self._port_of(host, stream.rtcp_port)
        return None if rtp is None else (rtp.internal[1], rtcp or 0)

    def rtcp(self, host: bytes, port: int) -> int | None:
        """Returns the internal port of RTCP that stays inside."""
        return self._port_of(host, port) if self._direct else None

    def address(self, host: bytes) -> bytes | None:
        """Returns the address of the internal host whose media stays inside."""
        return self._direct if host == self._direct_external else None

    def _mapped(self, stream: Media) -> Binding | None:
        """Returns the media binding that a stream names, if it is one pair of plain UDP."""
        if stream.connection is None or stream.count != 1 or stream.protocol.is_tcp:
            return None
        return self._media_binding(stream.connection.host, stream.port)

    def _port_of(self, host: bytes, port: int) -> int | None:
        binding = self._media_binding(host, port)
        if binding is None or binding.internal.address.encode("ascii") != self._direct:
            return None
        return binding.internal.port

    def _media_binding(self, host: bytes, port: int) -> Binding | None:
        if host not in self._addresses and host.find(b":") < 0:
            return None  # every IPv6 host may have an external address to itself
        external = endpoint_of(host.decode("ascii"), port)
        binding = self._table.look_up_external(UDP, external)
        if binding is None or binding.kind is _SIP or self._table.is_leased(binding):
            return None
        return binding

    def _is_written_external(self, binding: Binding) -> bool:
        """Whether the receiver has asked for a mapping in order to name it by itself.

        That is what the port manager is for; signalling needs the mapping of who names the
        internal endpoint.
        """
        if not self._table.is_leased(binding):
            return False
        pinholes = self._table.pinholes(binding)
        return source_of(pinholes) is Source.API and is_left_to_clients(pinholes)

    def _external(self, host: bytes, port: int, named: bytes) -> list[Binding]:
        if host not in self._addresses:
            return []
        transports = transports_of(named, self.transport)
        return bindings_at(self._table, transports, host, port, self._host)


def transports_of(named: bytes, carrier: Transport) -> tuple[Transport, ...]:
    """Returns what a URI that names this transport, or b"", is reached by: none if not ours to map.

    Where none is named it is UDP (RFC 3263 §4.1), but who writes so over TCP may well mean TCP.
    """
    if named:
        return _NAMED.get(named, _NONE)
    return _UDP if carrier is UDP else _EITHER


def has_any(data: bytes, start: int, end: int, addresses: frozenset[bytes]) -> bool:
    """Whether one of the addresses occurs in data[start:end]."""
    for address in addresses:  # noqa: SIM110 (a generator leaves native code)
        if data.find(address, start, end) >= 0:
            return True
    return False


def bindings_at(
    table: NatTable, transports: tuple[Transport, ...], host: bytes, port: int, phone: str
) -> list[Binding]:
    """Returns the phone's bindings that an external host and port stand for."""
    external = endpoint_of(host.decode("ascii"), port)
    found: list[Binding] = []
    for transport in transports:
        binding = table.look_up_external(transport, external)
        if binding is not None and binding.internal[0] == phone:
            found.append(binding)
    return found


def _is_between(one: Binding, other: Binding) -> bool:
    """Whether a binding is of the same host, and at the same external address, as another."""
    return one.internal[0] == other.internal[0] and one.external[0] == other.external[0]
