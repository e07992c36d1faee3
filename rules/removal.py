"""All of ours goes out of the kernel, whoever has put it there and however he was configured.

What stands tells what it is: our name is on the table and on the rules in other programs' chains,
our number on the routing table, and the table says which ports it has reserved.
"""

from __future__ import annotations

import contextlib
import re
import socket

from nat_table.behavior import Mode6
from nat_table.endpoint import Transport
from rules import capture, reserved_ports, routing
from rules.accept import Acceptance
from rules.conntrack import Conntrack, End, Side
from rules.elements import INBOUND, INTERNAL, of_both, unpack_endpoint
from rules.netlink import Netlink
from rules.programs import ProgramFailed, run_program
from rules.settings import Settings

_POOL = re.compile(r"udp dport (\d+)-(\d+) (?:drop|jump unheard)")


def remove_traces(uplink: int) -> None:
    """Removes all that a sipnat of this uplink has left in this network namespace.

    Flows of its mappings are cut, so that they go on as if there had been none. Raises
    KernelRefused, ProgramFailed, or OSError where a sysctl may not be changed.
    """
    settings = Settings((), "", ("0.0.0.0",), mode6=Mode6.PINHOLE, uplink=uplink)
    netlink, conntrack = Netlink(settings.table), Conntrack(socket.AF_UNSPEC)
    with contextlib.closing(netlink), contextlib.closing(conntrack):
        capture.remove_iptables_rules(settings)
        Acceptance(settings).remove()
        routing.remove(settings)
        if netlink.has_table():
            ends, pool = _ends(netlink), _pool(settings)
            run_program("nft", "delete", "table", "inet", settings.table)
            conntrack.cut(ends)
            # Last: a container may not, and then it was not a gateway in one that reserved them.
            reserved_ports.release(pool)


def _ends(netlink: Netlink) -> list[End]:
    """Returns where flows of the mappings hold an endpoint that others see.

    Where nothing is translated that is the internal one; where it is, no flow is found by that.
    """
    names = (*of_both(INBOUND), *(name for name in INTERNAL if name.endswith("6")))
    return [
        End(side, Transport(each.key[0]), unpack_endpoint(each.key[4:]))
        for each in netlink.all_elements(names)
        for side in (Side.ORIGINAL_DESTINATION, Side.REPLY_DESTINATION)
    ]


def _pool(settings: Settings) -> frozenset[int]:
    """Returns the ports that the table's rules keep strangers from."""
    try:
        text = run_program("nft", "list", "chain", "inet", settings.table, "stranger")
    except ProgramFailed:  # a table of another version
        return frozenset()
    ranges = _POOL.findall(text)
    return frozenset(port for low, high in ranges for port in range(int(low), int(high) + 1))
