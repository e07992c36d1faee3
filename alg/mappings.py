"""What stands for what in one message: the table as the rewriter sees it.

`Outbound` binds. An internal host names its own address, so it gets external endpoints, for itself
and for nobody else (other hosts only if the configuration says that they are its media hosts).
`Inbound` only looks up: nothing that comes from outside makes a mapping.

Both take notes of what they met, for the dialogs: which Contacts, which media bindings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from alg.dialogs.linger import FLOW
from alg.notes import Notes
from alg.rewrite import MalformedSdp, Mapped, TooComplex
from alg.sdp.session import DISCARD_PORT, Media, SessionDescription
from alg.written import Form, Written
from nat_table.binding import Binding, Kind, Owner
from nat_table.endpoint import Endpoint, Transport
from nat_table.table import NatTable, NoFreePort

LOWEST_PORT = 1024
DISCARDED = (0, DISCARD_PORT)


class DeniedPort(ValueError):
    """A message names an internal port that must never be opened."""


class OwnAddress(ValueError):
    """A message names an address of the router itself, which must never be mapped."""


class Limits(NamedTuple):
    """What a message may name: addresses in descriptions beside its sender's, ports, streams."""

    media_hosts: frozenset[bytes]
    own_addresses: frozenset[bytes]
    denied_ports: frozenset[int]
    max_streams: int


