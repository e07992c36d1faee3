"""Checks of the router itself: sysctls, routes, the clock, and ports that others have."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path

from nat_table.behavior import Mode6
from rules.doctor.finding import Finding, error, ok, warning
from rules.doctor.kernel import OPENWRT
from rules.doctor.probe import ANYWHERE
from rules.interfaces import has_route, is_forwarding, is_forwarding6, is_reached_by
from rules.listeners import Listener, listeners
from rules.settings import Settings

_SYSCTL = Path("/proc/sys")
_QUEUES = Path("/proc/thread-self/net/netfilter/nfnetlink_queue")
_NETWORK_CLASS = Path("/sys/class/net")
_SET_CLOCK = "timedatectl set-ntp true"
_SET_CLOCK_OF_OPENWRT = "/etc/init.d/sysntpd enable && /etc/init.d/sysntpd restart"
_STRICT = 1
_NEARLY_FULL, _FULL = 0.8, 0.95
_UNSYNCHRONISED = 5  # TIME_ERROR of adjtimex(2)
_TIMEX_SIZE = 512
_LAST_POOL_PORT = 60999


def check_forwarding(mode6: Mode6) -> Iterator[Finding]:
    """Looks whether the router forwards at all."""
    is_off, is_off6 = not is_forwarding(), mode6 is not Mode6.OFF and not is_forwarding6()
    if is_off:
        text = "this machine does not forward packets"
        yield error("forwarding", text, "sysctl -w net.ipv4.ip_forward=1")
    if is_off6:
        text = "this machine does not forward IPv6"
        yield error("forwarding", text, "sysctl -w net.ipv6.conf.all.forwarding=1")
    if not is_off and not is_off6:
        yield ok("forwarding", "this machine forwards packets")


def check_conntrack() -> Iterator[Finding]:
    """Looks how full the table of flows is: a new one has no place in a full one."""
    used = _read_number("net/netfilter/nf_conntrack_count")
    most = _read_number("net/netfilter/nf_conntrack_max")
    if used is None or not most:
        return
    text = f"{used} of {most} flows in the conntrack table"
    if used < most * _NEARLY_FULL:
        yield ok("conntrack", text)
        return
    judge = error if used >= most * _FULL else warning
    command = f"sysctl -w net.netfilter.nf_conntrack_max={most * 2}"
    yield judge("conntrack", f"{text}: where it is full, new calls are dropped", command)


def check_route_back(settings: Settings, remotes: Iterable[str]) -> Iterator[Finding]:
    """Looks whether what comes from the Internet would leave there, where the kernel insists.

    A strict reverse path filter (RFC 3704) drops what comes by another way than answers would go.
    """
    external = settings.external_interface
    asked = list(remotes) or [ANYWHERE]
    wire = settings.external_addresses[0]
    elsewhere = [each for each in asked if not is_reached_by((external,), each, wire)]
    keys = (f"net/ipv4/conf/{name}/rp_filter" for name in ("all", external))
    mode = max(_read_number(key) or 0 for key in keys)
    if not elsewhere:
        yield ok("reverse-path", f"the way to {_place(asked[0])} is by {external}")
    elif mode == _STRICT:
        yield error(
            "reverse-path",
            f"the kernel drops what {_place(elsewhere[0])} sends by {external}: rp_filter is "
            "strict, and its way back is another",
            f"sysctl -w {_sysctl_name(f'net/ipv4/conf/{external}/rp_filter')}=2",
        )
    elif not has_route(elsewhere[0]):
        yield warning("reverse-path", f"there is no route to {_place(elsewhere[0])}")
    else:
        where = _place(elsewhere[0])
        yield ok("reverse-path", f"{where} is not reached by {external}, which is allowed")


def _place(address: str) -> str:
    return "the Internet" if address == ANYWHERE else address


def check_bridges(settings: Settings) -> Iterator[Finding]:
    """Looks for bridges whose frames pass the rules for routed packets (br_netfilter)."""
    families = ("iptables",) if settings.mode6 is Mode6.OFF else ("iptables", "ip6tables")
    names = [f"net/bridge/bridge-nf-call-{each}" for each in families]
    on = [name for name in names if _read_number(name)]
    interfaces = (*settings.internal_interfaces, settings.external_interface)
    bridges = [each for each in interfaces if _is_bridge(each)]
    if not on or not bridges:
        yield ok("bridge", "no bridge's frames pass the rules for routed packets")
        return
    yield warning(
        "bridge",
        f"br_netfilter has frames between ports of {bridges[0]} pass the firewall and NAT too, "
        "so calls from phone to phone may be dropped or translated; Docker switches it on",
        *(f"sysctl -w {_sysctl_name(name)}=0" for name in on),
    )


def check_clock() -> Finding:
    """Looks whether the clock is kept right: logs and captures are compared with others'."""
    if ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_TIMEX_SIZE)) == _UNSYNCHRONISED:
        text = "the clock is not synchronised: logs and captures do not match those of others"
        return warning("clock", text, _SET_CLOCK if not OPENWRT.exists() else _SET_CLOCK_OF_OPENWRT)
    return ok("clock", "the clock is synchronised")


