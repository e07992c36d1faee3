"""How the gateway stands, in one line: for `sipnat status` and for systemd's."""

from __future__ import annotations

from collections.abc import Mapping

from alg.observe.printable import printable


def standing(row: Mapping[str, object]) -> str:
    """Returns what a row of status says, such as "in service: calls 2, ..."; safe to print."""
    states = [
        word
        for key, word in (("draining", "draining"), ("is_behind", "the kernel is behind"))
        if row.get(key)
    ]
    faults = row.get("faults")
    if isinstance(faults, list):
        states += [printable(str(fault)) for fault in faults]
    keys = ("calls", "registrations", "mappings")
    counts = ", ".join(f"{key} {printable(str(row.get(key, '-')))}" for key in keys)
    return f"{' and '.join(states) or 'in service'}: {counts}"
