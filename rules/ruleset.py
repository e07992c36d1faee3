"""The text of the ruleset: nft variables, then `ruleset.nft`, and `relay.nft` where TCP is relayed.

nft has variables of its own, so the rules need no template language: what `sipnat rules` prints is
what an engineer may read, try with `nft -c -f`, and load.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.resources import files
from ipaddress import IPv4Network, IPv6Network, collapse_addresses

from nat_table.behavior import Filtering, Mode6
from nat_table.endpoint import of_one_family
from rules.ruleset6 import CHAINS, derive_ruleset6
from rules.settings import Settings

_CAPTURE = """
table inet sipnat {

    # The one rule that hands packets to user space; it goes when the daemon stops.
    chain capture {
        queue num %s
    }
%s}
"""
_CAPTURED = """
    chain %s {
        goto capture
    }
"""
_FORESEE = """
table inet sipnat {

    chain foresee {
%s    }
}
"""
_LIMIT_RATE = """
table inet sipnat {

    chain limit_rate {
        update @flooding { ip saddr limit rate over %d/second burst %d packets } goto flood
    }
}
"""
_REQUESTS = """
table inet sipnat {

    # Requests for mappings, which this machine answers: its firewall may go by the mark.
    chain requests {
        type filter hook input priority mangle; policy accept;

        iifname $internal meta l4proto . th dport %s meta mark set meta mark | $relay_mark
    }
}
"""
_NO_PORT = (0,)  # nft takes no empty set
_CHAINS = {
    Filtering.ENDPOINT_INDEPENDENT: "endpoint_independent",
    Filtering.ADDRESS_DEPENDENT: "address_dependent",
    Filtering.LATCH: "first_come",
}

_CARRYING = {Filtering.LATCH: "keep_latch"}

DIVERTING: tuple[str, ...] = ("divert_inbound", "divert_outbound", "to_relay")
"""The chains that hand new connections to the relay; without their rules all pass it by."""


def render_ruleset(settings: Settings, native_queue: bool) -> str:
    """Renders the whole table as nft text, with the queue rule where the kernel has `queue`."""
    variables = {
        "internal": _render_set(f'"{name}"' for name in settings.internal_interfaces),
        "external": f'"{settings.external_interface}"',
        "external_addresses": _render_set(settings.external_addresses),
        "fence_address": settings.fence_address,
        "sip_ports": _render_set(map(str, settings.sip_ports)),
        "tls_ports": _render_set(map(str, settings.tls_ports or _NO_PORT)),
        "pool": "{}-{}".format(*settings.pool),
        "fence": "{}-{}".format(*settings.fence),
        "signalling_filter": _CHAINS[settings.signalling_filter],
        "media_filter": _CHAINS[settings.media_filter],
        "queue_mark": f"{settings.queue_mark:#010x}",
        "open_mark": f"{settings.open_mark:#010x}",
        "flow_marks": f"{settings.open_mark | settings.queue_mark:#010x}",
        "carrying": _CARRYING.get(settings.media_filter, "carry"),
    }
    if settings.has_own_sockets:
        variables["relay_mark"] = f"{settings.relay_mark:#010x}"
    if settings.relay_port:
        variables |= {
            "relay_port": str(settings.relay_port),
            "without_relay": "pass" if settings.is_fail_open else "hold",
        }
    if settings.mode6 is not Mode6.OFF:
        variables |= _variables6(variables, settings)
    defines = "".join(f"define {name} = {value}\n" for name, value in variables.items())
    rules, relay = _read("ruleset.nft"), _read("relay.nft") if settings.relay_port else ""
    limit_rate = _LIMIT_RATE % (settings.flood_rate, settings.flood_rate)
    foresight = _render_foresight(settings.external_addresses)
    is_nat66 = settings.mode6 is Mode6.NAT66
    foresight6 = _render_foresight(settings.external_addresses6) if is_nat66 else ""
    rules6 = derive_ruleset6(f"{rules}{relay}{limit_rate}{foresight6}", settings)
    networks, requests = _render_networks(settings), _render_requests(settings)
    capture = render_capture(settings) if native_queue else ""
    text = (
        f"{defines}\n{rules}{requests}{relay}{limit_rate}{foresight}{rules6}\n{networks}{capture}"
    )
    return text.replace("inet sipnat", f"inet {settings.table}")


def render_capture(settings: Settings) -> str:
    """Renders the chain with nft's own `queue` statement (nft variables not included)."""
    bypass = " bypass" if settings.is_fail_open else ""
    queues = ["to_queue"] if settings.mode6 is Mode6.OFF else ["to_queue", "to_queue6"]
    captured = "".join(_CAPTURED % each for each in queues)
    return _CAPTURE % (f"{settings.queue_number}{bypass}", captured)


def _read(name: str) -> str:
    return files("rules").joinpath(name).read_text(encoding="ascii")


def _variables6(variables: Mapping[str, str], settings: Settings) -> dict[str, str]:
    """Returns the variables that the IPv6 half has for itself: addresses, and names of chains."""
    own = {f"{name}6": f"{variables[name]}6" for name in CHAINS if name in variables}
    if settings.mode6 is Mode6.NAT66:
        own["external_addresses6"] = _render_set(settings.external_addresses6)
        own["fence_address6"] = settings.fence_address6
    return own


def _render_networks(settings: Settings) -> str:
    """Renders what the sets of networks hold, each set those of its family."""
    named = {"servers": settings.servers, "routed": settings.routed}
    text = "".join(_render_elements(name, _ipv4(named[name])) for name in named)
    if settings.mode6 is not Mode6.OFF:
        text += "".join(_render_elements(f"{name}6", _ipv6(named[name])) for name in named)
    return text


def _render_foresight(addresses: Iterable[str]) -> str:
    """Renders which external endpoints a flow without a mapping will most likely have."""
    rules = (f"        update @strays {{ {each} . udp sport }}\n" for each in addresses)
    return _FORESEE % "".join(rules)


def _render_requests(settings: Settings) -> str:
    """Renders the chain of requests for mappings, where any are answered; IPv6 included."""
    ports = [f"{protocol} . {port}" for protocol, port in settings.request_ports]
    return _REQUESTS % _render_set(ports) if ports else ""


def _ipv4(networks: Iterable[str]) -> list[str]:
    parsed = (IPv4Network(each, strict=False) for each in of_one_family(networks, of_ipv6=False))
    return list(map(str, collapse_addresses(parsed)))


def _ipv6(networks: Iterable[str]) -> list[str]:
    parsed = (IPv6Network(each, strict=False) for each in of_one_family(networks, of_ipv6=True))
    return list(map(str, collapse_addresses(parsed)))


def _render_elements(set_name: str, elements: list[str]) -> str:
    """Renders what a set holds: an earlier installation's elements go, nft takes no empty list."""
    text = f"flush set inet sipnat {set_name}\n"
    if elements:
        text += f"add element inet sipnat {set_name} {_render_set(elements)}\n"
    return text


def _render_set(items: Iterable[str]) -> str:
    return "{ " + ", ".join(items) + " }"
