"""Mappings on request, whatever way they are asked for: one set of rules over the table.

A lease is a pinhole in the table (`nat_table.lease`), and nothing of it is kept elsewhere. Each
call leaves table and kernel as they were, or both as the client was told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import NamedTuple

from alg.outbound import LOWEST_PORT
from alg.port_manager.refusal import (
    CannotProvideExternal,
    GatewayFailed,
    InvalidEndpoint,
    NoMapping,
    NoResources,
    NotAuthorized,
    Refused,
)
from nat_table.binding import ANYONE, Binding, Kind, Permit
from nat_table.endpoint import Endpoint, Transport
from nat_table.lease import NEVER, Source, is_lease, lease_owner
from nat_table.refusal import BindRefused, NoExternalAddress
from nat_table.table import NatTable


def _is_forwarded_to(address: str) -> bool:
    parsed = ip_address(address)
    is_special = parsed.is_multicast or parsed.is_unspecified or parsed.is_loopback
    return not (is_special or parsed.is_link_local)


class LeaseLimits(NamedTuple):
    """What nobody may have mapped: ports, and the addresses of the router itself.

    `is_internal` tells whether an address is one of a host behind this router.
    """

    denied_ports: frozenset[int] = frozenset()
    own_addresses: frozenset[str] = frozenset()
    max_lifetime: float = 86400.0
    is_internal: Callable[[str], bool] = _is_forwarded_to


@dataclass(frozen=True, slots=True)
class Ask:
    """What a client asks for; `lifetime` is in seconds, and nothing to a static mapping.

    `wanted` is the external port it would like, and with `is_exact` takes no other. With a
    `count` it asks for so many internal ports from this one on, with external ports that follow
    each other too; those of RTP are for RTP and RTCP in turn. `name` is a nonce, or a description:
    what its lease is known by.
    """

    source: Source
    transport: Transport
    internal: Endpoint
    lifetime: float
    kind: Kind = Kind.ANY
    name: str = ""
    wanted: int | None = None
    is_exact: bool = False
    count: int = 1
    remotes: tuple[Endpoint, ...] = ()
    permits: tuple[Permit, ...] = (ANYONE,)

    @property
    def row(self) -> list[Endpoint]:
        """The internal endpoints that it is about."""
        address, port = self.internal
        return [Endpoint(address, port + offset) for offset in range(self.count)]


class Lease(NamedTuple):
    """A lease as it stands."""

    binding: Binding
    source: Source
    name: str
    expires_at: float
    permits: tuple[Permit, ...]
    remotes: tuple[Endpoint, ...]


class Leases:
    """Gives, renews and takes back mappings on request.

    `settle` makes the kernel follow the table; where that refuses it raises GatewayFailed, with the
    table put back.
    """

    def __init__(self, table: NatTable, limits: LeaseLimits, settle: Callable[[], object]) -> None:
        self._table = table
        self.limits = limits
        self._settle = settle

    def request(self, ask: Ask, now: float) -> Lease:
        """Gives or renews a lease, kernel and all; raises Refused.

        A standing mapping is kept as it is (RFC 4787 REQ-1), so that its external port may be
        another than the one that is wanted. With a `count` the first lease is returned.
        """
        self._check(ask)
        try:
            lease = self._bind(ask, now)
        except NoExternalAddress as error:
            raise GatewayFailed(str(error)) from error
        except BindRefused as error:
            self._undo()
            raise NoResources(str(error)) from error
        except Refused:
            self._undo()
            raise
        self._settle()
        return lease

    def release(
        self,
        source: Source,
        transport: Transport,
        internal: Endpoint,
        now: float,
        name: str | None = None,
    ) -> Lease:
        """Ends the source's lease of a mapping, and returns it; raises NoMapping, GatewayFailed.

        Of several clients' leases it is the one of this name, or else the first.
        """
        lease = self.require(source, transport, internal, name)
        self.end(lease, now)
        return lease

    def external_address(self, host: str) -> str | None:
        """Returns the external address that a host's mappings are on."""
        return self._table.external_address(host)

    def find(
        self, source: Source, transport: Transport, internal: Endpoint, name: str | None = None
    ) -> Lease | None:
        """Returns the source's lease, of this name or the first, of an internal endpoint."""
        binding = self._table.look_up_internal(transport, internal)
        return None if binding is None else next(self.of(binding, source, name), None)

    def require(
        self, source: Source, transport: Transport, internal: Endpoint, name: str | None = None
    ) -> Lease:
        """Returns what `find` does; raises NoMapping where that is nothing."""
        lease = self.find(source, transport, internal, name)
        if lease is None:
            raise NoMapping(f"{internal} has no {transport.label} mapping by {source.value}")
        return lease

    def at(self, source: Source, transport: Transport, external: Endpoint) -> list[Lease]:
        """Returns the source's leases of the mapping that an external endpoint stands for."""
        binding = self._table.look_up_external(transport, external)
        return [] if binding is None else list(self.of(binding, source))

    def end(self, lease: Lease, now: float) -> None:
        """Ends a lease that was found; raises GatewayFailed."""
        self._table.close(lease.binding, lease_owner(lease.source, lease.name), now)
        self._settle()

    def all(self, source: Source | None = None) -> list[Lease]:
        """Returns all leases, or those of one source, the oldest first."""
        bindings = self._table.bindings(only_leased=True)
        leases = (lease for binding in bindings for lease in self.of(binding, source))
        return sorted(leases, key=lambda lease: lease.binding.created_at)

    def of(
        self, binding: Binding, source: Source | None, name: str | None = None
    ) -> Iterator[Lease]:
        """Yields the leases of a mapping: of one source, or of one name, where these are given."""
        for pinhole in self._table.pinholes(binding):
            if is_lease(pinhole):
                _, named, known_as = pinhole.owner
                if source in (None, Source(named)) and name in (None, known_as):
                    yield Lease(
                        binding,
                        Source(named),
                        known_as,
                        pinhole.expires_at,
                        pinhole.permits,
                        pinhole.remotes,
                    )

    def _bind(self, ask: Ask, now: float) -> Lease:
        """Gives or renews a lease in the table; raises BindRefused or Refused, not all undone."""
        owner, row = lease_owner(ask.source, ask.name), ask.row
        lifetime = min(ask.lifetime, self.limits.max_lifetime)
        expires_at = NEVER if ask.source is Source.STATIC else now + lifetime
        bindings = self._table.bind_row(
            ask.transport,
            row,
            (Kind.RTP, Kind.RTCP) if ask.kind is Kind.RTP else (ask.kind,),
            owner,
            now=now,
            expires_at=expires_at,
            wanted=self._wanted(ask, row),
            remotes=ask.remotes,
            permits=ask.permits,
        )
        _check_external(ask, [binding.external.port for binding in bindings])
        for binding in bindings:
            self._table.refresh(binding, owner, expires_at, ask.remotes, ask.permits)
        if ask.source is not Source.STATIC:
            self._table.check_leases(ask.internal.address)
        return Lease(bindings[0], ask.source, ask.name, expires_at, ask.permits, ask.remotes)

    def _undo(self) -> None:
        self._table.revert(self._table.take_changes())

    def _wanted(self, ask: Ask, row: Sequence[Endpoint]) -> int | None:
        """Returns where the external row must begin to go with what stands of it already."""
        for offset, internal in enumerate(row):
            standing = self._table.look_up_internal(ask.transport, internal)
            if standing is not None:
                return standing.external.port - offset
        return ask.wanted

    def _check(self, ask: Ask) -> None:
        address, first = ask.internal
        last = first + ask.count - 1
        if not 0 < first <= last < 65536:
            raise InvalidEndpoint(f"{address} has no ports {first} to {last}")
        if address in self.limits.own_addresses:
            raise NotAuthorized(f"{address} is an address of the gateway")
        if not self._table.count(address) and not (
            _is_forwarded_to(address) and self.limits.is_internal(address)
        ):
            raise InvalidEndpoint(f"{address} is not the address of an internal host")
        if ask.source is not Source.STATIC:
            for _, port in ask.row:
                if port < LOWEST_PORT or port in self.limits.denied_ports:
                    raise NotAuthorized(f"port {port} is never opened")


def _check_external(ask: Ask, ports: Sequence[int]) -> None:
    """Raises Refused where the external ports are not what the client can use."""
    first = ports[0]
    if ask.is_exact and first != ask.wanted:
        raise CannotProvideExternal(f"external port {ask.wanted} cannot be had")
    if ports != list(range(first, first + len(ports))):
        raise NoResources(f"{len(ports)} ports in a row cannot be had from {ask.internal} on")
