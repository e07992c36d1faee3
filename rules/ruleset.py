"""The text of the ruleset: the settings as nft variables, then `ruleset.nft` as it stands.

nft has variables of its own, so the rules need no template language: what `sipnat rules` prints is
what an engineer may read, try with `nft -c -f`, and load.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import files
from ipaddress import IPv4Network, collapse_addresses

from nat_table.behavior import Filtering
from rules.settings import Settings

_CAPTURE = """
table inet sipnat {

    # The one rule that hands packets to user space; it goes when the daemon stops.
    chain capture {
        type filter hook forward priority mangle; policy accept;

        meta mark & $queue_mark == $queue_mark queue num %s
    }
}
"""


_LIMIT_RATE = """
table inet sipnat {

    chain limit_rate {
        update @flooding { ip saddr limit rate over %d/second burst %d packets } goto flood
    }
}
"""
_CHAINS = {
    Filtering.ENDPOINT_INDEPENDENT: "endpoint_independent",
    Filtering.ADDRESS_DEPENDENT: "address_dependent",
    Filtering.LATCH: "first_come",
}


def render_ruleset(settings: Settings, native_queue: bool) -> str:
    """Renders the whole table as nft text, with the queue rule where the kernel has `queue`."""
    variables = {
        "internal": _render_set(f'"{name}"' for name in settings.internal_interfaces),
        "external": f'"{settings.external_interface}"',
        "external_addresses": _render_set(settings.external_addresses),
        "fence_address": settings.external_addresses[0],
        "sip_ports": _render_set(map(str, settings.sip_ports)),
        "pool": "{}-{}".format(*settings.pool),
        "fence": "{}-{}".format(*settings.fence),
        "signalling_filter": _CHAINS[settings.signalling_filter],
        "media_filter": _CHAINS[settings.media_filter],
        "queue_mark": f"{settings.queue_mark:#010x}",
        "open_mark": f"{settings.open_mark:#010x}",
    }
    defines = "".join(f"define {name} = {value}\n" for name, value in variables.items())
    rules = files("rules").joinpath("ruleset.nft").read_text(encoding="ascii")
    networks = _render_networks("servers", settings.servers)
    networks += _render_networks("routed", settings.routed)
    limit_rate = _LIMIT_RATE % (settings.flood_rate, settings.flood_rate)
    capture = render_capture(settings) if native_queue else ""
    text = f"{defines}\n{rules}{limit_rate}\n{networks}{capture}"
    return text.replace("inet sipnat", f"inet {settings.table}")


def render_capture(settings: Settings) -> str:
    """Renders the chain with nft's own `queue` statement (nft variables not included)."""
    bypass = " bypass" if settings.is_fail_open else ""
    return _CAPTURE % f"{settings.queue_number}{bypass}"


def _render_networks(set_name: str, networks: tuple[str, ...]) -> str:
    """Renders what a set holds: an earlier installation's elements go, nft takes no empty list."""
    flat = collapse_addresses(IPv4Network(network, strict=False) for network in networks)
    elements = _render_set(map(str, flat))
    text = f"flush set inet sipnat {set_name}\n"
    return f"{text}add element inet sipnat {set_name} {elements}\n" if networks else text


def _render_set(items: Iterable[str]) -> str:
    return "{ " + ", ".join(items) + " }"
