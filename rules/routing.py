"""Policy routing for the relay: packets with its mark are for this machine, whoever they name.

One rule for each interface leads marked packets that come in by it to a table whose only route is
local. The interface is named because of `src_valid_mark`: with that the search for the way back to
the sender heeds the mark too, and would end in the same table. The rules come before those of an
admin, which must not lead such packets elsewhere.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from pyroute2 import IPRoute, NetlinkError

from rules.netlink import KernelRefused
from rules.rtnetlink import T, with_routes
from rules.settings import Settings

_LOOPBACK = 1
_PRIORITY = 50
_ANYWHERE: dict[int, str] = {socket.AF_INET: "0.0.0.0/0", socket.AF_INET6: "::/0"}


class Rule(NamedTuple):
    """What pyroute2 must be told of a rule."""

    family: int
    iifname: str
    fwmark: int
    fwmask: int
    table: int
    priority: int = _PRIORITY


def install(settings: Settings) -> None:
    """Adds the rules and the route that are missing; raises KernelRefused."""
    _follow(settings, set(_wanted(settings)))


def is_installed(settings: Settings) -> bool:
    """Tells whether all rules stand; raises KernelRefused."""
    wanted = set(_wanted(settings))
    return not wanted or wanted <= _with_routes(lambda routes: set(_standing(routes, settings)))


def remove(settings: Settings) -> None:
    """Removes every rule that leads to our table, and what is in it; raises KernelRefused."""
    _follow(settings, set())


def _follow(settings: Settings, wanted: set[Rule]) -> None:
    def change(routes: IPRoute) -> None:
        standing = set(_standing(routes, settings))
        families, former = ({rule.family for rule in rules} for rules in (wanted, standing))
        for family in families:
            routes.route("replace", **_route(family, settings))
        for rule in wanted - standing:
            routes.rule("add", **rule._asdict())
        for rule in standing - wanted:
            routes.rule("delete", **rule._asdict())
        for family in former - families:
            routes.flush_routes(family=family, table=settings.routing_table)

    _with_routes(change)


def _wanted(settings: Settings) -> Iterator[Rule]:
    if not settings.relay_port:
        return
    families = [socket.AF_INET]
    if settings.is_relaying6:
        families.append(socket.AF_INET6)
    mark = settings.relay_mark
    for interface in (*settings.internal_interfaces, settings.external_interface):
        for family in families:
            yield Rule(family, interface, mark, mark, settings.routing_table)


def _standing(routes: IPRoute, settings: Settings) -> list[Rule]:
    return [
        Rule(
            rule["family"],
            rule.get_attr("FRA_IIFNAME"),
            rule.get_attr("FRA_FWMARK"),
            rule.get_attr("FRA_FWMASK"),
            settings.routing_table,
            rule.get_attr("FRA_PRIORITY"),
        )
        for rule in routes.get_rules(family=socket.AF_UNSPEC)
        if rule.get_attr("FRA_TABLE") == settings.routing_table
    ]


def _route(family: int, settings: Settings) -> dict[str, Any]:
    return {
        "family": family,
        "dst": _ANYWHERE[family],
        "type": "local",
        "scope": "host",
        "oif": _LOOPBACK,
        "table": settings.routing_table,
    }


def _with_routes(work: Callable[[IPRoute], T]) -> T:
    try:
        return with_routes(work)
    except NetlinkError as error:
        raise KernelRefused(error.code, "policy routing") from error
