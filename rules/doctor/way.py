"""Checks that follow packets of a call through the firewall: who would change or drop them.

The marks are those that sipnat's rules set before these chains see a packet, so what is found is
what would be with sipnat at work, whether it runs or not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Network, IPv6Network, ip_address

from nat_table.behavior import Mode6
from rules.capture import iptables_rule
from rules.doctor import cures
from rules.doctor.finding import Finding, error, ok, warning
from rules.doctor.firewall import (
    DROP,
    HELPER,
    NOTRACK,
    OFFLOAD,
    OVERWRITE,
    QUEUE,
    Chain,
    Firewall,
    Rule,
    Way,
)
from rules.doctor.iptables import rule_command
from rules.doctor.probe import ANYWHERE, ANYWHERE6, Probe
from rules.settings import Settings

Network = IPv4Network | IPv6Network

_PHONE_HOST = 200
_UNPRIVILEGED = "1024-65535"
"""Ports of mappings: those of `ports`, and each phone's own where it is free."""


def check_helper(firewall: Firewall, sip_ports: Iterable[int]) -> Iterator[Finding]:
    """Looks for the kernel's own SIP helper, which rewrites messages too (A79).

    A flow keeps its helper, so those that have one are to be cut.
    """
    found = [each for each in firewall.rules() if _is_sip_helper(each[1])]
    for chain, rule in found:
        yield error(
            "sip-helper",
            f"the kernel's SIP helper rewrites messages too: {chain}, {rule.text}",
            cures.removal_of_helper(chain, rule),
            *(f"conntrack -D -p udp --dport {port}" for port in sip_ports),
        )
    if not found:
        yield ok("sip-helper", "no rule hands SIP to the kernel's own helper")


def check_tracking(
    firewall: Firewall, settings: Settings, probes: Iterable[Probe]
) -> Iterator[Finding]:
    """Looks for rules that keep SIP or media from conntrack: without that there is no NAT."""
    found: dict[str, tuple[Chain, Rule, list[Probe]]] = {}
    for probe in (_before_nat(each, settings) for each in probes):
        for chain, way in firewall.ways("prerouting", probe):
            for rule in way.met:
                if rule.action == NOTRACK and rule.is_met_by(probe):
                    found.setdefault(rule.removal, (chain, rule, []))[2].append(probe)
    for removal, (chain, rule, kept) in found.items():
        text = f"{chain} keeps {_listed(kept)} from conntrack, so there is no NAT: {rule.text}"
        yield error("notrack", text, removal)
    if not found:
        yield ok("notrack", "conntrack sees SIP and media")


def check_drops(firewall: Firewall, settings: Settings, probes: list[Probe]) -> Iterator[Finding]:
    """Looks for chains that drop what calls consist of, before NAT and behind it (A75)."""
    coming = [_before_nat(each, settings) for each in probes]
    yield from _check_hook("arrival-policy", firewall, "prerouting", coming, _accept_ports)
    for check, hook, passing in (
        ("forward-policy", "forward", probes),
        ("input-policy", "input", _relayed(settings, probes)),
    ):
        cure = partial(cures.of_drop, firewall, settings)
        yield from _check_hook(check, firewall, hook, passing, cure)


def check_requests(
    firewall: Firewall, settings: Settings, probes: list[Probe]
) -> Iterator[Finding]:
    """Looks for chains that drop requests for mappings."""
    cure = partial(cures.of_drop, firewall, settings)
    yield from _check_hook("input-requests", firewall, "input", probes, cure, warning)


def check_offload(firewall: Firewall, settings: Settings, probes: list[Probe]) -> Iterator[Finding]:
    """Looks for flow offload of signalling: what is offloaded passes every queue by (A76)."""
    found: dict[str, tuple[Chain, Rule]] = {}
    for probe in probes:
        established = replace(probe, state="established")
        for chain, way in firewall.ways("forward", established):
            for rule in way.met:
                if rule.action == OFFLOAD:
                    found[rule.removal] = chain, rule
    for chain, rule in found.values():
        text = f"{chain} offloads SIP, so that sipnat sees only the first messages: {rule.text}"
        yield error("flow-offload", text, cures.of_offload(chain, settings))
    if not found:
        yield ok("flow-offload", "no rule offloads SIP")


def check_queue_rule(
    firewall: Firewall, settings: Settings, signalling: Iterable[Probe]
) -> Iterator[Finding]:
    """Looks for rules that hide packets from sipnat's iptables rule in the same chain."""
    hidden: dict[str, tuple[Chain, Probe, Rule, int]] = {}
    for probe in signalling:
        program = "ip6tables" if probe.source.version == 6 else "iptables"
        chain = firewall.chain(program, "mangle", "FORWARD", probe.families[1])
        if chain is not None and (found := _hiding(chain, firewall.follow(chain, probe), settings)):
            hidden.setdefault(program, (chain, probe, *found))
    for program, (chain, probe, rule, index) in hidden.items():
        ours = " ".join(iptables_rule(settings))
        stands = any(_is_ours(each, settings) for each in chain.rules)
        delete = [rule_command(program, "mangle", f"-D FORWARD {ours}")] if stands else []
        yield error(
            "queue-rule",
            f"{chain} keeps {probe.what} from sipnat's rule there: {rule.text}",
            *delete,
            rule_command(program, "mangle", f"-I FORWARD {index} {ours}"),
        )
    if not hidden:
        yield ok("queue-rule", "no rule of mangle FORWARD keeps SIP from sipnat's")