def check_ports(
    settings: Settings, wanted: Iterable[tuple[str, int, str]], *, is_running: bool
) -> Iterator[Finding]:
    """Looks for sockets of other programs on ports that sipnat uses.

    `wanted` are those it listens on: protocol, port, and the line of configuration that does
    without. Where it runs they are its own.
    """
    taken = list(listeners())
    low, high = settings.pool
    inside = [each for each in taken if low <= each.port <= high and not each.is_loopback]
    found = False
    if inside:
        found = True
        yield warning(
            "ports",
            f"{_named(inside)} within {low}-{high}, the ports of mappings",
            configuration=(f'ports = "{free_range(settings.pool)}"',),
        )
    for protocol, port, line in wanted if not is_running else ():
        others = [each for each in taken if (each.protocol, each.port) == (protocol, port)]
        if others:
            found = True
            text = f"{_named(others)}, where sipnat is to listen"
            yield error("ports", text, configuration=(line,))
    if not found:
        yield ok("ports", "no other program has a port that sipnat uses")


def check_queue(settings: Settings) -> Finding:
    """Looks whether another program has the queue that sipnat is to have."""
    lines = _QUEUES.read_text().splitlines() if _QUEUES.exists() else []
    taken = {int(line.split()[0]) for line in lines}
    number = settings.queue_number
    if number not in taken:
        return ok("queue", f"no other program has queue {number}")
    free = next(each for each in count(number) if each not in taken)
    text = f"another program has queue {number}"
    return error("queue", text, configuration=(f"queue = {free - settings.uplink}",))


def free_range(pool: tuple[int, int], kept: Iterable[int] = ()) -> str:
    """Returns a range as large as the pool where nobody listens, or the pool if there is none.

    Ports from which the router's own sockets draw are left out as well, and those that are `kept`.
    """
    drawn = (_SYSCTL / "net/ipv4/ip_local_port_range").read_text().split()
    blocked = {each.port for each in listeners()} | set(kept)
    blocked |= set(range(int(drawn[0]), int(drawn[1]) + 1))
    size = pool[1] - pool[0] + 1
    start = 1024
    for port in range(1024, _LAST_POOL_PORT + 1):
        if port in blocked:
            start = port + 1 + (port + 1) % 2
        elif port - start + 1 >= size:
            return f"{start}-{port}"
    return "{}-{}".format(*pool)


def _named(taken: Iterable[Listener]) -> str:
    first, *others = taken
    more = f" and {len(others)} more" if others else ""
    return f"{first.program or 'a program'} has {first.protocol} port {first.port}{more}"


def _read_number(name: str) -> int | None:
    try:
        return int((_SYSCTL / name).read_text())
    except (OSError, ValueError):
        return None


def _sysctl_name(path: str) -> str:
    """Returns it with dots, as everybody writes it, unless an interface has one in its name."""
    return path if "." in path else path.replace("/", ".")


def _is_bridge(name: str) -> bool:
    return (_NETWORK_CLASS / name / "bridge").exists()
