"""Mappings on request: who asked for one, by which way, and what was asked.

A lease is a pinhole whose owner is a client and no dialog. It begins, is renewed and ends as the
client says; signalling neither ends it nor, where the client names the mapping by itself, adds to
it. All that is known of a lease is in the table, so that it lives on as the table does.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Final

from nat_table.binding import Owner, Pinhole

LEASE: Final = "lease"
"""The scope of a lease's owner; its `call_id` is the source, its `tag` what the client calls it."""


NEVER = 1e12
"""When a mapping ends that has no end: no clock gets there, and it is a number as any other."""


class Source(enum.Enum):
    """By which way a mapping came; the value is what the command line prints."""

    SIP = "sip"
    PCP = "pcp"
    NAT_PMP = "nat-pmp"
    UPNP = "upnp"
    API = "api"
    STATIC = "static"

    __hash__ = object.__hash__  # as in `Transport`


def lease_owner(source: Source, name: str = "") -> Owner:
    """Returns the owner of a lease; `name` tells leases of one source on one mapping apart."""
    return Owner(LEASE, source.value, name)


def is_lease(pinhole: Pinhole) -> bool:
    """Tells whether a client asked for this pinhole."""
    return pinhole.owner[0] == LEASE


def is_left_to_clients(pinholes: Iterable[Pinhole]) -> bool:
    """Tells whether no signalling needs a mapping: clients asked for it, and perhaps connected."""
    return all(pinhole.owner.scope in (LEASE, "connection") for pinhole in pinholes)


def source_of(pinholes: Iterable[Pinhole]) -> Source:
    """Returns the source of a mapping: that of its first lease, or SIP where it has none."""
    leases = (Source(each.owner.call_id) for each in pinholes if is_lease(each))
    return next(leases, Source.SIP)
