"""A router in memory that is asked for mappings: table, leases, and the two servers."""

from __future__ import annotations

import random

from alg.port_manager import natpmp, pcp
from alg.port_manager.epoch import Epoch
from alg.port_manager.leases import LeaseLimits, Leases
from alg.port_manager.natpmp_server import NatPmpServer
from alg.port_manager.pcp import Body, Opcode, Options, Request, Response
from alg.port_manager.pcp_server import PcpServer
from alg.port_manager.refusal import GatewayFailed
from nat_table.behavior import Behavior
from nat_table.binding import Binding, Permit
from nat_table.endpoint import UDP, Endpoint, Transport
from nat_table.lease import Source
from nat_table.prefix import ROUTED
from nat_table.table import NatTable

PHONE, PHONE_2, ROUTER = "10.0.0.20", "10.0.0.21", "10.0.0.1"
PHONE6 = "2001:db8:1::20"
EXTERNAL = "203.0.113.1"
REMOTE = Endpoint("203.0.113.10", 6000)
NONCE, OTHER_NONCE = bytes(12), bytes(range(12))
UNSPECIFIED = Endpoint("0.0.0.0", 0)
MAX_LIFETIME = 3600.0


class Router:
    """Time passes by `now`; what flows have been masqueraded to is in `masqueraded`."""

    def __init__(self, *, is_secure: bool = True, behavior: Behavior | None = None) -> None:
        self.now = 1000.0
        self.masqueraded: dict[Endpoint, Endpoint] = {}
        self.is_kernel_failing = False
        self.table = NatTable([EXTERNAL], behavior or Behavior(), random.Random(1), ROUTED)
        limits = LeaseLimits(frozenset((5555,)), frozenset((ROUTER, EXTERNAL)), MAX_LIFETIME)
        self.leases = Leases(self.table, limits, self._settle)
        self.epoch = Epoch(self.now)
        self._pcp = PcpServer(
            self.leases,
            self.table,
            self.epoch,
            self.masqueraded.get,
            max_lifetime=MAX_LIFETIME,
            is_secure=is_secure,
        )
        self._natpmp = NatPmpServer(self.leases, self.table, self.epoch, max_lifetime=MAX_LIFETIME)

    def map(
        self,
        port: int = 4000,
        *,
        lifetime: int = 600,
        nonce: bytes = NONCE,
        protocol: int = UDP.value,
        external: Endpoint = UNSPECIFIED,
        options: Options = pcp.NO_OPTIONS,
        host: str = PHONE,
    ) -> Response:
        """Asks for MAP and returns the response."""
        body = Body(nonce, protocol, port, external)
        return self.ask(Request(Opcode.MAP, host, lifetime, body, options))

    def peer(
        self,
        port: int = 4000,
        *,
        peer: Endpoint = REMOTE,
        lifetime: int = 600,
        nonce: bytes = NONCE,
        protocol: int = UDP.value,
        external: Endpoint = UNSPECIFIED,
    ) -> Response:
        """Asks for PEER and returns the response."""
        body = Body(nonce, protocol, port, external, peer)
        return self.ask(Request(Opcode.PEER, PHONE, lifetime, body))

    def ask(self, request: Request, source: str = "") -> Response:
        """Asks, from the client's address unless another is given."""
        data = self.send(pcp.encode_request(request), source or request.client)
        assert data is not None
        return pcp.parse_response(data)

    def send(self, data: bytes, source: str = PHONE) -> bytes | None:
        """Sends octets to the PCP server and returns its answer."""
        return self._pcp.answer(data, source, self.now)

    def updates(self) -> list[tuple[Endpoint, Response]]:
        """Returns what clients are told of their mappings."""
        return [(to, pcp.parse_response(data)) for to, data in self._pcp.updates(self.now)]

    def map_by_natpmp(
        self,
        port: int = 4000,
        *,
        lifetime: int = 600,
        external: int = 0,
        host: str = PHONE,
        opcode: natpmp.Opcode = natpmp.Opcode.MAP_UDP,
    ) -> natpmp.Response:
        """Asks for a mapping by NAT-PMP and returns the response."""
        request = natpmp.Request(opcode, natpmp.Mapped(port, external, lifetime))
        data = self.send_natpmp(natpmp.encode_request(request), host)
        assert data is not None
        return natpmp.parse_response(data)

    def send_natpmp(self, data: bytes, source: str = PHONE) -> bytes | None:
        """Sends octets to the NAT-PMP server and returns its answer."""
        return self._natpmp.answer(data, source, self.now)

    def binding(self, port: int = 4000, transport: Transport = UDP) -> Binding:
        """Returns the binding of the phone's port."""
        binding = self.table.look_up_internal(transport, Endpoint(PHONE, port))
        assert binding is not None
        return binding

    def permits(self, source: Source = Source.PCP, port: int = 4000) -> tuple[Permit, ...]:
        """Returns whom the source's only lease of the phone's port lets in."""
        (lease,) = self.leases.of(self.binding(port), source)
        return lease.permits

    def _settle(self) -> None:
        changes = self.table.take_changes()
        if self.is_kernel_failing:
            self.table.revert(changes)
            raise GatewayFailed("the kernel refused the mapping")
