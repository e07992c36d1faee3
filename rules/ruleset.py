"""The text of the ruleset: the settings as nft variables, then `ruleset.nft` as it stands.

nft has variables of its own, so the rules need no template language: what `sipnat rules` prints is
what an engineer may read, try with `nft -c -f`, and load.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import files

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


def render_ruleset(settings: Settings, native_queue: bool) -> str:
    """Renders the whole table as nft text, with the queue rule where the kernel has `queue`."""
    variables = {
        "internal": _render_set(f'"{name}"' for name in settings.internal_interfaces),
        "external": f'"{settings.external_interface}"',
        "external_address": settings.external_address,
        "sip_ports": _render_set(map(str, settings.sip_ports)),
        "pool": "{}-{}".format(*settings.pool),
        "fence": "{}-{}".format(*settings.fence),
        "queue_mark": f"{settings.queue_mark:#010x}",
        "open_mark": f"{settings.open_mark:#010x}",
    }
    defines = "".join(f"define {name} = {value}\n" for name, value in variables.items())
    rules = files("rules").joinpath("ruleset.nft").read_text(encoding="ascii")
    return f"{defines}\n{rules}{render_capture(settings) if native_queue else ''}"


def render_capture(settings: Settings) -> str:
    """Renders the chain with nft's own `queue` statement (nft variables not included)."""
    bypass = " bypass" if settings.is_fail_open else ""
    return _CAPTURE % f"{settings.queue_number}{bypass}"


def _render_set(items: Iterable[str]) -> str:
    return "{ " + ", ".join(items) + " }"
