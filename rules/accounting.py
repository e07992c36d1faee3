"""Whether conntrack counts the packets of flows (net.netfilter.nf_conntrack_acct).

It is switched on and never off: flows that stand are not counted from one run to the next unless it
stays on, and somebody else may read the counts by then.
"""

from __future__ import annotations

from pathlib import Path

_SWITCH = Path("/proc/sys/net/netfilter/nf_conntrack_acct")


def is_counting() -> bool:
    """Tells whether new flows are counted, in the network namespace of the calling thread."""
    try:
        return _SWITCH.read_text(encoding="ascii").strip() != "0"
    except OSError:
        return False


def start_counting() -> None:
    """Has flows counted that begin from now on; raises OSError where that may not be changed."""
    _SWITCH.write_text("1", encoding="ascii")
