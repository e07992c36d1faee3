"""Messages that outgrow an IPv6 link arrive whole, as if their sender had sent them.

The gateway's part is played by a listener that makes every message larger and sends it anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import netfilterqueue
import pytest

from alg.io.resend import send_anew
from alg.packet import decode_packet, encode_packet
from nat_table.binding import Kind
from nat_table.changes import Admitted, Opened
from rules.settings import Settings
from tests.lab.network import SERVER6, Network
from tests.netns.kernel import Peer, install
from tests.netns.kernel6 import (
    FIREWALL,
    LOCAL_1,
    MASQUERADE6,
    NAT66,
    NPTV6,
    ROUTED,
    ROUTED_1,
    Bind,
    mapped,
    network_in,
    routed,
    translated,
)

pytestmark = pytest.mark.netns

GROWTH = b"x" * 2000

SITES: dict[str, tuple[Settings, str, Callable[[], Opened]]] = {
    "pinhole": (ROUTED, FIREWALL, lambda: routed(ROUTED_1, Kind.SIP)),
    "nat66": (NAT66, MASQUERADE6, lambda: mapped(LOCAL_1, kind=Kind.SIP)),
    "nptv6": (NPTV6, FIREWALL, lambda: translated(LOCAL_1, Kind.SIP)),
}


@pytest.fixture(params=SITES)
def site(request: pytest.FixtureRequest) -> tuple[Settings, str, Callable[[], Opened]]:
    return SITES[request.param]


@pytest.fixture
def network(site: tuple[Settings, str, Callable[[], Opened]]) -> Iterator[Network]:
    settings, rules, _ = site
    with network_in(settings.mode6.value, rules) as network:
        yield network


@pytest.mark.parametrize("first", ["out", "in"])
def test_A71_messages_grow_past_the_mtu_in_both_directions(
    site: tuple[Settings, str, Callable[[], Opened]], network: Network, bind: Bind, first: str
) -> None:
    settings, _, change = site
    backend = install(network, settings)
    mapping = change().binding
    backend.commit([change()])
    if first == "in":
        backend.commit([Admitted(mapping, SERVER6)])
    phone, server = bind(mapping.internal.address), bind(SERVER6)

    def grow(queued: netfilterqueue.Packet) -> None:
        packet = decode_packet(queued.get_payload())
        larger = encode_packet(packet, packet.payload + GROWTH, 0)[packet.header_length :]
        mark = settings.queue_mark
        network.router.call(lambda: send_anew(packet, larger, queued.outdev, mark))
        queued.drop()

    busy = network.router.udp_socket("::", 4000)  # the router's own, which is in nobody's way
    queue = network.router.call(netfilterqueue.NetfilterQueue)
    queue.bind(settings.queue_number, grow)

    def pass_(sender: Peer, target: tuple[str, int], receiver: Peer, source: object) -> None:
        sender.send(b"message ", *target)
        time.sleep(0.05)
        queue.run(block=False)
        assert receiver.expect(b"message " + GROWTH) == source

    def outwards() -> None:
        pass_(phone, (SERVER6, 4000), server, mapping.external)

    def inwards() -> None:
        pass_(server, mapping.external, phone, (SERVER6, 4000))

    try:
        for turn in (outwards, inwards, outwards) if first == "out" else (inwards, outwards) * 2:
            turn()
    finally:
        queue.unbind()
        busy.close()
    other = bind(SERVER6, 5061)
    other.send(b"known by now", *mapping.external)
    assert phone.expect(b"known by now") == (SERVER6, 5061)
