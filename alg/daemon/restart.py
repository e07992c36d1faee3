"""What an earlier run left, taken over: the store's rows, and the kernel's mappings.

The store knows whose each mapping is and until when, but a crash takes its last moment. The
kernel is exact about which mappings there are, and knows nothing else. So:

    in both             taken over with its owners
    in the kernel only  taken over without: signalling waits for its phone to register, the rest
                        stays while it flows (`orphans`); whom a client has let in must be let in by
                        it again, for nobody else vouches for them
    in the store only   it was closed after the last write, and stays closed; but where all of
                        sipnat's rules are gone somebody has flushed them, and it is opened again

What only a TCP connection has kept is closed: connections end with the process that relays them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from alg.daemon.connections import CONNECTION
from alg.daemon.ledger import MAPPING, Key, decode_row
from alg.dialogs.linger import FLOW
from nat_table.binding import Binding, Kind, Owner, Pinhole
from nat_table.endpoint import Endpoint, Transport, of_one_family
from nat_table.snapshot import Row, adopt_row
from nat_table.table import NatTable

log = logging.getLogger("sipnat")

ORPHAN = Owner("orphan")
ORPHAN_TIMEOUT = 300.0
GRACE_TIMEOUT = 60.0
"""A call that was over meanwhile is given this long to show that it is not."""


def stored_mappings(rows: Mapping[Key, bytes]) -> list[Row]:
    """Returns the store's mappings; what cannot be read is passed over."""
    found = []
    for (kind, name), row in rows.items():
        if kind == MAPPING:
            try:
                found.append(decode_row(row))
            except ValueError as error:
                log.warning("the stored mapping %s cannot be read: %s", name, error)
    return found


def addresses(stored: Iterable[Row], current: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the external addresses that the table must begin with.

    They are the current ones; but where the only one of its family has changed since the earlier
    run, it is the former, so that its mappings can be taken over and then moved.
    """
    former = {binding.external.address for binding, _ in stored}
    return tuple(
        address for of_ipv6 in (False, True) for address in _of_family(of_ipv6, former, current)
    )


def _of_family(of_ipv6: bool, former: Iterable[str], current: Iterable[str]) -> tuple[str, ...]:
    then, now = (of_one_family(each, of_ipv6=of_ipv6) for each in (former, current))
    return then if len(then) == len(now) == 1 else now


class Difference(NamedTuple):
    """Where the store and the kernel did not agree."""

    closed: list[Binding]
    """In the store only, or of a connection only: not taken over."""

    unknown: list[Binding]
    """In the kernel only: taken over without an owner."""


def take_over(
    table: NatTable,
    stored: Iterable[Row],
    standing: Sequence[Binding] | None,
    registration_timeout: float,
    now: float,
) -> Difference:
    """Adopts mappings of an earlier run.

    `standing` are those in the kernel, None where sipnat's rules are gone.
    """
    places = None if standing is None else set(map(_place, standing))
    difference = Difference([], [])
    known = set()
    for binding, pinholes in stored:
        known.add(_place(binding))
        pinholes = tuple(each for each in pinholes if each.owner.scope != CONNECTION)
        if not pinholes or (places is not None and _place(binding) not in places):
            difference.closed.append(binding)
            continue
        _adopt(table, (binding, tuple(_given_grace(each, now) for each in pinholes)), now)
    for binding in standing or ():
        if _place(binding) in known:
            continue
        if table.look_up_internal(binding.transport, binding.internal) is None:
            pinhole = Pinhole(ORPHAN, now + ORPHAN_TIMEOUT)
            if binding.kind is Kind.SIP:
                pinhole = Pinhole(FLOW, now + registration_timeout)
            _adopt(table, (binding, (pinhole,)), now)
            difference.unknown.append(binding)
    if len(table):
        log.info(
            "%d mappings of an earlier run are taken over, of %d nobody knows whose they are",
            len(table),
            len(difference.unknown),
        )
    return difference


def _adopt(table: NatTable, row: Row, now: float) -> None:
    try:
        adopt_row(table, row, now)
    except ValueError as error:
        log.warning("a mapping of an earlier run is dropped: %s", error)


def _given_grace(pinhole: Pinhole, now: float) -> Pinhole:
    if pinhole.owner.scope != "call" or pinhole.expires_at >= now + GRACE_TIMEOUT:
        return pinhole
    return replace(pinhole, expires_at=now + GRACE_TIMEOUT)


def _place(binding: Binding) -> tuple[Transport, Endpoint, Endpoint]:
    return binding.transport, binding.internal, binding.external
