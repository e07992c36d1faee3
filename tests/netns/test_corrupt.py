"""Messages that were damaged on their way do not leave as good ones."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Raw

from nat_table.endpoint import Endpoint
from tests.alg.playbook import invite, sdp
from tests.lab.agents import receive_all
from tests.lab.gateway import Gateway
from tests.lab.network import PHONE_1, SERVER, SERVER6, Network
from tests.netns.frames import send_raw
from tests.netns.kernel6 import LOCAL_1, MASQUERADE6, network_in

pytestmark = pytest.mark.netns

WRONG = 0x1234


@pytest.fixture
def network() -> Iterator[Network]:
    with network_in("nat66", MASQUERADE6) as network:
        yield network


@pytest.mark.parametrize(
    ("header", "phone", "server"), [(IP, PHONE_1, SERVER), (IPv6, LOCAL_1, SERVER6)]
)
def test_a_wrong_checksum_is_not_put_right(
    network: Network, gateway: Gateway, header: type[IP | IPv6], phone: str, server: str
) -> None:
    me, target = Endpoint(phone, 5060), Endpoint(server, 5060)
    datagram = UDP(sport=me.port, dport=target.port) / Raw(invite(me, sdp(phone, 4000)))
    whole = header(src=phone, dst=server) / datagram
    wrong = whole.copy()
    wrong[UDP].chksum = WRONG
    with network.wan.udp_socket(*target) as listener:
        send_raw(network.lan, [bytes(wrong)], target)
        assert receive_all(listener, quiet=0.3) == []
        assert gateway.show_mappings() == []
        send_raw(network.lan, [bytes(whole)], target)
        assert len(receive_all(listener, quiet=0.3)) == 1
        assert len(gateway.show_mappings("rtp")) == 1
