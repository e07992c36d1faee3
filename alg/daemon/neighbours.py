"""What else on this router speaks SIP, or takes it elsewhere, and which keys respect it."""

from __future__ import annotations

from ipaddress import ip_network

from alg.config import Config
from alg.config_text import Setting
from rules.doctor.host import free_range
from rules.interfaces import networks_of
from rules.listeners import Listener, listeners
from rules.tunnels import tunnelled_networks

_MEDIA_PORTS = {"asterisk": (10000, 20000), "freeswitch": (16384, 32768)}
"""Those of SIP servers, as they are delivered: nobody listens there until there is a call."""


def sip_servers(config: Config) -> list[Listener]:
    """Returns the sockets of this router that wait for SIP of others, one of each program."""
    found = [each for each in listeners() if each.port in config.sip_ports]
    return list({each.program: each for each in found if not each.is_loopback}.values())


def remark_on_server(server: Listener) -> str:
    """Returns what an administrator should know of it."""
    return (
        f"{server.program or 'a program'} has {server.protocol} port {server.port} of this router: "
        "what it says itself is left alone, only SIP that passes through is rewritten"
    )


def settings_beside(config: Config) -> dict[str, Setting]:
    """Returns the keys that are not as the neighbours need them."""
    settings = {}
    for server in sip_servers(config):
        low, high = _MEDIA_PORTS.get(server.program, (0, 0))
        if config.pool[0] <= high and low <= config.pool[1]:
            pool = free_range(config.pool, range(low, high + 1))
            settings["ports"] = Setting(pool, f"{server.program} has its media at {low}-{high}")
    if tunnelled := _tunnelled(config):
        why = f"{', '.join(tunnelled)} is reached by IPsec, without NAT"
        settings["routed"] = Setting([*config.routed, *tunnelled], why)
    return settings


def _tunnelled(config: Config) -> list[str]:
    """Returns the networks beyond IPsec that are not among those reached without NAT."""
    routed = [ip_network(each, strict=False) for each in config.routed]
    found = tunnelled_networks(networks_of(config.internal))
    return [str(each) for each in found if not any(map(each.overlaps, routed))]
