"""A phone's socket that the router's own masquerade has given another port than its own."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager

from nat_table.behavior import Behavior
from nat_table.endpoint import Endpoint
from tests.lab.network import EXTERNAL, PHONE_1, PHONE_2, Network
from tests.lab.stun import StunServer, probe

FENCE = Behavior().fence


@contextmanager
def masqueraded(
    network: Network, stun_server: StunServer
) -> Iterator[tuple[socket.socket, int, Endpoint]]:
    """Yields a phone's socket, its port, and the other port that masquerade has drawn for it.

    Because a neighbour has that port already. Masquerade draws from all ports; one within the fence
    no mapping can have, for a flow without a mapping may be moved onto it at any time.
    """
    for port in range(4500, 4600, 2):
        with (
            closing(network.lan.udp_socket(PHONE_2, port)) as neighbour,
            closing(network.lan.udp_socket(PHONE_1, port)) as phone,
        ):
            assert probe(neighbour, stun_server.endpoint).port == port
            seen = probe(phone, stun_server.endpoint)
            assert seen != Endpoint(EXTERNAL, port), "masquerade must have drawn another port"
            if seen.port < FENCE[0]:
                yield phone, port, seen
                return
    raise AssertionError("masquerade draws from the fence only")
