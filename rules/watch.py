"""What the kernel tells by itself: addresses, links, default routes and forwarding that change.

Nothing is polled. A message says only that something may be different, such as an address whose
lifetime was extended; who hears of it looks anew. The kernel sends many messages about a link that
is up and stays so, so the state of each is kept, and only a change of it is an event.

What is lost in a burst is lost for good: `Overrun` stands for everything that may have happened.
Links are then asked for again.

The loss of our nftables table could be heard of too, but who listens there hears of every element
that we add or delete ourselves, which costs each call more than looking twice a second.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from rules.netlink import OVERRUN, Listener, parse_attributes

_LINKS, _ADDRESSES, _ROUTES, _ADDRESSES6, _ROUTES6, _FORWARDING6 = 1, 5, 7, 9, 11, 25
_NEW_LINK, _DELETED_LINK, _GET_LINK, _NEW_ADDRESS, _DELETED_ADDRESS = 16, 17, 18, 20, 21
_NEW_ROUTE, _DELETED_ROUTE, _NEW_CONFIGURATION = 24, 25, 80
_NAME = 3
_RUNNING = 0x40
_LINK = struct.Struct("=16xB3xiI4x")
_ADDRESS = struct.Struct("=16xB2xBi")
_SCOPE_LINK = 253
_ROUTE = struct.Struct("=16xBB5xB")
_UNICAST = 1
_CONFIGURATION_SIZE, _OF_INDEX, _OF_ALL = 20, 1, b"\xff" * 4  # linux/netconf.h
_ALL_LINKS = bytes(16)


@dataclass(frozen=True, slots=True)
class AddressesChanged:
    """An address of the interface came, went, or was given another lifetime.

    Those of IPv6 that are good on the link alone do not count: every interface has one.
    """

    interface: str


@dataclass(frozen=True, slots=True)
class LinkChanged:
    """The interface can carry packets now, or it cannot or is gone."""

    interface: str
    is_up: bool


@dataclass(frozen=True, slots=True)
class DefaultRouteChanged:
    """A default route came or went: packets may leave by another interface."""


@dataclass(frozen=True, slots=True)
class ForwardingChanged:
    """IPv6 packets are forwarded by now, or no longer."""


@dataclass(frozen=True, slots=True)
class Overrun:
    """Events were lost: everything may have changed."""


Event = AddressesChanged | LinkChanged | DefaultRouteChanged | ForwardingChanged | Overrun


class Watch:
    """Hears of changes in the network namespace of the thread that makes it.

    `fileno` is readable when there are events.
    """

    def __init__(self) -> None:
        self._links: dict[int, LinkChanged] = {}
        groups = (_LINKS, _ADDRESSES, _ROUTES, _ADDRESSES6, _ROUTES6, _FORWARDING6)
        self._listener = Listener(socket.NETLINK_ROUTE, *groups)
        self._ask_for_links()
        self.events()

    def close(self) -> None:
        """Stops listening."""
        self._listener.close()

    def fileno(self) -> int:
        """Returns the descriptor to wait for."""
        return self._listener.fileno()

    def events(self) -> list[Event]:
        """Returns what was heard since the last call, without waiting.

        Equal events count once, where the last of them stands, so that the end of the list is how
        things are now.
        """
        latest: dict[Event, None] = {}
        is_overrun = True
        while is_overrun:
            is_overrun = False
            for event in self._heard():
                latest.pop(event, None)
                latest[event] = None
                is_overrun |= isinstance(event, Overrun)
            if is_overrun:
                self._ask_for_links()
        return list(latest)

    def _heard(self) -> Iterator[Event]:
        for kind, message in self._listener.messages():
            if kind == OVERRUN:
                yield Overrun()
            elif kind in (_NEW_LINK, _DELETED_LINK):
                yield from self._link(kind == _NEW_LINK, message)
            elif kind in (_NEW_ADDRESS, _DELETED_ADDRESS):
                family, scope, index = _ADDRESS.unpack_from(message)
                is_of_link = family == socket.AF_INET6 and scope == _SCOPE_LINK
                if index in self._links and not is_of_link:
                    yield AddressesChanged(self._links[index].interface)
            elif kind in (_NEW_ROUTE, _DELETED_ROUTE):
                family, length, kind = _ROUTE.unpack_from(message)
                if family in (socket.AF_INET, socket.AF_INET6) and (length, kind) == (0, _UNICAST):
                    yield DefaultRouteChanged()
            elif kind == _NEW_CONFIGURATION:
                attributes = dict(parse_attributes(message, _CONFIGURATION_SIZE))
                if attributes[_OF_INDEX] == _OF_ALL:
                    yield ForwardingChanged()

    def _link(self, stands: bool, message: bytes) -> Iterator[LinkChanged]:
        family, index, flags = _LINK.unpack_from(message)
        if family != socket.AF_UNSPEC:  # the link as a bridge's port
            return
        name = dict(parse_attributes(message, _LINK.size))[_NAME].rstrip(b"\0").decode()
        before = self._links.pop(index, LinkChanged(name, False))
        after = LinkChanged(name, stands and bool(flags & _RUNNING))
        if stands:
            self._links[index] = after
        if before.is_up and before.interface != name:
            yield LinkChanged(before.interface, False)
        if after != before:
            yield after

    def _ask_for_links(self) -> None:
        self._links.clear()
        self._listener.ask(_GET_LINK, _ALL_LINKS)
