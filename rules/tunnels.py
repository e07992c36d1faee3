"""Networks that internal hosts reach by IPsec without an interface of its own, and so without NAT.

Such packets leave by the external interface like all others, and only the kernel's policies tell
them apart: a message that was rewritten there would name an address that is no good beyond.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network, IPv6Network, ip_network

from rules.programs import ProgramFailed, run_program

Network = IPv4Network | IPv6Network

_POLICY = re.compile(r"^src (\S+) dst (\S+).*\n((?:\s.*\n?)*)", re.MULTILINE)
_WITH_IPSEC = re.compile(r"^\s*tmpl ", re.MULTILINE)


def tunnelled_networks(internal: Iterable[Network]) -> list[Network]:
    """Returns the networks beyond tunnels for these ones; without root there are none."""
    try:
        policies = run_program("ip", "xfrm", "policy", "list", "dir", "out")
    except ProgramFailed:
        return []
    inside = list(internal)
    return list(dict.fromkeys(_beyond(policies, inside)))


def _beyond(policies: str, internal: list[Network]) -> Iterator[Network]:
    for source, destination, more in _POLICY.findall(policies):
        here, there = ip_network(source), ip_network(destination)
        is_ours = any(here.version == each.version and here.overlaps(each) for each in internal)
        if is_ours and there.prefixlen and _WITH_IPSEC.search(more):
            yield there
