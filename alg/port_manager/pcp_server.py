"""PCP's answers (RFC 6887): what a request may have, told in the protocol's words.

A client is known by its nonce: a lease's name is the nonce, with the peer behind it where PEER has
made it, so that only who made a mapping can change it (§11.3) and a restart forgets nothing. MAP
lets anyone in, or whom its filters name; PEER just the peer, and keeps the port that the flow has.
A request is answered, refused with a code, or, where no answer can be right, met with silence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from ipaddress import ip_address, ip_network

from alg.port_manager import pcp
from alg.port_manager.epoch import Epoch
from alg.port_manager.leases import Ask, Lease, Leases
from alg.port_manager.pcp import (
    BadRequest,
    Body,
    NotRequest,
    Opcode,
    Options,
    PortSet,
    Request,
    Response,
    Result,
)
from alg.port_manager.refusal import (
    CannotProvideExternal,
    GatewayFailed,
    InvalidEndpoint,
    NoResources,
    NotAuthorized,
    Refused,
)
from nat_table.binding import ANYONE, Permit
from nat_table.endpoint import (
    TCP,
    Endpoint,
    Transport,
    is_ipv6,
    is_one_family,
    parse_endpoint,
)
from nat_table.lease import Source
from nat_table.masquerade import Masqueraded, seen_port
from nat_table.refusal import QuotaExceeded
from nat_table.table import NatTable

MIN_LIFETIME = 120.0
MAX_FILTERS = 16
MAX_PEERS = 16
MAX_PORT_SET = 64
_SHORT, _LONG = 30, 1800
_PASSING = frozenset(
    (
        Result.NETWORK_FAILURE,
        Result.NO_RESOURCES,
        Result.USER_EX_QUOTA,
        Result.CANNOT_PROVIDE_EXTERNAL,
        Result.EXCESSIVE_REMOTE_PEERS,
    )
)
_RESULTS: dict[type[Refused], Result] = {
    NoResources: Result.NO_RESOURCES,
    NotAuthorized: Result.NOT_AUTHORIZED,
    InvalidEndpoint: Result.NOT_AUTHORIZED,
    CannotProvideExternal: Result.CANNOT_PROVIDE_EXTERNAL,
    GatewayFailed: Result.NETWORK_FAILURE,
}
_TRANSPORTS = {each.value: each for each in Transport}


class PcpServer:
    """Answers requests; `is_secure` has a client map to itself alone."""

    def __init__(
        self,
        leases: Leases,
        table: NatTable,
        epoch: Epoch,
        masqueraded: Masqueraded,
        *,
        max_lifetime: float,
        is_secure: bool,
    ) -> None:
        self._leases = leases
        self._table = table
        self._epoch = epoch
        self._masqueraded = masqueraded
        self._max_lifetime = max_lifetime
        self._is_secure = is_secure

    def answer(self, data: bytes, source: str, now: float) -> bytes | None:
        """Returns the response to what came from an address, None where there is none."""
        lifetime = None
        try:
            response = self._respond(pcp.parse_request(data), source, now)
        except NotRequest:
            return None
        except BadRequest as bad:
            result, lifetime = bad.result, bad.lifetime
        except Refused as refused:
            is_quota = isinstance(refused.__cause__, QuotaExceeded)
            result = Result.USER_EX_QUOTA if is_quota else _RESULTS[type(refused)]
        else:
            return pcp.encode_response(response)
        if lifetime is None:
            lifetime = _SHORT if result in _PASSING else _LONG
        return pcp.encode_error(data, result, round(lifetime), self._epoch.at(now))

    def announcement(self, now: float) -> bytes:
        """Returns what tells all clients the epoch (§14.1)."""
        return pcp.encode_response(self._response(Opcode.ANNOUNCE, 0, now))

    def updates(self, now: float) -> Iterator[tuple[Endpoint, bytes]]:
        """Yields, for each lease, what tells its host where it is now, and where to (§14.2)."""
        for lease in self._leases.all(Source.PCP):
            binding, (nonce, peer) = lease.binding, _known_by(lease)
            opcode = Opcode.MAP if peer is None else Opcode.PEER
            protocol, (host, port) = binding.transport.value, binding.internal
            body = Body(nonce, protocol, port, binding.external, peer)
            response = self._response(opcode, lease.expires_at - now, now, body)
            yield Endpoint(host, pcp.CLIENT_PORT), pcp.encode_response(response)

    def _respond(self, request: Request, source: str, now: float) -> Response:
        if request.client != source:
            raise BadRequest(Result.ADDRESS_MISMATCH)
        body = request.body
        if body is None:
            return self._response(Opcode.ANNOUNCE, 0, now)
        host = self._host(request)
        if body.peer is not None:
            return self._peer(host, request, body, body.peer, now)
        return self._map(host, request, body, now)

    def _host(self, request: Request) -> str:
        """Returns the address that a mapping is for (§13.1)."""
        third_party = request.options.third_party
        if third_party is None:
            return request.client
        if self._is_secure:
            raise BadRequest(Result.UNSUPP_OPTION)
        if third_party == request.client:
            raise BadRequest(Result.MALFORMED_REQUEST)
        if ip_address(third_party).is_unspecified:
            raise BadRequest(Result.NOT_AUTHORIZED)
        return third_party

    def _map(self, host: str, request: Request, body: Body, now: float) -> Response:
        """Gives, renews or ends what MAP asks for (§11.3)."""
        options = request.options
        if not body.protocol and body.internal_port:
            raise BadRequest(Result.MALFORMED_REQUEST)
        _check_options(host, body, request.lifetime, options)
        if not body.internal_port and not request.lifetime:
            return self._response(Opcode.MAP, 0, now, body, options)
        transport = _transport(body)
        row = _row(Endpoint(host, body.internal_port), options.port_set)
        standing = self._mapped(transport, row[0])
        name = body.nonce.hex()
        if standing is not None and standing.name != name:
            raise BadRequest(Result.NOT_AUTHORIZED, standing.expires_at - now)
        if not request.lifetime:
            self._end(transport, row, name, now)
            return self._response(Opcode.MAP, 0, now, body, options)
        count = self._unclaimed(transport, row, name)
        if options.prefers_failure:
            self._check_address(host, body)
            if options.port_set is not None and options.port_set.size > count:
                raise BadRequest(Result.CANNOT_PROVIDE_EXTERNAL)
        ask = Ask(
            Source.PCP,
            transport,
            row[0],
            self._lifetime(request.lifetime),
            name=name,
            wanted=body.external.port or self._kept_port(transport, row[0]),
            is_exact=options.prefers_failure and body.external.port != 0,
            count=count,
            permits=_permits(standing, options.filters),
        )
        lease, count = self._grant(ask, now, needs_all=options.prefers_failure)
        port_set = None
        if count > 1 and options.port_set is not None:
            port_set = options.port_set._replace(size=count)
        return self._response(
            Opcode.MAP,
            lease.expires_at - now,
            now,
            body._replace(external=lease.binding.external),
            replace(options, port_set=port_set),
        )

    def _peer(
        self, host: str, request: Request, body: Body, peer: Endpoint, now: float
    ) -> Response:
        """Keeps a flow's mapping for its peer; never shortens it (§12.3)."""
        transport, internal = _transport(body), Endpoint(host, body.internal_port)
        if not (peer.port and is_one_family(internal, peer)):
            raise BadRequest(Result.MALFORMED_REQUEST)
        peers = [lease for lease in self._own(transport, internal) if _known_by(lease)[1]]
        standing = next((lease for lease in peers if _known_by(lease)[1] == peer), None)
        if standing is not None and _known_by(standing)[0] != body.nonce:
            raise BadRequest(Result.NOT_AUTHORIZED, standing.expires_at - now)
        if standing is None and len(peers) >= MAX_PEERS:
            raise BadRequest(Result.USER_EX_QUOTA)
        left = 0.0 if standing is None else standing.expires_at - now
        if not request.lifetime and standing is None:
            return self._response(Opcode.PEER, 0, now, body, request.options)
        wanted = None
        if self._table.look_up_internal(transport, internal) is None:
            if transport is TCP:  # its connection would be cut: nobody knows which port it has
                raise BadRequest(Result.UNSUPP_PROTOCOL)
            wanted = self._kept_port(transport, internal)
            if wanted is None:
                self._check_address(host, body)
                wanted = body.external.port or None
        network = ip_network(peer.address)
        ask = Ask(
            Source.PCP,
            transport,
            internal,
            max(left, self._lifetime(request.lifetime) if request.lifetime else 0.0),
            name=f"{body.nonce.hex()} {peer}",
            wanted=wanted,
            is_exact=wanted is not None,
            permits=(Permit(str(network), peer.port),),
        )
        lease = self._leases.request(ask, now)
        granted = body._replace(external=lease.binding.external)
        return self._response(Opcode.PEER, lease.expires_at - now, now, granted, request.options)

    def _grant(self, ask: Ask, now: float, *, needs_all: bool) -> tuple[Lease, int]:
        """Gives as many ports of a set as can be had, unless it needs all (RFC 7753 §4.2)."""
        while True:
            try:
                return self._leases.request(ask, now), ask.count
            except (NoResources, CannotProvideExternal):
                if ask.count == 1 or needs_all:
                    raise
                ask = replace(ask, count=ask.count // 2)

    def _end(self, transport: Transport, row: Sequence[Endpoint], name: str, now: float) -> None:
        """Ends what the client has of these; it has none of a static mapping (§15)."""
        own = (lease for each in row for lease in self._own(transport, each))
        ended = [lease for lease in own if lease.name == name]
        if not ended and self._leases.find(Source.STATIC, transport, row[0]) is not None:
            raise BadRequest(Result.NOT_AUTHORIZED)
        for lease in ended:
            self._leases.end(lease, now)

    def _own(self, transport: Transport, internal: Endpoint) -> list[Lease]:
        binding = self._table.look_up_internal(transport, internal)
        return [] if binding is None else list(self._leases.of(binding, Source.PCP))

    def _mapped(self, transport: Transport, internal: Endpoint) -> Lease | None:
        """Returns the one lease that MAP has made of an endpoint."""
        own = self._own(transport, internal)
        return next((lease for lease in own if _known_by(lease)[1] is None), None)

    def _unclaimed(self, transport: Transport, row: Sequence[Endpoint], name: str) -> int:
        """Returns how many of a row are not mapped by another nonce, from the first on."""
        for count, internal in enumerate(row):
            lease = self._mapped(transport, internal)
            if lease is not None and lease.name != name:
                return count
        return len(row)

    def _kept_port(self, transport: Transport, internal: Endpoint) -> int | None:
        """Returns the port that an unmapped socket's flows have already, so that they keep it."""
        if transport is TCP or self._table.look_up_internal(transport, internal) is not None:
            return None
        return seen_port(self._table, self._masqueraded, internal)

    def _check_address(self, host: str, body: Body) -> None:
        """Raises BadRequest where the client insists on an address that is not its external one."""
        address = ip_address(body.external.address)
        external = self._table.external_address(host)
        if not address.is_unspecified and external is not None and str(address) != external:
            raise BadRequest(Result.CANNOT_PROVIDE_EXTERNAL)

    def _lifetime(self, asked: int) -> float:
        return min(max(asked, MIN_LIFETIME), self._max_lifetime)

    def _response(
        self,
        opcode: Opcode,
        lifetime: float,
        now: float,
        body: Body | None = None,
        options: Options = pcp.NO_OPTIONS,
    ) -> Response:
        seconds = max(0, round(lifetime))
        return Response(opcode, Result.SUCCESS, seconds, self._epoch.at(now), body, options)


def _transport(body: Body) -> Transport:
    """Returns what is mapped, which is a port of UDP or TCP and never all there is."""
    transport = _TRANSPORTS.get(body.protocol)
    if transport is None or not body.internal_port:
        raise BadRequest(Result.UNSUPP_PROTOCOL)
    return transport


def _check_options(host: str, body: Body, lifetime: int, options: Options) -> None:
    """Raises BadRequest where the options do not fit the rest (§13.3, RFC 7753 §4.1)."""
    if options.filters and not lifetime:
        raise BadRequest(Result.MALFORMED_OPTION)
    if any(each.network and is_ipv6(each.network) != is_ipv6(host) for each in options.filters):
        raise BadRequest(Result.MALFORMED_OPTION)
    if options.port_set is not None and options.port_set.first != body.internal_port:
        raise BadRequest(Result.MALFORMED_OPTION)


def _row(first: Endpoint, port_set: PortSet | None) -> list[Endpoint]:
    """Returns the internal endpoints that are asked for, or as many as anybody gets at a time."""
    size = min(1 if port_set is None else port_set.size, MAX_PORT_SET)
    last = min(first.port + size, 1 << 16)
    return [Endpoint(first.address, port) for port in range(first.port, last)]


def _permits(standing: Lease | None, filters: Sequence[Permit]) -> tuple[Permit, ...]:
    """Returns whom a mapping lets in: filters add to those before, an empty one ends them."""
    permits = list(standing.permits) if standing is not None else []
    if permits == [ANYONE]:
        permits.clear()
    for permit in filters:
        if permit == ANYONE:
            permits.clear()
        elif permit not in permits:
            permits.append(permit)
    if len(permits) > MAX_FILTERS:
        raise BadRequest(Result.EXCESSIVE_REMOTE_PEERS)
    return tuple(permits) or (ANYONE,)


def _known_by(lease: Lease) -> tuple[bytes, Endpoint | None]:
    """Returns the nonce of a lease, and its peer where PEER has made it."""
    nonce, _, peer = lease.name.partition(" ")
    return bytes.fromhex(nonce), parse_endpoint(peer) if peer else None
