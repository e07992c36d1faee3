"""IPv6 on a real kernel: sites that are routed, or behind NAT66 or NPTv6."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import IPv6Network

import netfilterqueue

from nat_table.behavior import Mode6
from nat_table.binding import Binding, Kind
from nat_table.changes import Opened
from nat_table.endpoint import Endpoint, Transport
from nat_table.prefix import PrefixTranslation
from rules.settings import Settings
from tests.lab.network import (
    EXTERNAL6,
    EXTERNAL_INTERFACE,
    LAN_ROUTED6,
    LAN_UNIQUE_LOCAL6,
    Network,
)
from tests.netns.kernel import PINHOLE, POOL_PORT, SETTINGS, Peer

ROUTED_1, ROUTED_2 = f"{LAN_ROUTED6}20", f"{LAN_ROUTED6}21"
LOCAL_1, LOCAL_2 = f"{LAN_UNIQUE_LOCAL6}20", f"{LAN_UNIQUE_LOCAL6}21"
PREFIXES = (IPv6Network(f"{LAN_UNIQUE_LOCAL6}/64"), IPv6Network("2001:db8:9:1::/64"))

ROUTED = replace(SETTINGS, mode6=Mode6.PINHOLE)
NAT66 = replace(SETTINGS, mode6=Mode6.NAT66, external_addresses6=(EXTERNAL6,))
NPTV6 = replace(SETTINGS, mode6=Mode6.NPTV6, prefixes6=PREFIXES)

FIREWALL = f"""
table ip6 admin {{
    chain forward {{
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
        iifname != "{EXTERNAL_INTERFACE}" accept
        meta mark & {ROUTED.open_mark:#x} != 0 accept
    }}
}}
"""
"""A stateful firewall as an administrator would have it: out is free, in is by the mark."""

MASQUERADE6 = f"""
table ip6 home_router6 {{
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        oifname "{EXTERNAL_INTERFACE}" masquerade
    }}
}}
"""

NPT = [
    f"POSTROUTING -o {EXTERNAL_INTERFACE} -s {PREFIXES[0]} -j SNPT"
    f" --src-pfx {PREFIXES[0]} --dst-pfx {PREFIXES[1]}",
    f"PREROUTING -i {EXTERNAL_INTERFACE} -d {PREFIXES[1]} -j DNPT"
    f" --src-pfx {PREFIXES[1]} --dst-pfx {PREFIXES[0]}",
]
"""The rules of an administrator who translates prefixes himself."""

Bind = Callable[..., Peer]

IPV4_AND_UDP, IPV6_AND_UDP = 28, 48


@contextmanager
def network_in(mode: str, rules: str) -> Iterator[Network]:
    """Yields a network whose phones have addresses for a mode, and whose administrator has rules.

    Whoever is outside finds the external prefix of NPTv6 behind the router.
    """
    with Network(lan6=LAN_ROUTED6 if mode == "pinhole" else LAN_UNIQUE_LOCAL6) as network:
        network.wan.run("ip", "-6", "route", "add", str(PREFIXES[1]), "via", EXTERNAL6)
        network.router.run("nft", "-f", "-", text=rules)
        yield network


@contextmanager
def capturing(network: Network, settings: Settings) -> Iterator[list[bytes]]:
    """Yields a list; in the end it has the payloads of what went to the queue, and let pass."""
    captured: list[bytes] = []

    def take(packet: netfilterqueue.Packet) -> None:
        raw = packet.get_payload()
        captured.append(raw[IPV6_AND_UDP if raw[0] >> 4 == 6 else IPV4_AND_UDP :])
        packet.accept()

    queue = network.router.call(netfilterqueue.NetfilterQueue)
    queue.bind(settings.queue_number, take)
    try:
        yield captured
        time.sleep(0.1)
        queue.run(block=False)
    finally:
        queue.unbind()


def outside_of(mode: str, address: str) -> str:
    """Returns the address that stands for a phone's."""
    if mode == "nptv6":
        return translated(address).binding.external.address
    return EXTERNAL6 if mode == "nat66" else address


def keys_of(mode: str) -> dict[str, object]:
    """Returns the keys that a gateway needs to be in a mode of IPv6, beside what it finds out."""
    if mode != "nptv6":
        return {}
    internal, external = map(str, PREFIXES)
    return {"internal_prefix6": internal, "external_prefix6": external}


def routed(internal: str, kind: Kind = Kind.RTP, *, port: int = 4000) -> Opened:
    """Returns the change that opens a pinhole."""
    return opened6(internal, internal, kind, port=port, external_port=port)


def mapped(internal: str, external_port: int = POOL_PORT, kind: Kind = Kind.RTP) -> Opened:
    """Returns the change that opens a mapping on the router's external address."""
    return opened6(internal, EXTERNAL6, kind, external_port=external_port)


def translated(internal: str, kind: Kind = Kind.RTP) -> Opened:
    """Returns the change that opens a mapping on the address in the external prefix."""
    external = PrefixTranslation(*PREFIXES).to_external(internal)
    assert external is not None
    return opened6(internal, external, kind)


def opened6(
    internal: str,
    external: str,
    kind: Kind = Kind.RTP,
    *,
    port: int = 4000,
    external_port: int = 4000,
) -> Opened:
    ends = Endpoint(internal, port), Endpoint(external, external_port)
    return Opened(Binding(Transport.UDP, *ends, kind, 0.0), PINHOLE)