def media_and_signalling(
    settings: Settings, networks: dict[str, tuple[Network, ...]]
) -> list[Probe]:
    """Returns packets of calls, each way; `networks` are those of each internal interface."""
    return [
        probe
        for name in settings.internal_interfaces
        for network in networks[name]
        if network.version == 4 or settings.mode6 is not Mode6.OFF
        for probe in _both_ways(settings, name, network)
    ]


def requests(settings: Settings, signalling: Iterable[Probe], own: dict[str, str]) -> list[Probe]:
    """Returns requests for mappings; `own` is the router's address on each interface."""
    return [
        replace(
            probe,
            what=f"requests to {protocol.upper()} port {port} from {probe.in_interface}",
            destination=ip_address(own[probe.in_interface]),
            destination_port=port,
            protocol=protocol,
            out_interface="",
            mark=settings.relay_mark,
            connection_mark=0,
        )
        for probe in signalling
        if probe.in_interface in own and probe.source.version == 4
        for protocol, port in settings.request_ports
    ]


def _both_ways(settings: Settings, name: str, network: Network) -> Iterator[Probe]:
    phone = network[min(_PHONE_HOST, network.num_addresses - 1)]
    remote = ip_address(ANYWHERE if network.version == 4 else ANYWHERE6)
    sip, external = settings.sip_ports[0], settings.external_interface
    queued, opened = settings.queue_mark, settings.open_mark
    for what, port, mark in (("SIP", sip, queued | opened), ("media", 4000, opened)):
        outbound = Probe(
            f"outgoing {what}", phone, remote, port, port, name, external, "udp", "new",
            mark=mark, connection_mark=opened,
        )  # fmt: skip
        yield outbound
        is_translated = network.version == 4 or settings.mode6 is Mode6.NAT66
        yield replace(
            outbound,
            what=f"incoming {what}",
            source=remote,
            destination=phone,
            in_interface=external,
            out_interface=name,
            status=frozenset({"dnat"} if is_translated else ()),
        )


def _relayed(settings: Settings, probes: Iterable[Probe]) -> list[Probe]:
    """Returns the connections for the relay, as INPUT sees them: not translated."""
    return [
        replace(
            _before_nat(probe, settings),
            what=probe.what.replace("SIP", "SIP over TCP"),
            protocol="tcp",
            out_interface="",
            mark=settings.relay_mark,
        )
        for probe in probes
        if probe.is_signalling and settings.relay_port
        if probe.source.version == 4 or settings.is_relaying6
    ]


def _before_nat(probe: Probe, settings: Settings) -> Probe:
    """Returns a probe as it is when it comes: for the external address, and without marks."""
    addresses = (
        settings.external_addresses if probe.source.version == 4 else settings.external_addresses6
    )
    came_to = ip_address(addresses[0]) if "dnat" in probe.status else probe.destination
    return replace(probe, destination=came_to, status=frozenset(), mark=0, connection_mark=0)


def _check_hook(
    check: str,
    firewall: Firewall,
    hook: str,
    probes: list[Probe],
    cure: Callable[[Chain, list[Probe]], cures.Cure],
    worst: Callable[..., Finding] = error,
) -> Iterator[Finding]:
    """Yields one finding for each chain that drops any of the probes."""
    drops: dict[str, list[tuple[Chain, Way, Probe]]] = {}
    for probe in probes:
        for chain, way in firewall.ways(hook, probe):
            if way.verdict == DROP:
                drops.setdefault(str(chain), []).append((chain, way, probe))
    for found in drops.values():
        chain, way, _ = found[0]
        dropped = [probe for *_, probe in found]
        doubts = [each.doubt.text for _, each, _ in found if each.doubt]
        by = way.rule.text if way.rule else "its policy"
        judge, text = worst, f"{chain} drops {_listed(dropped)}: {by}"
        if len(doubts) == len(found):
            judge = warning
            text = f"{chain} may drop {_listed(dropped)} (unless by {doubts[0]}): {by}"
        commands, configuration = cure(chain, dropped)
        yield judge(check, text, *commands, configuration=configuration)
    if probes and not drops:
        yield ok(check, f"no chain drops {_listed(probes)}")


def _accept_ports(chain: Chain, dropped: list[Probe]) -> cures.Cure:
    commands = (cures.acceptance(chain, each, _UNPRIVILEGED) for each in dropped)
    return tuple(dict.fromkeys(commands)), ()


def _listed(probes: Iterable[Probe]) -> str:
    return ", ".join(dict.fromkeys(probe.what for probe in probes))


def _hiding(chain: Chain, way: Way, settings: Settings) -> tuple[Rule, int] | None:
    """Returns the rule that hides a probe from ours, and the position before which ours belongs."""
    for rule in way.met:
        if rule.action == OVERWRITE and int(rule.target, 0) & settings.queue_mark:
            return rule, rule.index if rule in chain.rules else 1
    if way.rule is None or _is_ours(way.rule, settings):
        return None
    return way.rule, way.index


def _is_ours(rule: Rule, settings: Settings) -> bool:
    return (rule.action, rule.target) == (QUEUE, str(settings.queue_number))


def _is_sip_helper(rule: Rule) -> bool:
    """Whether it gives flows the helper, which is named "sip-1" for a second port."""
    return rule.action == HELPER and rule.target.partition("-")[0] == "sip"
