"""The request `map`: what `PortManager` and the command line ask, answered from the leases.

    add       a mapping, or more time for one that stands; RTP over UDP on an even port has RTCP's
              beside it, on the port behind
    update    another remote for it, or more time
    release   its end; that of other ways' too, for the administrator
    list      all mappings on request, whoever has asked for them

A request and its rows are plain values: within a process they are handed over, else they go through
the control socket. `alg/io/README.md` has their keys.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, TypedDict

import msgspec
from msgspec import UNSET, Meta, UnsetType

from alg.port_manager.leases import Ask, Lease, Leases
from alg.port_manager.mapping import PortType, Transport
from alg.port_manager.refusal import (
    InvalidEndpoint,
    NotAuthorized,
    Refused,
    UnsupportedTransport,
)
from nat_table import endpoint
from nat_table.binding import ANYONE, Kind, Permit
from nat_table.endpoint import TCP, UDP, Endpoint, is_one_family, parse_endpoint, render_endpoint
from nat_table.lease import Source
from nat_table.snapshot import seconds_left

DEFAULT_LIFETIME = 3600.0
MAX_NAME = 64
MAX_REMOTES = 8
NOWHERE = Endpoint("0.0.0.0", 0)
_RELEASED = [each.value for each in Source if each not in (Source.SIP, Source.STATIC)]

_KINDS = {
    (Transport.UDP, PortType.SIP): Kind.SIP,
    (Transport.UDP, PortType.RTP): Kind.RTP,
    (Transport.UDP, PortType.RTCP): Kind.RTCP,
    (Transport.TCP, PortType.SIP): Kind.SIP,
    (Transport.TCP, PortType.RTP): Kind.MEDIA,
    (Transport.TCP, PortType.RTCP): Kind.MEDIA,
    (Transport.TLS, PortType.SIP): Kind.ANY,
}


class LeaseRow(TypedDict):
    """A mapping on request as it stands; these names never change."""

    transport: str
    internal: str
    external: str
    kind: str
    remote: str | None
    source: str
    name: str
    expires_in: float | None


class MapRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a request may say; keys that are not here are ignored."""

    action: str
    transport: str = Transport.UDP.value
    type: str = ""
    internal: str = ""
    remote: str | UnsetType | None = UNSET
    external: Annotated[int, Meta(ge=1, le=65535)] | None = None
    lifetime: float | None = None
    name: str = ""
    source: str = Source.API.value


