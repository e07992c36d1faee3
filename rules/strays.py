"""Flows of others that hold an endpoint of a mapping, and so would keep packets from it.

 - the internal endpoint as original or reply source: the phone's own flow, masqueraded, or brought
   in by a port forward;
 - the external endpoint as original or reply destination: an early packet that ended at the router
   itself, or somebody else's flow masqueraded onto that port.

The ruleset notes such endpoints in the set `strays` packet by packet, and `install` those of flows
older than the ruleset. What NAT makes of a first packet is not known yet, so there the port is
noted that it most often keeps; any other is by the second, in either direction. Until then a flow
that was given another port is missed, and in the way only of the very remote that it was sent to.
TCP is not noted: its endpoints are always searched. The relay's are not, for it needs no NAT: flows
that are older than its mapping go on beside it.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator

from nat_table.binding import Binding, Kind
from nat_table.endpoint import Transport, is_ipv6
from rules.conntrack import End, Flow, Side
from rules.elements import STRAYS, Element, is_relayed, of_family, pack_endpoint
from rules.settings import Settings


def stray(endpoint: bytes) -> Element:
    """Returns the element of a packed endpoint."""
    return Element(of_family(STRAYS, endpoint), endpoint)


def suspects(binding: Binding, settings: Settings) -> Iterator[tuple[End, End]]:
    """Yields, for each endpoint, the sides on which a stranger's flow would hold it."""
    if is_relayed(binding, settings):
        return
    transport, internal, external = binding.transport, binding.internal, binding.external
    yield (
        End(Side.ORIGINAL_SOURCE, transport, internal),
        End(Side.REPLY_SOURCE, transport, internal),
    )
    yield (
        End(Side.ORIGINAL_DESTINATION, transport, external),
        End(Side.REPLY_DESTINATION, transport, external),
    )


def used(bindings: Iterable[Binding], strays: Container[bytes], settings: Settings) -> list[End]:
    """Returns the ends that must be searched, given all packed endpoints that are noted."""
    return [
        end
        for binding in bindings
        for suspect in suspects(binding, settings)
        if binding.transport is not Transport.UDP or pack_endpoint(suspect[0].endpoint) in strays
        for end in suspect
    ]


def own_ends(bindings: Iterable[Binding]) -> list[End]:
    """Returns where flows of the bindings themselves hold their external endpoints."""
    return [
        End(side, binding.transport, binding.external)
        for binding in bindings
        for side in (Side.ORIGINAL_DESTINATION, Side.REPLY_DESTINATION)
    ]


def is_swept(binding: Binding) -> bool:
    """Tells whether all flows of a binding are UDP over IPv4 and have our mark on them.

    Who has asked for a mapping does not have it: that would open the firewall from inside.
    """
    is_udp = binding.transport is Transport.UDP
    return is_udp and binding.kind is not Kind.ANY and not is_ipv6(binding.external.address)


def inbound_ends(bindings: Iterable[Binding]) -> list[End]:
    """Returns where flows that remotes have begun hold the external endpoints of bindings."""
    return [End(Side.ORIGINAL_DESTINATION, each.transport, each.external) for each in bindings]


def stray_ends(flow: Flow, own_addresses: Container[bytes]) -> Iterator[bytes]:
    """Yields the endpoints of an unmapped flow that a mapping could want."""
    yield flow.original_source
    if flow.reply_destination != flow.original_source:
        yield flow.reply_destination
    if flow.original_destination[:-4] in own_addresses:
        yield flow.original_destination
    if flow.reply_source != flow.original_destination:
        yield flow.reply_source
