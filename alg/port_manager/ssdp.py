"""SSDP on one internal interface: says what there is, and answers who searches (UPnP 2.0 §1).

The library has sockets for this, but theirs hear every interface, the external one among them; this
one is bound to its interface. Only what parses as a search is answered, and at once: a network has
one gateway, so there is no storm of answers to spread.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Iterable
from typing import NamedTuple, cast

GROUP, PORT = "239.255.255.250", 1900
MAX_AGE = 1800
SERVER = "Linux UPnP/2.0 sipnat"
_TTL = 2
_MAX_SEARCH = 2048
_SEARCH = "M-SEARCH * HTTP/1.1"
_MEMBERSHIP = struct.Struct("4s4si")  # ip_mreqn of ip(7)


class Offer(NamedTuple):
    """One thing to be found: its type, its unique name, and where it is described."""

    target: str
    name: str
    location: str


def searched(data: bytes, offers: Iterable[Offer]) -> list[Offer]:
    """Returns what a search finds; nothing where this is no search (UPnP 2.0 §1.3.2)."""
    if len(data) > _MAX_SEARCH or not data.isascii():
        return []
    start, *lines = data.decode().split("\r\n")
    pairs = (line.partition(":") for line in lines)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    if start != _SEARCH or headers.get("man") != '"ssdp:discover"':
        return []
    target = headers.get("st", "")
    return [each for each in offers if target in (each.target, "ssdp:all")]


class Ssdp(asyncio.DatagramProtocol):
    """Announces `announced` and finds `hidden` besides, where these are searched for by name.

    `allows` says whether a host may ask once more.
    """

    def __init__(
        self,
        announced: Iterable[Offer],
        hidden: Iterable[Offer],
        boot_id: int,
        allows: Callable[[str], bool],
    ) -> None:
        self._announced = tuple(announced)
        self._hidden = tuple(hidden)
        self._boot_id = boot_id
        self._allows = allows
        self._transport: asyncio.DatagramTransport
        self._repeat: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Announces everything, and again before it is forgotten."""
        self._transport = cast(asyncio.DatagramTransport, transport)
        self._announce()

    def datagram_received(self, data: bytes, source: tuple[str, int]) -> None:
        """Answers a search."""
        if not self._allows(source[0]):
            return
        found = searched(data, self._announced)
        # Who asks for everything must not take the older description for another gateway.
        if not found:
            found = searched(data, (each for each in self._hidden if b"ssdp:all" not in data))
        for offer in found:
            lines = (f"ST: {offer.target}", "EXT:", *self._lines(offer))
            self._transport.sendto(_encode("HTTP/1.1 200 OK", lines), source)

    def error_received(self, error: Exception) -> None:
        """Passes over who does not want the answer."""

    def close(self) -> None:
        """Says that everything is gone."""
        if self._repeat is not None:
            self._repeat.cancel()
        self._notify("ssdp:byebye")
        self._transport.close()

    def _announce(self) -> None:
        self._notify("ssdp:alive")
        self._repeat = asyncio.get_running_loop().call_later(MAX_AGE / 2, self._announce)

    def _notify(self, subtype: str) -> None:
        for offer in self._announced:
            lines = (f"HOST: {GROUP}:{PORT}", f"NT: {offer.target}", f"NTS: {subtype}")
            message = _encode("NOTIFY * HTTP/1.1", (*lines, *self._lines(offer)))
            self._transport.sendto(message, (GROUP, PORT))

    def _lines(self, offer: Offer) -> tuple[str, ...]:
        return (
            f"USN: {offer.name}",
            f"LOCATION: {offer.location}",
            f"CACHE-CONTROL: max-age={MAX_AGE}",
            f"SERVER: {SERVER}",
            f"BOOTID.UPNP.ORG: {self._boot_id}",
            "CONFIGID.UPNP.ORG: 1",
        )


def ssdp_socket(interface: str) -> socket.socket:
    """Returns a socket that hears searches on one interface only; raises OSError."""
    index = socket.if_nametoindex(interface)
    group = _MEMBERSHIP.pack(socket.inet_aton(GROUP), bytes(4), index)
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        made.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
        made.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, group)
        made.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, _TTL)
        made.bind(("", PORT))
    except OSError:
        made.close()
        raise
    return made


def _encode(start: str, lines: Iterable[str]) -> bytes:
    return "\r\n".join((start, *lines, "", "")).encode()
