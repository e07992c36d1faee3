"""What stands for what in one message: the table as the rewriter sees it.

`Outbound` binds. An internal host names its own address, so it gets external endpoints, for itself
and for nobody else (other hosts only if the configuration says that they are its media hosts).
`Inbound` only looks up: nothing that comes from outside makes a mapping.

Both take notes of what they met, for the dialogs: which Contacts, which media bindings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from alg.rewrite import Mapped
from alg.sdp.session import DISCARD_PORT, Media
from alg.written import Form, Written
from nat_table.binding import Binding, Kind, Owner
from nat_table.endpoint import Endpoint, Transport
from nat_table.table import NatTable, NoFreePort

LOWEST_PORT = 1024

FLOW = Owner("flow")


class DeniedPort(ValueError):
    """A message names an internal port that must never be opened (dynamic ports only)."""


class Notes:
    """What one message named: our Contacts with their expires, signalling and media bindings."""

    __slots__ = ("contacts", "is_wildcard", "media", "signalling")

    def __init__(self) -> None:
        self.contacts: dict[Binding, list[int | None]] = {}
        self.is_wildcard = False
        self.signalling: dict[Endpoint, Binding] = {}
        self.media: dict[Endpoint, Binding] = {}

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

    def media_bindings(self) -> tuple[Binding, ...]:
        """Returns the media bindings in the order of the description, each once."""
        return tuple(dict.fromkeys(self.media.values()))


class Outbound:
    """Internal to external, for one message of the host at `source`."""

    __slots__ = (
        "_addresses",
        "_flow_until",
        "_hosts",
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
        hosts: frozenset[bytes],
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

        `hosts` are the addresses that the sender may name in its descriptions, while in a header
        field only its own counts; `masqueraded` tells what external endpoint the kernel has given
        an unmapped socket; `remembered` replaces binding of media by looking up, for a call that
        has ended.
        """
        self._table = table
        self.transport = transport
        self._source = source
        self._own = source.address.encode("ascii")
        self._hosts = hosts
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

    def media(self, host: bytes, stream: Media, is_probed: bool) -> tuple[int, int] | None:
        """Binds the endpoints of one stream; the RTCP port is 0 where the stream has none."""
        if host not in self._hosts or stream.port in (0, DISCARD_PORT) or stream.is_tcp:
            return None
        address = host.decode("ascii")
        rtp = Endpoint(address, stream.port)
        rtcp = Endpoint(address, stream.rtcp_port)
        for endpoint in (rtp, rtcp):
            if 0 < endpoint.port < LOWEST_PORT:
                raise DeniedPort(f"{endpoint}")
        if self._remembered is not None:
            return self._recall(rtp, rtcp)
        if is_probed:
            self._keep_probed(rtp, rtcp)
        if stream.count > 1:
            return self._bind_row(rtp, stream.count)
        return self._bind_media(rtp, rtcp)

    def rtcp(self, host: bytes, port: int) -> int | None:
        """Binds an RTCP endpoint whose RTP goes another way."""
        if host not in self._hosts or port in (0, DISCARD_PORT):
            return None
        internal = Endpoint(host.decode("ascii"), port)
        if port < LOWEST_PORT:
            raise DeniedPort(f"{internal}")
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
        if internal.port < LOWEST_PORT:
            raise DeniedPort(f"{internal}")
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

    __slots__ = ("_addresses", "_host", "_table", "_written", "notes", "transport")

    def __init__(
        self,
        table: NatTable,
        transport: Transport,
        host: str,
        addresses: frozenset[bytes],
        written: Written,
    ) -> None:
        self._table = table
        self.transport = transport
        self._host = host
        self._addresses = addresses
        self._written = written
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

    def media(self, host: bytes, stream: Media, is_probed: bool) -> tuple[int, int] | None:
        """Returns None: what a remote says about its media is not ours to change."""
        return None

    def rtcp(self, host: bytes, port: int) -> int | None:
        """Returns None, as `media` does."""
        return None

    def address(self, host: bytes) -> bytes | None:
        """Returns None, as `media` does."""
        return None

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
