"""What a process may do."""

from __future__ import annotations

from pathlib import Path

_NET_ADMIN = 12  # CAP_NET_ADMIN of linux/capability.h


def has_net_admin(process: int | str = "self") -> bool:
    """Tells whether it may look at the firewall and change it; not if it cannot be seen."""
    try:
        status = Path("/proc", str(process), "status").read_text("ascii", "replace")
    except OSError:
        return False
    for line in status.splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) & 1 << _NET_ADMIN)
    return False
