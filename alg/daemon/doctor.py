"""What on this router would break calls: all checks, as the configuration wants them.

They only look: the one packet that is sent is a question to the configured SIP echo server, and
those to the NAT above. What needs root is left out without it, and that is said.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator, Mapping
from typing import TypedDict

import msgspec

from alg.config import Config
from alg.daemon.claim import is_claimed
from alg.daemon.settings import PCP_PORTS, UPNP_PORTS, StartError, kernel_settings
from alg.io.control import ControlError, ask
from alg.io.echo import ask_echo
from alg.observe.echo import Echo, differences
from alg.upstream import upstream as upstreams
from nat_table.endpoint import Endpoint, is_ipv6, is_private
from rules.capture import has_native_queue
from rules.doctor import host, kernel, way
from rules.doctor.finding import Finding, Level, error, ok, warning
from rules.doctor.reading import read_firewall
from rules.interfaces import NoAddress, default_gateway, external_addresses, networks_of
from rules.privilege import has_net_admin
from rules.programs import ProgramFailed
from rules.settings import Settings

_SIP_PORT = 5060
_MOST_LINES, _LONGEST_LINE = 3, 100


class FindingRow(TypedDict):
    """What a check has found, as the command line shows it; these names never change."""

    check: str
    level: str
    text: str
    commands: tuple[str, ...]
    configuration: tuple[str, ...]


def examine(config: Config) -> Iterator[FindingRow]:
    """Yields what every check has found, as soon as it has."""
    for finding in _findings(config, _known_upstream(config.control_path)):
        yield {
            "check": finding.check,
            "level": finding.level.value,
            "text": finding.text,
            "commands": finding.commands,
            "configuration": finding.configuration,
        }


def _findings(config: Config, upstream: Mapping[str, object] | None) -> Iterator[Finding]:
    is_root = has_net_admin()
    # Whether the kernel has what the relay needs only root may ask.
    asked = config if is_root else msgspec.structs.replace(config, tcp=False)
    try:
        settings = kernel_settings(asked)
    except StartError as failure:
        yield error("interfaces", str(failure), "ip -brief address")
        return
    yield from host.check_forwarding(settings.mode6)
    yield from kernel.check_assignment()
    if is_root:
        yield from kernel.check_features(settings, wants_relay=config.tcp)
        yield from _check_firewall(config, settings)
    else:
        yield Finding(
            "firewall",
            Level.SKIPPED,
            "the kernel's features and the firewall can be looked at by root alone",
            ("sudo sipnat doctor",),
        )
    yield from host.check_conntrack()
    yield from host.check_route_back(settings, _remotes(config))
    yield from host.check_bridges(settings)
    is_running = is_claimed(settings.table)
    yield from host.check_ports(settings, _wanted_ports(config), is_running=is_running)
    if is_root and not is_running:
        yield host.check_queue(settings)
    yield host.check_clock()
    seen = None
    if config.sip_echo:
        try:
            server = _resolve(config.sip_echo)
            sent, echo = ask_echo(server, _wire(config), config.external)
        except OSError as failure:
            text = f"the echo server {config.sip_echo} cannot be asked: {failure.strerror}"
            yield warning("second-alg", text)
        else:
            yield _check_echo(config, server, sent, echo)
            seen = echo.source.address if echo else None
    yield _check_upstream(config, upstream, seen)


def _check_firewall(config: Config, settings: Settings) -> Iterator[Finding]:
    try:
        firewall = read_firewall()
    except ProgramFailed as failure:
        yield Finding("firewall", Level.SKIPPED, f"the firewall cannot be read: {failure}")
        return
    networks = {name: networks_of((name,)) for name in settings.internal_interfaces}
    probes = way.media_and_signalling(settings, networks)
    signalling = [each for each in probes if each.is_signalling]
    yield from way.check_helper(firewall, settings.sip_ports)
    yield from way.check_tracking(firewall, settings, probes)
    yield from way.check_drops(firewall, settings, probes)
    if not has_native_queue():
        yield from way.check_queue_rule(firewall, settings, signalling)
    yield from way.check_offload(firewall, settings, signalling)
    requests = way.requests(settings, signalling, _routers(settings))
    yield from way.check_requests(firewall, settings, requests)


def _routers(settings: Settings) -> dict[str, str]:
    """Returns an IPv4 address of the router on each internal interface that has one."""
    found = {}
    for name in settings.internal_interfaces:
        with contextlib.suppress(NoAddress):
            found[name] = external_addresses(name)[0]
    return found


def _check_upstream(
    config: Config, upstream: Mapping[str, object] | None, seen: str | None
) -> Finding:
    """Looks for a NAT above whose address messages do not name (A94).

    `seen` is the address that the echo server has seen, None where none has told.
    """
    if upstream is not None:
        public, wire = str(upstream.get("public")), str(upstream.get("wire"))
        complaint = ""
        if upstream.get("state") == "hands off":
            complaint = "the NAT above changes ports or is silent, so SIP passes as it is"
        elif upstream.get("known_by") == "interface" and is_private(public):
            complaint = f"the external address {public} is no address of the Internet"
    else:
        found = asyncio.run(_look(config))
        public, wire, complaint = found.public, found.wire, found.complaint
    if not complaint and seen not in (None, public):
        complaint = f"messages name {public}, but others see {seen}"
    if not complaint:
        named = f"messages name {public}"
        return ok("double-nat", named if public == wire else f"{named}, this router is {wire}")
    cure = f'external_address = "{seen}"' if seen else 'stun_servers = ["stun.example.com:3478"]'
    return warning("double-nat", complaint, configuration=(cure,))


def _known_upstream(control: str) -> Mapping[str, object] | None:
    """Returns what a running gateway knows of the NAT above, None where none tells."""
    try:
        return next(ask(control, {"command": "show", "what": "upstream"}), None)
    except ControlError:
        return None


async def _look(config: Config) -> upstreams.Finding:
    upstream = upstreams.Upstream(config, _wire(config), default_gateway)
    try:
        await upstream.look()
    finally:
        upstream.close()
    return upstream.found


def _check_echo(config: Config, server: Endpoint, sent: bytes, echo: Echo | None) -> Finding:
    """Judges how an INVITE has come to a SIP echo server: changed by another ALG (A79)."""
    if echo is None:
        text = f"the echo server {server} does not answer; this must run there"
        return warning("second-alg", text, f"sipnat echo --listen 0.0.0.0:{server.port}")
    changed = differences(sent, echo.request)
    if not changed:
        return ok("second-alg", f"an INVITE comes to {server} unchanged, from {echo.source}")
    lines = "; ".join(
        f"{before[:_LONGEST_LINE]!r} came as {after[:_LONGEST_LINE]!r}"
        for before, after in changed[:_MOST_LINES]
    )
    above = default_gateway(config.external) or "above"
    return error(
        "second-alg",
        f"another ALG in the path changes SIP, {len(changed)} lines of an INVITE: {lines}; switch "
        f"off the SIP ALG of the router {above}, or have the provider of the line do so",
    )


def _wire(config: Config) -> str:
    return (config.addresses or external_addresses(config.external))[0]


def _resolve(server: str) -> Endpoint:
    """Returns where a server is, by its name or address; raises OSError."""
    name, _, port = server.partition(":")
    found = socket.getaddrinfo(name, int(port or _SIP_PORT), socket.AF_INET, socket.SOCK_DGRAM)
    return Endpoint(*found[0][4][:2])


def _remotes(config: Config) -> list[str]:
    """Returns one IPv4 address of each network that servers are in."""
    return [each.partition("/")[0] for each in config.servers if not is_ipv6(each)]


def _wanted_ports(config: Config) -> list[tuple[str, int, str]]:
    relay = [("tcp", config.relay_number, f"relay_port = {config.relay_port + 100}")]
    pcp = [(*each, "pcp = false") for each in PCP_PORTS if config.pcp]
    upnp = [(*each, "upnp = false") for each in UPNP_PORTS if config.upnp]
    return [*(relay if config.tcp else []), *pcp, *upnp]