class MapCommand:
    """Answers requests; `clock` tells the time."""

    def __init__(self, leases: Leases, clock: Callable[[], float]) -> None:
        self._leases = leases
        self._clock = clock
        self._actions = {
            "add": self._add,
            "update": self._update,
            "release": self._release,
            "list": self._list,
        }

    def answer(self, request: Mapping[str, object]) -> list[LeaseRow]:
        """Does what is asked, and returns the mappings that it is about; raises Refused."""
        try:
            asked = msgspec.convert(request, MapRequest)
        except msgspec.ValidationError as error:
            raise Refused(f"the request is malformed: {error}") from None
        action = self._actions.get(asked.action)
        if action is None:
            raise Refused(f"the action is none of {', '.join(self._actions)}")
        if asked.lifetime is not None and not asked.lifetime >= 1:
            raise Refused("a lifetime is one second at least")
        if len(asked.name) > MAX_NAME or not asked.name.isprintable():
            raise Refused(f"a name is {MAX_NAME} printable characters at most")
        now = self._clock()
        return [_row(lease, now) for lease in action(asked, now)]

    def _add(self, asked: MapRequest, now: float) -> list[Lease]:
        kind, internal = _kind(asked), _endpoint("internal", asked.internal)
        remotes, permits = _admitted(None if asked.remote is UNSET else asked.remote, internal)
        standing = self._leases.find(Source.API, _carrier(asked), internal, asked.name)
        if standing is not None:
            remotes = tuple(dict.fromkeys((*remotes, *standing.remotes)))[:MAX_REMOTES]
        ask = Ask(
            Source.API,
            _carrier(asked),
            internal,
            DEFAULT_LIFETIME if asked.lifetime is None else asked.lifetime,
            kind,
            asked.name,
            wanted=asked.external,
            is_exact=asked.external is not None,
            count=2 if kind is Kind.RTP and internal.port % 2 == 0 else 1,
            remotes=remotes,
            permits=permits,
        )
        return self._request(ask, now)

    def _update(self, asked: MapRequest, now: float) -> list[Lease]:
        carrier, internal = _carrier(asked), _endpoint("internal", asked.internal)
        lease = self._leases.require(Source.API, carrier, internal, asked.name)
        binding, source, name, expires_at, permits, remotes = lease
        if asked.remote is not UNSET:
            remotes, permits = _admitted(asked.remote, binding.internal)
        ask = Ask(
            source,
            binding.transport,
            binding.internal,
            expires_at - now if asked.lifetime is None else asked.lifetime,
            binding.kind,
            name,
            remotes=remotes,
            permits=permits,
        )
        return self._request(ask, now)

    def _release(self, asked: MapRequest, now: float) -> list[Lease]:
        """Ends the lease of this name; what hosts have asked for need not be named."""
        source, internal = _source(asked), _endpoint("internal", asked.internal)
        name = asked.name if source is Source.API else asked.name or None
        lease = self._leases.release(source, _carrier(asked), internal, now, name)
        return [lease._replace(expires_at=now)]

    def _list(self, asked: MapRequest, now: float) -> list[Lease]:
        return self._leases.all()

    def _request(self, ask: Ask, now: float) -> list[Lease]:
        self._leases.request(ask, now)
        given = (self._leases.find(ask.source, ask.transport, each, ask.name) for each in ask.row)
        return [lease for lease in given if lease is not None]


def _source(asked: MapRequest) -> Source:
    """Returns by which way a mapping has come that is to end."""
    if asked.source == Source.STATIC.value:
        raise NotAuthorized("a static mapping ends with its table in the configuration")
    if asked.source not in _RELEASED:
        raise Refused(f"the source is none of {', '.join(_RELEASED)}")
    return Source(asked.source)


def _kind(asked: MapRequest) -> Kind:
    try:
        port_type = PortType(asked.type)
    except ValueError:
        raise Refused(f"the type is none of {', '.join(PortType)}") from None
    kind = _KINDS.get((_transport(asked), port_type))
    if kind is None:
        raise UnsupportedTransport(f"TLS is for SIP alone, not for {port_type.upper()}")
    return kind


def _transport(asked: MapRequest) -> Transport:
    try:
        return Transport(asked.transport)
    except ValueError:
        raise UnsupportedTransport(f"the transport is none of {', '.join(Transport)}") from None


def _carrier(asked: MapRequest) -> endpoint.Transport:
    """Returns what the packets of a transport are to a NAT."""
    return UDP if _transport(asked) is Transport.UDP else TCP


def _admitted(
    text: str | None, internal: Endpoint
) -> tuple[tuple[Endpoint, ...], tuple[Permit, ...]]:
    """Returns remotes and permits: a known remote as filtering has it, else whoever comes."""
    if text is None:
        return (), (ANYONE,)
    remote = _endpoint("remote", text)
    if not is_one_family(remote, internal):
        raise InvalidEndpoint(f"{remote} and {internal} are not of one family")
    return (remote,), ()


def _endpoint(key: str, text: str) -> Endpoint:
    try:
        parsed = parse_endpoint(text)
    except ValueError:
        parsed = NOWHERE
    if not parsed.port or "%" in parsed.address:
        raise InvalidEndpoint(f"{key} is no endpoint such as 10.0.0.20:5060")
    return parsed


def _row(lease: Lease, now: float) -> LeaseRow:
    binding = lease.binding
    return {
        "transport": binding.transport.label,
        "internal": render_endpoint(binding.internal),
        "external": render_endpoint(binding.external),
        "kind": binding.kind.value,
        "remote": next(map(render_endpoint, lease.remotes), None),
        "source": lease.source.value,
        "name": lease.name,
        "expires_in": seconds_left(lease.expires_at, now),
    }
