"""Signalling peers: who may send to a phone within one dialog, and who is believed.

A peer is whoever the phone itself sends to, and whom such a peer names: the host of its Contact and
of its topmost Record-Route, because requests within a dialog may bypass the proxy (RFC 3261 §12.2).
Addresses count, ports do not: one endpoint stands for each address, so that a peer that is met
again changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from alg.sip.header_line import CONTACT, RECORD_ROUTE, HeaderLine
from alg.sip.message import SipMessage
from nat_table.endpoint import Endpoint, is_ipv6

MAX_PEERS = 8

Peers = tuple[Endpoint, ...]


def join_peers(known: Peers, others: Iterable[Endpoint]) -> Peers:
    """Returns the peers with the others before them, whose addresses are not known yet.

    Where there are none such it returns what was known, the very same.
    Of too many the oldest go, but never the very first, which is the phone's own choice.
    """
    new: list[Endpoint] = []
    for other in others:
        if not is_peer(known, other[0]) and not is_peer(new, other[0]):
            new.append(other)
    if not new:
        return known
    joined = (*new, *known)
    return joined if len(joined) <= MAX_PEERS else (*joined[: MAX_PEERS - 1], joined[-1])


def is_peer(peers: Sequence[Endpoint], address: str) -> bool:
    """Whether the address is one of the peers'."""
    for peer in peers:  # noqa: SIM110 (a generator is dear, and this is asked for every message)
        if peer[0] == address:
            return True
    return False


def named_peers(message: SipMessage, remote: Endpoint) -> list[Endpoint]:
    """Returns the endpoints of the first Contact and Record-Route that name a numeric host.

    Only those of the remote's family: others do not send to a mapping that the remote sends to.
    """
    found: list[Endpoint] = []
    contact: Endpoint | None = None
    route: Endpoint | None = None
    for line in message.lines:
        if line.kind == CONTACT and contact is None:
            contact = _near(line, remote)
            if contact is not None:
                found.append(contact)
        elif line.kind == RECORD_ROUTE and route is None:
            route = _near(line, remote)
            if route is not None:
                found.append(route)
    return found


def _near(line: HeaderLine, remote: Endpoint) -> Endpoint | None:
    """Returns the first endpoint of a field, if it is one of the remote's family."""
    endpoint = line.first_endpoint()
    if endpoint is None or is_ipv6(endpoint[0]) is not is_ipv6(remote[0]):
        return None
    return endpoint
