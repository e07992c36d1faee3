"""Signalling peers: who may send to a phone within one dialog, and who is believed.

A peer is whoever the phone itself sends to, and whom such a peer names: the host of its Contact and
of its topmost Record-Route, because requests within a dialog may bypass the proxy (RFC 3261 §12.2).
Addresses count, ports do not: one endpoint stands for each address, so that a peer that is met
again changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

from alg.sip.host import canonical_host, unicast_address
from alg.sip.message import SipMessage
from alg.sip.name_addr import parse_name_addrs
from alg.sip.uri import parse_uri
from nat_table.endpoint import Endpoint, is_one_family

MAX_PEERS = 8

Peers = tuple[Endpoint, ...]

_NAMING = ("contact", "record-route")


def join_peers(known: Peers, others: Iterable[Endpoint]) -> Peers:
    """Returns the peers with the others before them, whose addresses are not known yet.

    Of too many the oldest go, but never the very first, which is the phone's own choice.
    """
    addresses = {peer.address for peer in known}
    new: dict[str, Endpoint] = {}
    for other in others:
        if other.address not in addresses:
            new.setdefault(other.address, other)
    joined = (*new.values(), *known)
    return joined if len(joined) <= MAX_PEERS else (*joined[: MAX_PEERS - 1], joined[-1])


def is_peer(peers: Peers, address: str) -> bool:
    """Whether the address is one of the peers'."""
    return any(peer.address == address for peer in peers)


def named_peers(message: SipMessage, remote: Endpoint) -> list[Endpoint]:
    """Returns the endpoints of the first Contact and Record-Route that name a numeric host.

    Only those of the remote's family: others do not send to a mapping that the remote sends to.
    """
    found: dict[str, Endpoint] = {}
    for name, start, end in message.fields:
        if name in _NAMING and name not in found:
            endpoint = _endpoint(message.data, start, end)
            if endpoint is not None and is_one_family(endpoint, remote):
                found[name] = endpoint
    return list(found.values())


def _endpoint(data: bytes, start: int, end: int) -> Endpoint | None:
    try:
        value = next(parse_name_addrs(data, start, end))
    except ValueError:
        return None
    uri = parse_uri(data, *value.uri)
    address = uri and unicast_address(canonical_host(data[uri.host.start : uri.host.end]))
    if not uri or not address:
        return None
    port = int(data[uri.port.start : uri.port.end]) if uri.port else uri.default_port
    return Endpoint(address, port)