class Outbound:
    """Internal to external, for one message of the host at `source`."""

    __slots__ = (
        "_addresses",
        "_flow_until",
        "_hosts",
        "_limits",
        "_masqueraded",
        "_media_until",
        "_now",
        "_own",
        "_owner",
        "_remembered",
        "_source",
        "_table",
        "_written",
        "notes",
        "transport",
    )

    def __init__(
        self,
        table: NatTable,
        transport: Transport,
        source: Endpoint,
        limits: Limits,
        addresses: frozenset[bytes],
        written: Written,
        masqueraded: Callable[[Endpoint], Endpoint | None],
        *,
        now: float,
        flow_until: float,
        owner: Owner,
        media_until: float,
        remembered: Mapping[Endpoint, Binding] | None = None,
    ) -> None:
        """Takes what the bindings of this message belong to.

        `masqueraded` tells what external endpoint the kernel has given an unmapped socket;
        `remembered` replaces binding of media by looking up, for a call that has ended.
        """
        self._table = table
        self.transport = transport
        self._source = source
        self._own = source.address.encode("ascii")
        self._hosts = limits.media_hosts | {self._own}
        self._limits = limits
        self._addresses = addresses
        self._written = written
        self._masqueraded = masqueraded
        self._now = now
        self._flow_until = flow_until
        self._owner = owner
        self._media_until = media_until
        self._remembered = remembered
        self.notes = Notes()

    def may_name(self, data: bytes, start: int, end: int) -> bool:
        """Whether an address of the sender, or of ours, occurs in data[start:end]."""
        return data.find(self._own, start, end) >= 0 or any(
            data.find(address, start, end) >= 0 for address in self._addresses
        )

    def signalling(self, host: bytes, port: int, role: str, is_bare: bool) -> Mapped | None:
        """Binds a signalling endpoint of the sender, and the one this message came from.

        A phone that writes its external endpoint by itself has nothing to be changed.
        """
        if port == 0:
            return None
        if host != self._own:
            known = self._external(host, port)
            if known is not None:
                self._written.note(role, known.external, Form.EXTERNAL)
            return None
        binding = self._bind_signalling(Endpoint(host.decode("ascii"), port))
        is_lost = is_bare and port != binding.external.port
        self._written.note(role, binding.external, Form.BARE if is_lost else Form.INTERNAL)
        if self._source != binding.internal:
            self._bind_signalling(self._source)
        return Mapped(binding.external)

    def contact(self, host: bytes, port: int, expires: int | None) -> None:
        """Notes a Contact that names the sender, by its internal or its external endpoint."""
        if host == self._own:
            internal = Endpoint(host.decode("ascii"), port)
            binding = self._table.look_up_internal(self.transport, internal)
        else:
            binding = self._external(host, port)
        if binding is not None:
            self.notes.name(binding, expires)

    def wildcard(self) -> None:
        """Notes "Contact: *"."""
        self.notes.is_wildcard = True

    def describe(self, session: SessionDescription) -> None:
        """Notes what the sender wants; raises TooComplex where it has too many streams."""
        if len(session.media) > self._limits.max_streams:
            raise TooComplex(f"{len(session.media)} m= lines")
        self.notes.describe(session)

    def media(self, host: bytes, stream: Media, is_probed: bool) -> tuple[int, int] | None:
        """Binds the endpoints of one stream; the RTCP port is 0 where the stream has none."""
        if host not in self._hosts or stream.port in DISCARDED or stream.is_tcp:
            return None
        address = host.decode("ascii")
        rtp = Endpoint(address, stream.port)
        rtcp = Endpoint(address, stream.rtcp_port)
        if stream.count > 1 and stream.port + 2 * stream.count > 65536:
            raise MalformedSdp(f"{stream.count} pairs of ports from {stream.port} on")
        self._check(host, (*range(rtp.port, rtp.port + 2 * stream.count - 1), rtcp.port))
        if self._remembered is not None:
            return self._recall(rtp, rtcp)
        if is_probed:
            self._keep_probed(rtp, rtcp)
        if stream.count > 1:
            return self._bind_row(rtp, stream.count)
        return self._bind_media(rtp, rtcp)

    def rtcp(self, host: bytes, port: int) -> int | None:
        """Binds an RTCP endpoint whose RTP goes another way."""
        if host not in self._hosts or port in DISCARDED:
            return None
        self._check(host, (port,))
        internal = Endpoint(host.decode("ascii"), port)
        if self._remembered is not None:
            known = self._remembered.get(internal)
            return known.external.port if known else None
        binding = self.notes.media[internal] = self._bind(internal, Kind.RTCP)
        return binding.external.port

    def address(self, host: bytes) -> bytes | None:
        """Returns the sender's external address for one of its addresses."""
        if host not in self._hosts:
            return None
        return self._table.external_address(host.decode("ascii")).encode("ascii")

    def _external(self, host: bytes, port: int) -> Binding | None:
        if host not in self._addresses:
            return None
        return _binding_of(self._table, self.transport, self._source.address, host, port)

    def _bind_signalling(self, internal: Endpoint) -> Binding:
        known = self.notes.signalling.get(internal)
        if known is not None:
            return known
        self._check(self._own, (internal.port,))
        binding = self._table.bind(
            self.transport,
            internal,
            Kind.SIP,
            FLOW,
            now=self._now,
            expires_at=self._flow_until,
        )
        self.notes.signalling[internal] = binding
        return binding

    def _check(self, host: bytes, ports: Iterable[int]) -> None:
        """Raises OwnAddress or DeniedPort where one of these must not be mapped; 0 is no port."""
        if host in self._limits.own_addresses:
            raise OwnAddress(host.decode("ascii"))
        denied = self._limits.denied_ports
        for port in ports:
            if 0 < port < LOWEST_PORT or port in denied:
                raise DeniedPort(f"{host.decode('ascii')}:{port}")

    def _keep_probed(self, rtp: Endpoint, rtcp: Endpoint) -> None:
        """Binds sockets to what a STUN server saw of them, so that c= is the phone's own candidate.

        A c= line that is none of the candidates ends ICE with a mismatch (RFC 8839 §5.4).
        """
        host = self._table.external_address(rtp.address)
        behind = None
        for internal, kind in ((rtp, Kind.RTP), (rtcp, Kind.RTCP)):
            if not internal.port or self._table.look_up_internal(Transport.UDP, internal):
                continue
            seen = self._masqueraded(internal)
            wanted = seen.port if seen is not None and seen.address == host else behind
            if wanted is None:
                continue
            behind = self._bind(internal, kind, wanted).external.port + 1

    def _bind(self, internal: Endpoint, kind: Kind, wanted: int | None = None) -> Binding:
        """Binds one media endpoint for the call."""
        return self._table.bind(
            Transport.UDP,
            internal,
            kind,
            self._owner,
            now=self._now,
            expires_at=self._media_until,
            wanted=wanted,
        )

    def _bind_media(self, rtp: Endpoint, rtcp: Endpoint) -> tuple[int, int]:
        if rtcp.port in (0, rtp.port):
            binding = self.notes.media[rtp] = self._bind(rtp, Kind.RTP)
            return binding.external.port, binding.external.port if rtcp.port else 0
        known = self._table.look_up_internal(Transport.UDP, rtp)
        if known is not None and rtcp.port == rtp.port + 1:
            # Its neighbour may be gone meanwhile (RFC 5761), and comes back where it was.
            self._bind(rtcp, Kind.RTCP, known.external.port + 1)
        pair = self._table.bind_pair(
            rtp, rtcp, self._owner, now=self._now, expires_at=self._media_until
        )
        self.notes.media[rtp] = pair.rtp
        self.notes.media[rtcp] = pair.rtcp
        return pair.rtp.external.port, pair.rtcp.external.port

    def _bind_row(self, first: Endpoint, count: int) -> tuple[int, int]:
        """Binds `count` pairs in a row (RFC 8866 §5.14); raises NoFreePort where they are not."""
        address, port = first
        row = [Endpoint(address, port + offset) for offset in range(2 * count)]
        pairs = self._table.bind_pairs(
            row, self._owner, now=self._now, expires_at=self._media_until
        )
        made = [binding for pair in pairs for binding in pair]
        low = made[0].external.port
        if [binding.external.port for binding in made] != list(range(low, low + len(made))):
            raise NoFreePort(f"the {len(made)} ports from {first} on are mapped, but not in a row")
        self.notes.media.update(zip(row, made, strict=True))
        return low, low + 1

    def _recall(self, rtp: Endpoint, rtcp: Endpoint) -> tuple[int, int] | None:
        assert self._remembered is not None
        first, second = self._remembered.get(rtp), self._remembered.get(rtcp)
        if first is None:
            return None
        return first.external.port, second.external.port if second else 0


