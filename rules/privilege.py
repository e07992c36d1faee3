"""What this process may do."""

from __future__ import annotations

from pathlib import Path

_STATUS = Path("/proc/self/status")
_NET_ADMIN = 12  # CAP_NET_ADMIN of linux/capability.h


def has_net_admin() -> bool:
    """Tells whether it may look at the firewall and change it."""
    for line in _STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) & 1 << _NET_ADMIN)
    return False
