"""What the engine must know of the configuration."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from alg.dialogs.dialog import CallTimeouts

MAX_MESSAGE = 65535
DEFAULT_TIMEOUTS = CallTimeouts()


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """What the engine must know of the configuration; timeouts in seconds.

    Addresses and networks are of both families, addresses in the spelling that endpoints have.
    Media between two hosts of one of the `internal_networks` stays inside, if `has_direct_media`;
    `media_hosts` are addresses that any internal host may name in its descriptions; `hands_off` are
    servers that traverse the NAT by themselves, whose traffic passes as it is. `own_addresses` are
    the router's, which are never mapped; `denied_ports` are internal ports that never are. Media
    over TCP is mapped where a phone is to be connected to, if `has_tcp_media`. A host may have
    `max_registrations_per_host` registrations, and as many subscriptions.
    """

    external_addresses: tuple[str, ...]
    internal_networks: tuple[IPv4Network | IPv6Network, ...] = ()
    media_hosts: frozenset[str] = frozenset()
    hands_off: tuple[IPv4Network | IPv6Network, ...] = ()
    own_addresses: frozenset[str] = frozenset()
    denied_ports: frozenset[int] = frozenset()
    has_direct_media: bool = True
    has_tcp_media: bool = False
    flow_timeout: float = 300.0
    call_timeouts: CallTimeouts = DEFAULT_TIMEOUTS
    max_message: int = MAX_MESSAGE
    max_calls_per_host: int = 1024
    max_unanswered_per_host: int = 256
    max_registrations_per_host: int = 1024
    max_media_streams: int = 64
