"""The configuration, as each part wants it: the kernel side, the table, the engine."""

from __future__ import annotations

import logging
from dataclasses import replace
from ipaddress import IPv6Network, ip_network

from alg.config import Config
from alg.dialogs.dialog import CallTimeouts
from alg.gateway_settings import GatewaySettings
from nat_table.behavior import Behavior, Filtering, Mode6
from nat_table.prefix import ROUTED, PrefixTranslation
from rules.capture import has_native_queue, has_transparent_proxy
from rules.interfaces import (
    InterfaceMissing,
    NoAddress,
    external_addresses,
    external_addresses6,
    index_of,
    networks_of,
    own_addresses,
)
from rules.listeners import local_ports
from rules.mode6 import Prefixes, detect_mode6, translated_prefixes
from rules.ruleset import render_ruleset
from rules.settings import Settings

log = logging.getLogger("sipnat")

LOOPBACK, LOOPBACK6 = "127.0.0.1", "::1"
"""Where the relay listens."""

PCP_PORTS = (("udp", 5351),)
UPNP_PORTS = (("udp", 1900), ("tcp", 2869))
"""Where requests for mappings come: protocols and ports."""


class StartError(Exception):
    """The daemon cannot run; the text is one sentence for the user."""


def kernel_settings(config: Config) -> Settings:
    """Returns what the kernel side must know; raises StartError where an interface is missing."""
    try:
        for name in config.internal:
            index_of(name)
        addresses = external_addresses(config.external)
    except (InterfaceMissing, NoAddress) as error:
        raise StartError(str(error)) from error
    addresses6 = external_addresses6(config.external)
    for address in config.external_addresses:
        if address not in addresses + addresses6:
            raise StartError(f"external_addresses: {config.external} has no address {address}")
    is_asked_for = config.mode6 in ("auto", "nptv6")
    found = translated_prefixes(config.external) if is_asked_for else None
    prefixes = _configured_prefixes(config) or found
    mode6 = _mode6(config, addresses6, prefixes)
    has_loopback6 = LOOPBACK6 in own_addresses()
    if config.tcp and mode6 is not Mode6.OFF and not has_loopback6:
        log.warning(
            "SIP over TCP and IPv6 passes as it is, because lo has no IPv6: "
            "sysctl net.ipv6.conf.lo.disable_ipv6=0"
        )
    settings = Settings(
        internal_interfaces=config.internal,
        external_interface=config.external,
        external_addresses=config.addresses or _own_one(config, addresses),
        mode6=mode6,
        external_addresses6=(config.addresses6 or addresses6[:1]) if mode6 is Mode6.NAT66 else (),
        prefixes6=prefixes if mode6 is Mode6.NPTV6 else None,
        has_other_npt=mode6 is Mode6.NPTV6 and found is not None,
        has_loopback6=has_loopback6,
        pool=config.pool,
        queue_number=config.queue_number,
        uplink=config.uplink,
        is_fail_open=config.on_failure == "pass",
        relay_port=_relay_port(config),
    )
    return changed_settings(settings, config)


def changed_settings(settings: Settings, config: Config) -> Settings:
    """Returns what the kernel side must know, with all of it that may change while it runs."""
    return replace(
        settings,
        sip_ports=config.sip_ports,
        tls_ports=config.tls_ports,
        request_ports=(PCP_PORTS if config.pcp else ()) + (UPNP_PORTS if config.upnp else ()),
        signalling_filter=Filtering(config.signalling_filter),
        media_filter=Filtering(config.media_filter),
        servers=config.servers,
        routed=config.routed,
        flood_rate=config.max_packets_per_source,
    )


def _own_one(config: Config, addresses: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the address that is configured if the interface has it, else its first one."""
    return tuple(each for each in addresses if each == config.external_address) or addresses[:1]


def _relay_port(config: Config) -> int:
    """Returns where the relay is to listen, 0 where nothing would come to it."""
    if not config.tcp or has_transparent_proxy():
        return config.relay_number
    log.warning(
        "SIP over TCP passes as it is, because this kernel lacks what hands it to the relay: "
        "nft_tproxy, nft_socket or nft_fib"
    )
    return 0


def _configured_prefixes(config: Config) -> Prefixes | None:
    if not config.internal_prefix6:
        return None
    return IPv6Network(config.internal_prefix6), IPv6Network(config.external_prefix6)


def _mode6(config: Config, addresses: tuple[str, ...], prefixes: Prefixes | None) -> Mode6:
    """Returns what is configured or found; raises StartError where it cannot be done."""
    if config.mode6 == "auto":
        return detect_mode6(config.internal, config.external, prefixes)
    if config.mode6 == "nat66" and not addresses:
        raise StartError(f'mode6 is "nat66", but {config.external} has no global IPv6 address')
    if config.mode6 == "nptv6" and not prefixes:
        raise StartError(
            'mode6 is "nptv6", but the prefixes are not known: set internal_prefix6 and '
            "external_prefix6 (ip6tables has no SNPT rule from which to read them)"
        )
    return Mode6(config.mode6)


def table_translation(settings: Settings) -> PrefixTranslation | None:
    """Returns how IPv6 addresses are translated without ports, None where they are not."""
    if settings.mode6 is Mode6.PINHOLE:
        return ROUTED
    return PrefixTranslation(*settings.prefixes6) if settings.prefixes6 else None


def ruleset_text(config: Config) -> str:
    """Returns the nft text that `run` would install; raises StartError."""
    return render_ruleset(kernel_settings(config), has_native_queue())


def table_behavior(config: Config, settings: Settings) -> Behavior:
    """Returns how the table is to behave; ports of the router's own sockets are denied."""
    return Behavior(
        pool=config.pool,
        fence=settings.fence,
        denied_ports=frozenset(config.deny_ports) | local_ports(),
        quarantine_timeout=config.quarantine_timeout,
        max_mappings=config.max_mappings,
        max_mappings_per_host=config.max_mappings_per_host,
        max_new_per_second=config.max_new_mappings_per_second,
        flow_timeout=config.flow_timeout,
    )


def gateway_settings(config: Config, addresses: tuple[str, ...]) -> GatewaySettings:
    """Returns what the engine must know, with the external addresses of the table."""
    return GatewaySettings(
        external_addresses=addresses,
        own_addresses=own_addresses(),
        internal_networks=networks_of(config.internal),
        media_hosts=frozenset(config.media_hosts),
        hands_off=tuple(ip_network(each, strict=False) for each in config.hands_off),
        denied_ports=frozenset(config.deny_ports),
        has_direct_media=config.direct_media,
        has_tcp_media=config.tcp_media,
        flow_timeout=config.flow_timeout,
        call_timeouts=CallTimeouts(ringing=config.ringing_timeout, idle=config.idle_call_timeout),
        max_message=config.max_message_size,
        max_media_streams=config.max_media_streams,
        max_calls_per_host=config.max_calls_per_host,
        max_unanswered_per_host=config.max_unanswered_per_host,
        max_registrations_per_host=config.max_registrations_per_host,
    )
