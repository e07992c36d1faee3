"""Requests for mappings by whom they must not serve: forged, replayed, or of the other side."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from alg.port_manager import pcp
from alg.port_manager.pcp import Opcode, Request
from nat_table.endpoint import Endpoint
from tests.lab.agents import wait_until
from tests.lab.gateway import Gateway
from tests.lab.namespace import Namespace
from tests.lab.network import PHONE_1, Network
from tests.netns.pcp_client import NONCE, SILENCE, PcpClient

pytestmark = [pytest.mark.netns, pytest.mark.timeout(60)]


@pytest.fixture
def guest(network: Network) -> Iterator[Namespace]:
    """Yields a host on a second internal interface, which has the first phone's address besides."""
    with Namespace("guest") as guest:
        join = ("peer", "name", "eth0", "netns", guest.name)
        network.router.run("ip", "link", "add", "lan1", "type", "veth", *join)
        for namespace, interface, address in (
            (network.router, "lan1", "10.0.9.1/24"),
            (guest, "eth0", "10.0.9.20/24"),
            (guest, "eth0", f"{PHONE_1}/32"),
        ):
            namespace.run("ip", "address", "add", address, "dev", interface)
            namespace.run("ip", "link", "set", interface, "up")
        yield guest


def test_nobody_asks_by_another_interface_than_his_own(network: Network, guest: Namespace) -> None:
    """A guest must not open ports of the office by writing its addresses."""
    with (
        Gateway(network.router, "--internal", "lan1", upnp=True) as gateway,
        PcpClient(guest, "10.0.9.20", "10.0.9.1") as himself,
        PcpClient(guest, PHONE_1, "10.0.9.1") as forger,
    ):
        assert wait_until(lambda: himself.send(b"\0\0", 0.1) is not None, 5.0)
        himself.map(4000)
        body = pcp.Body(NONCE, 17, 4000, Endpoint("0.0.0.0", 0))
        forged = pcp.encode_request(Request(Opcode.MAP, PHONE_1, 600, body))
        assert forger.send(forged, SILENCE) is None
        assert forger.send(b"\0\1\0\0\x0f\xa0\0\0\0\0\2\0", SILENCE) is None
        with guest.tcp_socket(PHONE_1) as web, pytest.raises(OSError):
            web.settimeout(2.0)
            web.connect(("10.0.9.1", 2869))
            web.sendall(b"GET /1/device.xml HTTP/1.1\r\nHost: 10.0.9.1:2869\r\n\r\n")
            assert not web.recv(1), "it was served"
            raise ConnectionResetError
        (row,) = gateway.show_mappings()
        assert row["internal"] == "10.0.9.20:4000"
