"""What stands for what in a message on its way out: the table as the rewriter sees it.

An internal host names its own address, so it gets external endpoints, for itself and for nobody
else (other hosts only if the configuration says that they are its media hosts). Notes are taken for
the dialogs on the way: which Contacts, which media bindings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from alg.dialogs.linger import FLOW
from alg.inbound import bindings_at, has_any, transports_of
from alg.mappings import MalformedSdp, Mapped, Mappings, TooComplex
from alg.notes import Notes
from alg.sdp.session import DISCARD_PORT, Media, SessionDescription
from alg.written import BARE, EXTERNAL, INTERNAL, Written
from nat_table.binding import Binding, Kind, Owner
from nat_table.endpoint import TCP, UDP, Endpoint, Socket, Transport, endpoint_of, is_ipv6
from nat_table.masquerade import Masqueraded, seen_port
from nat_table.refusal import NoFreePort
from nat_table.table import NatTable

LOWEST_PORT: Final = 1024
_SIP: Final = Kind.SIP
_RTP: Final = Kind.RTP
_RTCP: Final = Kind.RTCP


class DeniedPort(ValueError):
    """A message names an internal port that must never be opened."""


class OwnAddress(ValueError):
    """A message names an address of the router itself, which must never be mapped."""


class Limits:
    """What a message may name: addresses in descriptions beside its sender's, ports, streams.

    Where `has_tcp_media`, a phone may be connected to for media.
    """

    __slots__ = ("denied_ports", "has_tcp_media", "max_streams", "media_hosts", "own_addresses")

    def __init__(
        self,
        media_hosts: frozenset[bytes],
        own_addresses: frozenset[bytes],
        denied_ports: frozenset[int],
        max_streams: int,
        has_tcp_media: bool,
    ) -> None:
        self.media_hosts = media_hosts
        self.own_addresses = own_addresses
        self.denied_ports = denied_ports
        self.max_streams = max_streams
        self.has_tcp_media = has_tcp_media


class Outbound(Mappings):
    """Internal to external, for one message of the host at `source`."""

    __slots__ = (
        "_addresses",
        "_external",
        "_flow_until",
        "_host",
        "_is_answer",
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
    )

    def __init__(
        self,
        table: NatTable,
        transport: Transport,
        source: Endpoint,
        limits: Limits,
        addresses: frozenset[bytes],
        written: Written,
        masqueraded: Masqueraded,
        *,
        now: float,
        flow_until: float,
        owner: Owner,
        media_until: float,
        is_answer: bool = False,
        remembered: Mapping[Socket, Binding] | None = None,
    ) -> None:
        """Takes what the bindings of this message belong to, and whether its description answers.

        `masqueraded` tells what external endpoint the kernel has given an unmapped socket;
        `remembered` replaces binding of media by looking up, for a call that has ended.
        """
        super().__init__(transport)
        self._table = table
        self._source = source
        self._host = source[0]
        self._own = self._host.encode("ascii")
        self._external: bytes | None = None
        self._limits = limits
        self._addresses = addresses
        self._written = written
        self._masqueraded = masqueraded
        self._now = now
        self._flow_until = flow_until
        self._owner = owner
        self._media_until = media_until
        self._is_answer = is_answer
        self._remembered = remembered
        self.notes = Notes()

    def may_name(self, data: bytes, start: int, end: int) -> bool:
        """Whether an address of the sender, or of ours, occurs in data[start:end].

        One of IPv6 may be spelled in any way, but stands in brackets.
        """
        if is_ipv6(self._host):
            return data.find(b"[", start, end) >= 0
        return data.find(self._own, start, end) >= 0 or has_any(data, start, end, self._addresses)

    def signalling(
        self, host: bytes, port: int, named: bytes, role: str, is_bare: bool
    ) -> Mapped | None:
        """Binds a signalling endpoint of the sender, and the one this message came from.

        A phone that writes its external endpoint by itself has nothing to be changed.
        """
        if host != self._own:
            if port and host in self._addresses:
                for known in self._bindings(host, port, named):
                    self._written.note(role, known, EXTERNAL)
            return None
        transports = transports_of(named, self.transport)
        if port == 0 or not transports:
            return None
        binding = self._bind_signalling(self._endpoint(host, port), transports)
        form = BARE if is_bare and port != binding.external[1] else INTERNAL
        self._written.note(role, binding, form, is_leased=self._table.is_leased(binding))
        if self.transport is UDP and self._source != binding.internal:
            self._bind_flow(UDP, self._source)
        return Mapped(binding.external)

    def contact(self, host: bytes, port: int, named: bytes, expires: int | None) -> None:
        """Notes a Contact that names the sender, by its internal or its external endpoint.

        What the sender has asked for and names by itself is kept as it asked, not by signalling.
        """
        if host != self._own:
            if host in self._addresses:
                for known in self._bindings(host, port, named):
                    if not self._table.is_leased(known):
                        self.notes.name(known, expires)
            return
        internal = self._endpoint(host, port)
        for transport in transports_of(named, self.transport):
            binding = self._table.look_up_internal(transport, internal)
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
        port, count, is_tcp = stream.port, stream.count, stream.protocol.is_tcp
        if not self._is_own(host) or port == 0 or port == DISCARD_PORT:
            return None
        if is_tcp and not self._is_listening(stream):
            return None
        rtp, rtcp = self._endpoint(host, port), self._endpoint(host, stream.rtcp_port)
        if count > 1 and port + 2 * count > 65536:
            raise MalformedSdp(f"{count} pairs of ports from {port} on")
        self._check_host(host)
        for each in range(port, port + 2 * count - 1):
            self._check_port(host, each)
        self._check_port(host, stream.rtcp_port)
        if self._remembered is not None:
            return self._recall(TCP if is_tcp else UDP, rtp, rtcp)
        if is_tcp:
            return self._bind_listening(rtp, rtcp)
        if is_probed:
            self._keep_probed(rtp, rtcp)
        if count > 1:
            return self._bind_row(rtp, count)
        return self._bind_media(rtp, rtcp)

    def rtcp(self, host: bytes, port: int) -> int | None:
        """Binds an RTCP endpoint whose RTP goes another way."""
        if not self._is_own(host) or port == 0 or port == DISCARD_PORT:
            return None
        self._check_host(host)
        self._check_port(host, port)
        internal = self._endpoint(host, port)
        if self._remembered is not None:
            known = self._remembered.get((UDP, internal))
            return known.external[1] if known else None
        binding = self.notes.media[UDP, internal] = self._bind(internal, _RTCP)
        return binding.external[1]

    def address(self, host: bytes) -> bytes | None:
        """Returns the sender's external address for one of its addresses."""
        if host != self._own:
            return self._address_of(host) if host in self._limits.media_hosts else None
        if self._external is None:
            self._external = self._address_of(host)
        return self._external

    def _address_of(self, host: bytes) -> bytes | None:
        external = self._table.external_address(host.decode("ascii"))
        return None if external is None else external.encode("ascii")

    def _is_own(self, host: bytes) -> bool:
        return host == self._own or host in self._limits.media_hosts

    def _endpoint(self, host: bytes, port: int) -> Endpoint:
        if host != self._own:
            return endpoint_of(host.decode("ascii"), port)
        return self._source if port == self._source[1] else endpoint_of(self._host, port)

    def _bindings(self, host: bytes, port: int, named: bytes) -> list[Binding]:
        """Returns the sender's bindings that one of our external endpoints stands for."""
        return bindings_at(
            self._table, transports_of(named, self.transport), host, port, self._host
        )

    def _bind_signalling(self, internal: Endpoint, transports: tuple[Transport, ...]) -> Binding:
        """Binds an endpoint for each transport, by one port if that can be; returns the first."""
        if len(transports) == 1:
            return self._bind_flow(transports[0], internal)
        wanted: int | None = None
        for each in transports:
            known = self._table.look_up_internal(each, internal)
            if known is not None and wanted is None:
                wanted = known.external[1]
        first = self._bind_flow(transports[0], internal, wanted)
        for other in transports[1:]:
            self._bind_flow(other, internal, first.external.port)
        return first

    def _bind_flow(
        self, transport: Transport, internal: Endpoint, wanted: int | None = None
    ) -> Binding:
        """Binds an endpoint for plain traffic; that of the sender's connection is bound already."""
        known = self.notes.signalling.get((transport, internal))
        if known is None and transport is self.transport is TCP and internal == self._source:
            known = self._table.look_up_internal(transport, internal)
        if known is not None:
            return known
        self._check_host(self._own)
        self._check_port(self._own, internal[1])
        if (
            wanted is None
            and transport is UDP
            and self._table.look_up_internal(UDP, internal) is None
        ):
            wanted = seen_port(self._table, self._masqueraded, internal)
        binding = self._table.bind(
            transport,
            internal,
            _SIP,
            FLOW,
            now=self._now,
            expires_at=self._flow_until,
            wanted=wanted,
        )
        self.notes.signalling[transport, internal] = binding
        return binding

    def _check_host(self, host: bytes) -> None:
        """Raises OwnAddress where this host must not be mapped."""
        if host in self._limits.own_addresses:
            raise OwnAddress(host.decode("ascii"))

    def _check_port(self, host: bytes, port: int) -> None:
        """Raises DeniedPort where this port must not be mapped; 0 is no port."""
        if 0 < port < LOWEST_PORT or port in self._limits.denied_ports:
            raise DeniedPort(f"{host.decode('ascii')}:{port}")

    def _keep_probed(self, rtp: Endpoint, rtcp: Endpoint) -> None:
        """Binds sockets to what a STUN server saw of them, so that c= is the phone's own candidate.

        A c= line that is none of the candidates ends ICE with a mismatch (RFC 8839 §5.4).
        """
        behind = None
        for internal, kind in ((rtp, _RTP), (rtcp, _RTCP)):
            if not internal.port or self._table.look_up_internal(UDP, internal):
                continue
            wanted = seen_port(self._table, self._masqueraded, internal) or behind
            if wanted is None:
                continue
            behind = self._bind(internal, kind, wanted).external.port + 1

    def _is_listening(self, stream: Media) -> bool:
        """Whether the sender may have to be connected to, and is allowed to (RFC 4145 §4.1)."""
        setup = stream.setup or (b"passive" if self._is_answer else b"active")
        return self._limits.has_tcp_media and setup in (b"passive", b"actpass")

    def _bind_listening(self, rtp: Endpoint, rtcp: Endpoint) -> tuple[int, int]:
        """Binds what the sender listens at; RTCP has a connection of its own (RFC 4571 §4)."""
        media = self.notes.media
        first = media[TCP, rtp] = self._bind(rtp, Kind.MEDIA)
        if rtcp.port in (0, rtp.port):
            return first.external.port, 0
        second = self._bind(rtcp, Kind.MEDIA, first.external.port + 1)
        media[TCP, rtcp] = second
        return first.external.port, second.external.port

    def _bind(self, internal: Endpoint, kind: Kind, wanted: int | None = None) -> Binding:
        """Binds one media endpoint for the call."""
        return self._table.bind(
            TCP if kind is Kind.MEDIA else UDP,
            internal,
            kind,
            self._owner,
            now=self._now,
            expires_at=self._media_until,
            wanted=wanted,
        )

    def _bind_media(self, rtp: Endpoint, rtcp: Endpoint) -> tuple[int, int]:
        media, rtp_port, rtcp_port = self.notes.media, rtp[1], rtcp[1]
        if rtcp_port == 0 or rtcp_port == rtp_port:
            binding = media[UDP, rtp] = self._bind(rtp, _RTP)
            port = binding.external[1]
            return port, port if rtcp_port else 0
        known = self._table.look_up_internal(UDP, rtp)
        if known is not None and rtcp_port == rtp_port + 1:
            # Its neighbour may be gone meanwhile (RFC 5761), and comes back where it was.
            self._bind(rtcp, _RTCP, known.external[1] + 1)
        first, second = self._table.bind_pair(
            rtp, rtcp, self._owner, now=self._now, expires_at=self._media_until
        )
        media[UDP, rtp] = first
        media[UDP, rtcp] = second
        return first.external[1], second.external[1]

    def _bind_row(self, first: Endpoint, count: int) -> tuple[int, int]:
        """Binds `count` pairs in a row (RFC 8866 §5.14); raises NoFreePort where they are not."""
        address, port = first
        row = [endpoint_of(address, port + offset) for offset in range(2 * count)]
        pairs = self._table.bind_pairs(
            row, self._owner, now=self._now, expires_at=self._media_until
        )
        made = [binding for pair in pairs for binding in pair]
        low = made[0].external.port
        if [binding.external.port for binding in made] != list(range(low, low + len(made))):
            raise NoFreePort(f"the {len(made)} ports from {first} on are mapped, but not in a row")
        self.notes.media.update(((UDP, each.internal), each) for each in made)
        return low, low + 1

    def _recall(
        self, transport: Transport, rtp: Endpoint, rtcp: Endpoint
    ) -> tuple[int, int] | None:
        assert self._remembered is not None
        first = self._remembered.get((transport, rtp))
        second = self._remembered.get((transport, rtcp))
        if first is None:
            return None
        return first.external.port, second.external.port if second else 0
