"""What becomes of IPv6 on this router, read from its addresses.

    internal hosts have global unicast addresses          pinhole: they need no address outside
    they have unique local ones alone (RFC 4193),
        and the external interface has a global one       nptv6 if prefixes are known, else nat66
    neither, or the kernel does not forward               off

An administrator who translates prefixes does it by the targets SNPT and DNPT of ip6tables, and so
the prefixes can be read there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from ipaddress import IPv6Network

from nat_table.behavior import Mode6
from rules.interfaces import external_addresses6, is_forwarding6, is_unique_local
from rules.programs import ProgramFailed, run_program

Prefixes = tuple[IPv6Network, IPv6Network]
"""The internal one and the external one."""

_NPT = re.compile(r"-j SNPT --src-pfx (\S+)/(\d+) --dst-pfx (\S+)/(\d+)")
_OUT = re.compile(r"(?<!!) -o (\S+)")


def detect_mode6(internal: Iterable[str], external: str, prefixes: Prefixes | None) -> Mode6:
    """Tells the mode by the addresses of the interfaces, and by whether prefixes are known."""
    if not is_forwarding6():
        return Mode6.OFF
    inside = [address for name in internal for address in external_addresses6(name)]
    if not all(map(is_unique_local, inside)):
        return Mode6.PINHOLE
    if not inside or all(map(is_unique_local, external_addresses6(external))):
        return Mode6.OFF
    return Mode6.NPTV6 if prefixes else Mode6.NAT66


def translated_prefixes(external: str) -> Prefixes | None:
    """Returns the prefixes that ip6tables puts in each other's place on an external interface.

    None where it does not. Of two lengths the longer one counts for both (RFC 6296 §3.1).
    """
    try:
        rules = run_program("ip6tables-save", "-t", "mangle").splitlines()
    except ProgramFailed:
        return None
    found = next(
        (npt for rule in rules if (npt := _NPT.search(rule)) and _is_for(rule, external)), None
    )
    if found is None:
        return None
    inside, inside_length, outside, outside_length = found.groups()
    length = max(int(inside_length), int(outside_length))
    return IPv6Network((inside, length)), IPv6Network((outside, length))


def _is_for(rule: str, interface: str) -> bool:
    """Tells whether a rule is for what leaves by an interface; "ppp+" is for each such name."""
    out = _OUT.search(rule)
    return out is None or fnmatchcase(interface, out[1].replace("+", "*"))