class Inbound:
    """External to internal, for one message to `host`."""

    __slots__ = (
        "_addresses",
        "_direct",
        "_host",
        "_is_near",
        "_table",
        "_written",
        "notes",
        "transport",
    )

    def __init__(
        self,
        table: NatTable,
        transport: Transport,
        host: str,
        addresses: frozenset[bytes],
        written: Written,
        is_near: Callable[[str, str], bool],
    ) -> None:
        """Takes who receives the message, and which internal hosts reach each other directly."""
        self._table = table
        self.transport = transport
        self._host = host
        self._addresses = addresses
        self._written = written
        self._is_near = is_near
        self._direct: bytes | None = None
        self.notes = Notes()

    def may_name(self, data: bytes, start: int, end: int) -> bool:
        """Whether one of our external addresses occurs in data[start:end]."""
        return any(data.find(address, start, end) >= 0 for address in self._addresses)

    def signalling(self, host: bytes, port: int, role: str, is_bare: bool) -> Mapped | None:
        """Returns the internal endpoint behind one of the receiver's external endpoints.

        None also where the receiver itself writes the external one.
        """
        binding = self._external(host, port)
        if binding is None:
            return None
        form = self._written.form(role, binding.external)
        return None if form is Form.EXTERNAL else Mapped(binding.internal, form is Form.BARE)

    def contact(self, host: bytes, port: int, expires: int | None) -> None:
        """Notes a Contact that names the receiver."""
        binding = self._external(host, port)
        if binding is not None:
            self.notes.name(binding, expires)

    def wildcard(self) -> None:
        """Does nothing: no response lists a wildcard."""

    def describe(self, session: SessionDescription) -> None:
        """Notes what the remote wants, and whether it is an internal host's media after all.

        A description that names mappings of one other internal host comes from there: the media of
        the two stays inside, unless they look for the shortest way by themselves (RFC 8839).
        """
        self.notes.describe(session)
        named = [stream for stream in session.media if stream.port]
        if session.has_candidates or not named:
            return
        found = {binding and binding.internal.address for binding in map(self._mapped, named)}
        other = found.pop()
        if other and not found and other != self._host and self._is_near(other, self._host):
            self._direct = other.encode("ascii")

    def media(self, host: bytes, stream: Media, is_probed: bool) -> tuple[int, int] | None:
        """Returns the internal ports of media that stays inside."""
        if self._direct is None or host not in self._addresses:
            return None
        rtp, rtcp = self._mapped(stream), self._port_of(host, stream.rtcp_port)
        return None if rtp is None else (rtp.internal.port, rtcp or 0)

    def rtcp(self, host: bytes, port: int) -> int | None:
        """Returns the internal port of RTCP that stays inside."""
        return self._port_of(host, port) if self._direct else None

    def address(self, host: bytes) -> bytes | None:
        """Returns the address of the internal host whose media stays inside."""
        return self._direct if host in self._addresses else None

    def _mapped(self, stream: Media) -> Binding | None:
        """Returns the media binding that a stream names, if it is one pair of plain UDP."""
        if stream.connection is None or stream.count != 1 or stream.is_tcp:
            return None
        return self._media_binding(stream.connection.text, stream.port)

    def _port_of(self, host: bytes, port: int) -> int | None:
        binding = self._media_binding(host, port)
        if binding is None or binding.internal.address.encode("ascii") != self._direct:
            return None
        return binding.internal.port

    def _media_binding(self, host: bytes, port: int) -> Binding | None:
        if host not in self._addresses:
            return None
        external = Endpoint(host.decode("ascii"), port)
        binding = self._table.look_up_external(Transport.UDP, external)
        return None if binding is None or binding.kind is Kind.SIP else binding

    def _external(self, host: bytes, port: int) -> Binding | None:
        if host not in self._addresses:
            return None
        return _binding_of(self._table, self.transport, self._host, host, port)


def _binding_of(
    table: NatTable, transport: Transport, phone: str, host: bytes, port: int
) -> Binding | None:
    """Returns the phone's binding that an external host and port stand for."""
    binding = table.look_up_external(transport, Endpoint(host.decode("ascii"), port))
    return binding if binding is not None and binding.internal.address == phone else None
