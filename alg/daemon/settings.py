"""The configuration, as each part wants it: the kernel side, the table, the engine."""

from __future__ import annotations

from ipaddress import IPv4Network

from alg.config import Config
from alg.dialogs.dialog import CallTimeouts
from alg.gateway import GatewaySettings
from nat_table.behavior import Behavior, Filtering
from rules.capture import has_native_queue
from rules.interfaces import (
    InterfaceMissing,
    NoAddress,
    external_addresses,
    interface_exists,
    local_udp_ports,
    networks_of,
    own_addresses,
)
from rules.ruleset import render_ruleset
from rules.settings import Settings


class StartError(Exception):
    """The daemon cannot run; the text is one sentence for the user."""


def kernel_settings(config: Config) -> Settings:
    """Returns what the kernel side must know; raises StartError where an interface is missing."""
    for name in config.internal:
        if not interface_exists(name):
            raise StartError(f"there is no interface {name}")
    try:
        addresses = external_addresses(config.external)
    except (InterfaceMissing, NoAddress) as error:
        raise StartError(str(error)) from error
    for address in config.external_addresses:
        if address not in addresses:
            raise StartError(f"external_addresses: {config.external} has no address {address}")
    return Settings(
        internal_interfaces=config.internal,
        external_interface=config.external,
        external_addresses=config.external_addresses or addresses[:1],
        sip_ports=config.sip_ports,
        pool=config.pool,
        queue_number=config.queue_number,
        uplink=config.uplink,
        is_fail_open=config.on_failure == "pass",
        signalling_filter=Filtering(config.signalling_filter),
        media_filter=Filtering(config.media_filter),
        servers=config.servers,
        routed=config.routed,
        flood_rate=config.max_packets_per_source,
    )


def ruleset_text(config: Config) -> str:
    """Returns the nft text that `run` would install; raises StartError."""
    return render_ruleset(kernel_settings(config), has_native_queue())


def table_behavior(config: Config, settings: Settings) -> Behavior:
    """Returns how the table is to behave; ports of the router's own sockets are denied."""
    return Behavior(
        pool=config.pool,
        fence=settings.fence,
        denied_ports=frozenset(config.deny_ports) | local_udp_ports(),
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
        hands_off=tuple(IPv4Network(each, strict=False) for each in config.hands_off),
        denied_ports=frozenset(config.deny_ports),
        has_direct_media=config.direct_media,
        flow_timeout=config.flow_timeout,
        call_timeouts=CallTimeouts(ringing=config.ringing_timeout, idle=config.idle_call_timeout),
        max_message=config.max_message_size,
        max_media_streams=config.max_media_streams,
        max_calls_per_host=config.max_calls_per_host,
        max_unanswered_per_host=config.max_unanswered_per_host,
        max_registrations_per_host=config.max_registrations_per_host,
    )
