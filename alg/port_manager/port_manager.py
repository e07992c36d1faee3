"""The port manager: what a client that traverses the NAT by itself asks the NAT.

It is the RTC Client API's port manager (IRTCPortManager3 of RTC 1.5), seen from the side of the
application, which there has to write it:

    RTC 1.5                                       here
    --------------------------------------------  ----------------------------------------------
    GetMappingEx                                  get_mapping
      bstrRemoteAddress, lRemotePort                remote
      lTransport                                    transport
      enPortType                                    port_type
        RTCPT_SIP                                     PortType.SIP
        RTCPT_AUDIO_RTP,  RTCPT_VIDEO_RTP             PortType.RTP
        RTCPT_AUDIO_RTCP, RTCPT_VIDEO_RTCP            PortType.RTCP
      pbstrInternalLocalAddress, ...Port            Mapping.internal
      pbstrExternalLocalAddress, ...Port            Mapping.external
    ReleaseMappingEx                              release_mapping
      lTransport, bstrInternal..., bstrExternal...  mapping
    UpdateRemoteAddressEx2                        update_remote_address
      bstrRemoteAddress, lRemotePort                remote
      lTransport, bstrInternal..., bstrExternal...  mapping
    RTC_E_MAPPING_INVALID                         NoMapping

A call goes as it did there:

    with PortManager.at("/run/sipnat/control.sock", host="10.0.0.20") as ports:
        sip = ports.get_mapping(server, Transport.UDP, PortType.SIP)
        rtp = ports.get_mapping(server, Transport.UDP, PortType.RTP)
        rtcp = ports.get_mapping(server, Transport.UDP, PortType.RTCP)
        ...                         # bind .internal; write .external into REGISTER, INVITE and SDP
        ports.update_remote_address(rtp, Endpoint("198.51.100.7", 30000))   # as the 200 OK says
        ...                         # talk; renew() every half hour
        ports.release_mapping(rtp)  # and rtcp, after BYE; sip at the end, by leaving `with`
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from alg.io import control
from alg.io.control import ControlError, Row
from alg.io.free_port import free_port
from alg.port_manager.map_command import DEFAULT_LIFETIME
from alg.port_manager.mapping import Mapping, PortType, Transport
from alg.port_manager.refusal import REFUSALS, GatewayFailed, NoMapping, NoResources
from nat_table.endpoint import Endpoint, parse_endpoint

Door = Callable[[Row], Iterable[Row]]
"""What takes a request `map` and returns its rows, or raises Refused: `MapCommand.answer`."""


@dataclass(slots=True)
class _Held:
    """What a mapping is for; `rtcp` is what came with it, and is not `is_asked_for` until it is."""

    port_type: PortType
    remote: Endpoint | None
    rtcp: Mapping | None = None
    is_asked_for: bool = True


class PortManager:
    """Gets, changes and releases the mappings of one host; each method may raise Refused.

    A mapping lasts for `lifetime` seconds unless it is renewed (the gateway's `max_lease` at the
    most). Clients that may ask for one and the same internal endpoint give themselves different
    names: it stays mapped until all of them have released it.
    """

    def __init__(
        self, ask: Door, host: str, *, name: str = "", lifetime: float = DEFAULT_LIFETIME
    ) -> None:
        self._ask = ask
        self._host = host
        self._name = name
        self._lifetime = lifetime
        self._held: dict[Mapping, _Held] = {}

    @classmethod
    def at(
        cls, path: str | Path, host: str, *, name: str = "", lifetime: float = DEFAULT_LIFETIME
    ) -> Self:
        """Returns a port manager that asks the gateway at a control socket."""

        def ask(request: Row) -> list[dict[str, object]]:
            try:
                return list(control.ask(path, {"command": "map", **request}))
            except ControlError as error:
                raise REFUSALS.get(error.code, GatewayFailed)(str(error)) from None

        return cls(ask, host, name=name, lifetime=lifetime)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def get_mapping(
        self,
        remote: Endpoint | None,
        transport: Transport,
        port_type: PortType,
        internal: Endpoint | None = None,
    ) -> Mapping:
        """Returns which endpoint to use, and which to write, for traffic with a remote.

        Who may send there is the gateway's filtering policy to say, by this remote and those of
        earlier calls; while none is known, anybody may. Asked again about one `internal` endpoint
        it returns the same mapping, its lifetime begun anew. Without `internal`, SIP has one
        mapping for each transport; RTP has a new one each time, on an even port with RTCP's beside
        it, and that is what RTCP gets then.
        """
        internal = internal or self._internal(transport, port_type)
        mapping, *others = self._add(internal, transport, port_type, remote)
        held = self._held[mapping] = _Held(PortType(port_type), remote)
        for rtcp in others:
            held.rtcp = rtcp
            self._held.setdefault(rtcp, _Held(PortType.RTCP, remote, is_asked_for=False))
            self._held[rtcp].remote = remote
        return mapping

    def update_remote_address(self, mapping: Mapping, remote: Endpoint | None) -> None:
        """Lets this remote use a mapping instead of all before; raises NoMapping.

        RTCP that has come with RTP, and was not asked for, goes with it.
        """
        for each in self._with_rtcp(mapping):
            self._change("update", each, remote=remote and str(remote))
            if each in self._held:
                self._held[each].remote = remote

    def release_mapping(self, mapping: Mapping) -> None:
        """Gives a mapping back; one that is gone already is no error.

        RTCP that has come with RTP, and was not asked for, goes with it.
        """
        for each in self._with_rtcp(mapping):
            with contextlib.suppress(NoMapping):
                self._change("release", each)
            self._held.pop(each, None)

    def renew(self) -> dict[Mapping, Mapping]:
        """Begins the lifetime of all mappings anew; returns what has become of which.

        It is empty unless the gateway has another external address, or has lost its memory.
        """
        became: dict[Mapping, Mapping] = {}
        for mapping, held in self._held.items():
            try:
                again = self._change("update", mapping)
            except NoMapping:
                internal, transport = mapping.internal, mapping.transport
                again = self._add(internal, transport, held.port_type, held.remote)[0]
            if again != mapping:
                became[mapping] = again
        self._held = {became.get(mapping, mapping): held for mapping, held in self._held.items()}
        for held in self._held.values():
            if held.rtcp is not None:
                held.rtcp = became.get(held.rtcp, held.rtcp)
        return became

    def close(self) -> None:
        """Gives all mappings back; where the gateway is gone they end by themselves."""
        for mapping in list(self._held):
            with contextlib.suppress(GatewayFailed):
                self.release_mapping(mapping)

    def _internal(self, transport: Transport, port_type: PortType) -> Endpoint:
        """Returns the endpoint that a request is about which names none."""
        for mapping, held in reversed(self._held.items()):
            if mapping.transport == transport:
                if held.port_type == port_type == PortType.SIP:
                    return mapping.internal
                if held.rtcp is not None and port_type == PortType.RTCP:
                    return held.rtcp.internal
        is_udp = transport == Transport.UDP
        port = free_port(
            self._host,
            socket.SOCK_DGRAM if is_udp else socket.SOCK_STREAM,
            is_even=port_type != PortType.RTCP,
            count=2 if is_udp and port_type == PortType.RTP else 1,
            taken={mapping.internal.port for mapping in self._held},
        )
        if port is None:
            raise NoResources(f"{self._host} has hardly a port that no socket has")
        return Endpoint(self._host, port)

    def _with_rtcp(self, mapping: Mapping) -> list[Mapping]:
        """Returns a mapping, and the one that goes with it."""
        held = self._held.get(mapping)
        rtcp = None if held is None else held.rtcp
        if rtcp is None or rtcp not in self._held or self._held[rtcp].is_asked_for:
            return [mapping]
        return [mapping, rtcp]

    def _add(
        self,
        internal: Endpoint,
        transport: Transport,
        port_type: PortType,
        remote: Endpoint | None,
    ) -> list[Mapping]:
        """Returns the mapping, and the one for RTCP that has come with it."""
        named = {"type": port_type, "remote": remote and str(remote)}
        return self._request("add", internal, transport, named)

    def _change(self, action: str, mapping: Mapping, **values: object) -> Mapping:
        """Returns what the mapping is by now."""
        return self._request(action, mapping.internal, mapping.transport, values)[0]

    def _request(
        self, action: str, internal: Endpoint, transport: Transport, values: Row
    ) -> list[Mapping]:
        rows = self._ask(
            {
                "action": action,
                "internal": str(internal),
                "transport": transport,
                "lifetime": self._lifetime,
                "name": self._name,
                **values,
            }
        )
        return [_mapping(row, transport) for row in rows]


def _mapping(row: Row, transport: str) -> Mapping:
    internal, external = parse_endpoint(str(row["internal"])), parse_endpoint(str(row["external"]))
    return Mapping(internal, external, Transport(transport))
