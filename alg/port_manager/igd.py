"""UPnP's InternetGatewayDevice: what the actions of WANIPConnection do with leases.

UPnP knows an entry by its remote host, external port and protocol; here it is one lease of the
mapping, named by its description. Section numbers are those of UPnP-gw-WANIPConnection-v2-Service.
"""

from __future__ import annotations

import contextlib
import ipaddress
import math
from collections.abc import Iterator
from typing import NamedTuple

from alg.outbound import LOWEST_PORT
from alg.port_manager.leases import Ask, Lease, Leases
from alg.port_manager.refusal import (
    CannotProvideExternal,
    InvalidEndpoint,
    NoMapping,
    NoResources,
    NotAuthorized,
    Refused,
    UnsupportedTransport,
)
from nat_table.binding import Permit
from nat_table.endpoint import Endpoint, Transport
from nat_table.lease import Source

INVALID_ACTION, INVALID_ARGS, ACTION_FAILED, NOT_AUTHORIZED = 401, 402, 501, 606
INDEX_INVALID, NO_SUCH_ENTRY, EXTERNAL_PORT_WILDCARD, CONFLICT = 713, 714, 716, 718
NO_PORT_MAPS, NOT_FOUND, INTERNAL_PORT_WILDCARD, INCONSISTENT = 728, 730, 732, 733

_CODES: dict[type[Refused], int] = {
    NoResources: NO_PORT_MAPS,
    NotAuthorized: NOT_AUTHORIZED,
    UnsupportedTransport: INVALID_ARGS,
    InvalidEndpoint: INVALID_ARGS,
    CannotProvideExternal: CONFLICT,
    NoMapping: NO_SUCH_ENTRY,
}

MAX_DESCRIPTION = 64


class ActionRefused(Exception):
    """An action is not done, and nothing has changed; `code` is UPnP's, the text one sentence."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Entry(NamedTuple):
    """A port mapping as UPnP has it; the remote host is "" for all, `lifetime` in seconds."""

    remote_host: str
    external_port: int
    transport: Transport
    internal: Endpoint
    description: str
    lifetime: int


class PortMappings:
    """The entries of a gateway, each action asked for by a client's address.

    In secure mode a client sees, makes and deletes entries for itself alone.
    """

    def __init__(self, leases: Leases, *, is_secure: bool) -> None:
        self._leases = leases
        self._is_secure = is_secure

    def external_address(self, client: str) -> str:
        """Returns the external address of a client's mappings, "" where there is none."""
        return self._leases.external_address(client) or ""

    def add(self, client: str, entry: Entry, now: float, *, is_exact: bool) -> int:
        """Makes or renews an entry; returns its external port, which `is_exact` has be the entry's.

        A lifetime of 0 is the longest there is (§2.3.22). Raises ActionRefused.
        """
        self._check(client, entry, is_exact)
        permit = Permit(_canonical_remote(entry.remote_host))
        ask = Ask(
            source=Source.UPNP,
            transport=entry.transport,
            internal=entry.internal,
            lifetime=entry.lifetime or math.inf,
            name=_lease_name(permit, entry.description[:MAX_DESCRIPTION]),
            wanted=entry.external_port or None,
            is_exact=is_exact,
            permits=(permit,),
        )
        with _in_words_of_upnp():
            lease = self._leases.request(ask, now)
            for other in self._leases.at(Source.UPNP, entry.transport, lease.binding.external):
                if other.permits == lease.permits and other.name != lease.name:
                    self._leases.end(other, now)
        return lease.binding.external.port

    def delete(
        self, client: str, remote_host: str, port: int, transport: Transport, now: float
    ) -> None:
        """Deletes an entry; raises ActionRefused."""
        lease = self._find(client, remote_host, port, transport)
        with _in_words_of_upnp():
            self._leases.end(lease, now)

    def delete_range(self, client: str, ports: range, transport: Transport, now: float) -> None:
        """Deletes the client's entries of a range of external ports; raises ActionRefused."""
        if not ports:
            raise ActionRefused(INCONSISTENT, "the last port is below the first")
        found = [
            lease
            for lease in self._visible(client)
            if lease.binding.transport is transport and lease.binding.external.port in ports
        ]
        if not found:
            raise ActionRefused(NOT_FOUND, "there is no entry in this range")
        with _in_words_of_upnp():
            for lease in found:
                self._leases.end(lease, now)

    def entry(
        self, client: str, remote_host: str, port: int, transport: Transport, now: float
    ) -> Entry:
        """Returns one entry; raises ActionRefused."""
        return _entry_of(self._find(client, remote_host, port, transport), now)

    def entry_at(self, client: str, index: int, now: float) -> Entry:
        """Returns the entry of an index, counted from the oldest at 0; raises ActionRefused."""
        leases = list(self._visible(client))
        if not 0 <= index < len(leases):
            raise ActionRefused(INDEX_INVALID, f"there are {len(leases)} entries")
        return _entry_of(leases[index], now)

    def _check(self, client: str, entry: Entry, is_exact: bool) -> None:
        if not entry.internal.port:
            raise ActionRefused(INTERNAL_PORT_WILDCARD, "the internal port must be named")
        if is_exact and not entry.external_port:
            raise ActionRefused(EXTERNAL_PORT_WILDCARD, "the external port must be named")
        try:
            ipaddress.IPv4Address(entry.internal.address)
        except ValueError as error:
            raise ActionRefused(INVALID_ARGS, "the internal client is no IPv4 address") from error
        self._check_client(client, entry.internal.address)
        if is_exact and entry.external_port < LOWEST_PORT:
            raise ActionRefused(NOT_AUTHORIZED, f"port {entry.external_port} is never opened")

    def _check_client(self, client: str, host: str) -> None:
        if self._is_secure and host != client:
            raise ActionRefused(NOT_AUTHORIZED, f"{client} may not have mappings of {host}")

    def _find(self, client: str, remote_host: str, port: int, transport: Transport) -> Lease:
        external = Endpoint(self.external_address(client), port)
        permits = (Permit(_canonical_remote(remote_host)),)
        for lease in self._leases.at(Source.UPNP, transport, external):
            if lease.permits == permits:
                self._check_client(client, lease.binding.internal.address)
                return lease
        raise ActionRefused(NO_SUCH_ENTRY, f"there is no entry for port {port}")

    def _visible(self, client: str) -> Iterator[Lease]:
        for lease in self._leases.all(Source.UPNP):
            if not self._is_secure or lease.binding.internal.address == client:
                yield lease


@contextlib.contextmanager
def _in_words_of_upnp() -> Iterator[None]:
    """Has what leases refuse be refused by UPnP's code for it."""
    try:
        yield
    except Refused as error:
        raise ActionRefused(_CODES.get(type(error), ACTION_FAILED), str(error)) from error


def _entry_of(lease: Lease, now: float) -> Entry:
    binding, (permit,) = lease.binding, lease.permits
    return Entry(
        permit.network,
        binding.external.port,
        binding.transport,
        binding.internal,
        lease.name.removeprefix(_lease_name(permit, "")),
        max(1, round(lease.expires_at - now)),
    )


def _lease_name(permit: Permit, description: str) -> str:
    """Tells entries apart that have one description, and one mapping for several remote hosts."""
    return f"{permit.network} {description}" if permit.network else description


def _canonical_remote(remote_host: str) -> str:
    try:
        return remote_host and str(ipaddress.IPv4Address(remote_host))
    except ValueError as error:
        raise ActionRefused(INVALID_ARGS, "the remote host is no IPv4 address") from error
