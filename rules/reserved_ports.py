"""Keeps the router's own sockets off the pool: net.ipv4.ip_local_reserved_ports.

The value belongs to the administrator: ours is merged into it, and only ours is taken out again.
It is one per network namespace.
"""

from __future__ import annotations

from pathlib import Path

_SYSCTL = Path("/proc/sys/net/ipv4/ip_local_reserved_ports")


def reserve(pool: tuple[int, int]) -> frozenset[int]:
    """Reserves the pool and returns which of its ports were not reserved before.

    A pool that is reserved to the last port counts as left by an earlier run. Raises OSError.
    """
    reserved, ours = parse_ports(_SYSCTL.read_text()), _ports(pool)
    if missing := ours - reserved:
        _SYSCTL.write_text(render_ports(reserved | ours) + "\n")
    return missing or ours


def release(ports: frozenset[int]) -> None:
    """Takes these ports out of the reservation; raises OSError."""
    reserved = parse_ports(_SYSCTL.read_text())
    if reserved & ports:
        _SYSCTL.write_text(render_ports(reserved - ports) + "\n")


def parse_ports(text: str) -> frozenset[int]:
    """Parses "80,16384-24575"."""
    ports: set[int] = set()
    for item in text.strip().split(",") if text.strip() else ():
        low, _, high = item.partition("-")
        ports.update(range(int(low), int(high or low) + 1))
    return frozenset(ports)


def render_ports(ports: frozenset[int]) -> str:
    """Renders ports as the shortest list of ranges."""
    ranges: list[list[int]] = []
    for port in sorted(ports):
        if ranges and port == ranges[-1][1] + 1:
            ranges[-1][1] = port
        else:
            ranges.append([port, port])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in ranges)


def _ports(pool: tuple[int, int]) -> frozenset[int]:
    return frozenset(range(pool[0], pool[1] + 1))
