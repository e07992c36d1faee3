"""NAT-PMP's answers (RFC 6886), for clients older than PCP: a mapping belongs to its host alone."""

from __future__ import annotations

from alg.port_manager import natpmp
from alg.port_manager.epoch import Epoch
from alg.port_manager.leases import Ask, Leases
from alg.port_manager.natpmp import (
    BadRequest,
    Mapped,
    NotRequest,
    Opcode,
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
from nat_table.endpoint import TCP, UDP, Endpoint, Transport, is_ipv6
from nat_table.lease import Source
from nat_table.table import NatTable

_RESULTS: dict[type[Refused], Result] = {
    NoResources: Result.OUT_OF_RESOURCES,
    CannotProvideExternal: Result.OUT_OF_RESOURCES,
    NotAuthorized: Result.NOT_AUTHORIZED,
    InvalidEndpoint: Result.NOT_AUTHORIZED,
    GatewayFailed: Result.NETWORK_FAILURE,
}


class NatPmpServer:
    """Answers requests; a lease lasts for `max_lifetime` seconds at the most."""

    def __init__(
        self, leases: Leases, table: NatTable, epoch: Epoch, *, max_lifetime: float
    ) -> None:
        self._leases = leases
        self._table = table
        self._epoch = epoch
        self._max_lifetime = max_lifetime

    def answer(self, data: bytes, source: str, now: float) -> bytes | None:
        """Returns the response to what came from an address, None where there is none."""
        if is_ipv6(source):
            return None
        try:
            return natpmp.encode_response(self._respond(natpmp.parse_request(data), source, now))
        except NotRequest:
            return None
        except BadRequest as bad:
            result = bad.result
        except Refused as refused:
            result = _RESULTS[type(refused)]
        return natpmp.encode_error(data, result, self._epoch.at(now))

    def announcement(self, address: str, now: float) -> bytes:
        """Returns what tells all clients the external address (§3.2.1)."""
        return natpmp.encode_response(self._response(Opcode.ADDRESS, now, address=address))

    def _respond(self, request: Request, host: str, now: float) -> Response:
        if request.mapped is None:
            address = self._table.external_address(host)
            if address is None:
                raise BadRequest(Result.NETWORK_FAILURE)
            return self._response(Opcode.ADDRESS, now, address=address)
        transport = UDP if request.opcode is Opcode.MAP_UDP else TCP
        mapped = self._map(transport, host, request.mapped, now)
        return self._response(request.opcode, now, mapped=mapped)

    def _map(self, transport: Transport, host: str, asked: Mapped, now: float) -> Mapped:
        """Gives, renews or ends a mapping (§3.3, §3.4)."""
        internal = Endpoint(host, asked.internal_port)
        if not asked.lifetime:
            self._end(transport, internal, now)
            return Mapped(internal.port, 0, 0)
        ask = Ask(
            Source.NAT_PMP,
            transport,
            internal,
            min(asked.lifetime, self._max_lifetime),
            wanted=asked.external_port or None,
        )
        lease = self._leases.request(ask, now)
        return Mapped(internal.port, lease.binding.external.port, round(lease.expires_at - now))

    def _end(self, transport: Transport, internal: Endpoint, now: float) -> None:
        """Ends the mapping of a port, or with port 0 all of the host's."""
        if internal.port:
            ports = [internal]
        else:
            ports = [
                binding.internal
                for binding in self._table.bindings(only_leased=True)
                if binding.internal.address == internal.address and binding.transport is transport
            ]
        found = (self._leases.find(Source.NAT_PMP, transport, each) for each in ports)
        ended = [lease for lease in found if lease is not None]
        if not ended and self._leases.find(Source.STATIC, transport, internal) is not None:
            raise BadRequest(Result.NOT_AUTHORIZED)
        for lease in ended:
            self._leases.end(lease, now)

    def _response(
        self,
        opcode: Opcode,
        now: float,
        *,
        address: str | None = None,
        mapped: Mapped | None = None,
    ) -> Response:
        return Response(opcode, Result.SUCCESS, self._epoch.at(now), address, mapped)
