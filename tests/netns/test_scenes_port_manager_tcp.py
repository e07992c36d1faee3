"""A client that asks for TCP and TLS: who may connect, by which way, and what is read."""

from __future__ import annotations

import pytest

from alg.port_manager import PortManager, PortType, Transport
from nat_table.endpoint import Endpoint
from tests.alg.playbook import request
from tests.lab.agents import wait_until
from tests.lab.gateway import Gateway
from tests.lab.network import PHONE_1, REMOTE_1, REMOTE_2, SERVER, Network
from tests.lab.site import PROXY
from tests.netns.connections import (
    check_passes,
    check_silent,
    connected,
    listening,
)
from tests.netns.streams import Stream

pytestmark = [pytest.mark.netns, pytest.mark.timeout(60)]

FROM_SERVER = Endpoint(SERVER, 40000)
FROM_STRANGER = Endpoint(REMOTE_1, 40000)
OTHER = Endpoint(REMOTE_2, 5060)


def over_tcp(message: bytes) -> bytes:
    return message.replace(b"SIP/2.0/UDP", b"SIP/2.0/TCP")


def test_A17_sip_over_tcp_is_relayed_to_who_asked_for_it_as_it_is(
    network: Network, gateway: Gateway
) -> None:
    with PortManager.at(gateway.control, host=PHONE_1) as ports:
        sip = ports.get_mapping(PROXY, Transport.TCP, PortType.SIP)
        with listening(network.lan, sip.internal) as listener:
            check_silent(network.wan, FROM_STRANGER, sip.external)
            with connected(network.wan, FROM_SERVER, sip.external) as server:
                phone = Stream(listener.accept()[0])
                uri = f"sip:phone@{sip.external};transport=tcp"
                asked = over_tcp(request("OPTIONS", FROM_SERVER, uri=uri))
                server.sendall(asked)
                assert phone.expect().raw == asked
                answered = over_tcp(request("OPTIONS", sip.external, call_id="another"))
                phone.send(answered)
                assert Stream(server).expect().raw == answered
                phone.close()
        ports.release_mapping(sip)
        assert wait_until(lambda: gateway.show_mappings() == [], 10.0)


def test_tls_passes_the_kernel_alone_for_the_remote_that_was_named(
    network: Network, gateway: Gateway
) -> None:
    with PortManager.at(gateway.control, host=PHONE_1) as ports:
        tls = ports.get_mapping(PROXY, Transport.TLS, PortType.SIP)
        with listening(network.lan, tls.internal) as listener:
            check_silent(network.wan, FROM_STRANGER, tls.external)
            with connected(network.wan, FROM_SERVER, tls.external) as server:
                accepted, peer = listener.accept()
                with accepted:
                    assert Endpoint(*peer) == FROM_SERVER
                    check_passes(server, accepted)
                    assert gateway.show_connections() == []
            ports.update_remote_address(tls, OTHER)
            check_silent(network.wan, FROM_SERVER._replace(port=40001), tls.external)
            with connected(network.wan, Endpoint(REMOTE_2, 40000), tls.external):
                listener.accept()[0].close()
        ports.release_mapping(tls)
        assert gateway.show_mappings() == []
