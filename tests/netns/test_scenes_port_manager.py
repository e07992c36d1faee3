"""A client that asks for its mappings over the control socket, and a phone beside it that does not.

The client's messages name the external endpoints from the start, so none of their bytes may change
on the way: what is captured on the router's two sides is compared.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest
from scapy.layers.inet import IP, UDP

from alg.port_manager import (
    GatewayFailed,
    InvalidEndpoint,
    Mapping,
    NoMapping,
    NotAuthorized,
    PortManager,
    PortType,
    Transport,
)
from nat_table.endpoint import Endpoint
from tests.lab.agents import SipAgent, wait_until
from tests.lab.gateway import SIPNAT, Gateway
from tests.lab.message import Message
from tests.lab.namespace import RECEIVE_BUFFER, SO_RCVBUFFORCE, Namespace
from tests.lab.network import (
    EXTERNAL,
    EXTERNAL_INTERFACE,
    INTERNAL_INTERFACE,
    LAN_ROUTER,
    PHONE_1,
    PHONE_2,
    REMOTE_1,
    SERVER,
    Network,
)
from tests.lab.rtp import RtpStream
from tests.lab.sdp import media_endpoint, render_sdp
from tests.lab.site import PROXY, SERVER_MEDIA_2, Conversation, Site
from tests.netns.calls import check_audio, hears
from tests.netns.frames import ETHERNET_HEADER, sniffing

pytestmark = [pytest.mark.netns, pytest.mark.timeout(90)]

UDP_ = Transport.UDP
FAR_MEDIA = Endpoint(REMOTE_1, 30000)


class AskingAgent(SipAgent):
    """An agent that writes its external endpoints, whatever its sockets are bound to."""

    def __init__(self, namespace: Namespace, sip: Mapping, rtp: Mapping) -> None:
        super().__init__(namespace, "asking", *sip.internal, proxy=PROXY)
        self.endpoint, self.media = sip.external, rtp.external
        self.contact = f"<sip:{self.user}@{self.endpoint}>"


class Captures:
    """What has come to the router, and what has left it, on each of its sides."""

    def __init__(self, sniffers: dict[str, socket.socket], sip: Mapping) -> None:
        self._sniffers = sniffers
        self._sip = sip

    def check_that_nothing_was_changed(self, messages: int) -> None:
        """Compares what the client sent and got with what the server got and sent."""
        sent = self._payloads("from client", SERVER, source=self._sip.internal.port)
        left = self._payloads("to server", SERVER, source=self._sip.external.port)
        came = self._payloads("from server", EXTERNAL, target=self._sip.external.port)
        got = self._payloads("to client", PHONE_1, target=self._sip.internal.port)
        assert sent == left and came == got
        assert len(sent) + len(came) >= messages

    def _payloads(
        self, sniffer: str, address: str, *, source: int = 0, target: int = 0
    ) -> list[bytes]:
        """Returns what has come by to an address, without the audio that still flows."""
        packets = [IP(frame[ETHERNET_HEADER:]) for frame in list(self._frames(sniffer))]
        return [
            bytes(packet[UDP].payload)
            for packet in packets
            if packet.dst == address and UDP in packet
            if packet[UDP].sport == source or packet[UDP].dport == target
        ]

    def _frames(self, sniffer: str) -> Iterator[bytes]:
        captured = self._sniffers[sniffer]
        captured.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                yield captured.recv(1 << 16)


@contextmanager
def capturing(network: Network, sip: Mapping) -> Iterator[Captures]:
    """Yields what is captured from now on."""
    places = {
        "from client": (network.router, INTERNAL_INTERFACE),
        "to server": (network.wan, "eth0"),
        "from server": (network.router, EXTERNAL_INTERFACE),
        "to client": (network.lan, "eth0"),
    }
    with ExitStack() as stack:
        sniffers = {name: stack.enter_context(sniffing(*place)) for name, place in places.items()}
        for sniffer in sniffers.values():
            sniffer.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER)
        yield Captures(sniffers, sip)


def sipnat(network: Network, gateway: Gateway, *arguments: str) -> str:
    return network.router.run(SIPNAT, *arguments, "--control", gateway.control)


def externals(gateway: Gateway, host: str) -> set[str]:
    """Returns the external endpoints of a host's mappings."""
    rows = gateway.show_mappings()
    return {row["external"] for row in rows if row["internal"].startswith(f"{host}:")}


def call_ordinarily(site: Site) -> tuple[Message, Conversation]:
    """Has phone 2, which asks for nothing, register and call with audio."""
    site.register(site.phone_2)
    sent, offer = site.call_out(site.phone_2, answer=site.server.offer(media=SERVER_MEDIA_2))
    assert offer.raw != sent.raw
    return sent, site.talk(site.phone_2, offer, SERVER_MEDIA_2)


@pytest.mark.parametrize(
    "media_filter",
    [
        pytest.param(name, marks=pytest.mark.configured(media_filter=name))
        for name in ("endpoint-independent", "address-dependent")
    ],
)
def test_A17_a_client_repeats_the_classic_flow_over_the_api_alone(
    network: Network, gateway: Gateway, site: Site, media_filter: str
) -> None:
    server = site.server
    ordinary, beside = call_ordinarily(site)
    with PortManager.at(gateway.control, host=PHONE_1) as ports, ExitStack() as stack:
        sip = ports.get_mapping(PROXY, UDP_, PortType.SIP)
        rtp = ports.get_mapping(PROXY, UDP_, PortType.RTP)
        rtcp = ports.get_mapping(PROXY, UDP_, PortType.RTCP)
        assert rtcp.external == rtp.external._replace(port=rtp.external.port + 1)
        assert externals(gateway, PHONE_1) == {str(each.external) for each in (sip, rtp, rtcp)}
        captures = stack.enter_context(capturing(network, sip))
        client = stack.enter_context(AskingAgent(network.lan, sip, rtp))
        near = stack.enter_context(RtpStream(network.lan, rtp.internal))
        far = stack.enter_context(RtpStream(network.wan, FAR_MEDIA))
        far_rtcp = stack.enter_context(RtpStream(network.wan, FAR_MEDIA._replace(port=30001)))
        near_rtcp = stack.enter_context(RtpStream(network.lan, rtcp.internal))

        site.register(client)
        sent, arrived = site.call_out(client, answer=render_sdp(FAR_MEDIA))
        assert media_endpoint(arrived.body) == rtp.external
        far.send_to(rtp.external)
        is_open = media_filter == "endpoint-independent"
        assert wait_until(lambda: far.sent > 20, 5.0)
        assert (near.received > 0) == is_open
        ports.update_remote_address(rtp, FAR_MEDIA)
        ports.update_remote_address(rtcp, FAR_MEDIA._replace(port=30001))
        assert hears(near, FAR_MEDIA)
        far_rtcp.send_to(rtcp.external)
        assert hears(near_rtcp, far_rtcp.endpoint)
        near.send_to(FAR_MEDIA)
        talk = Conversation(near, far, rtp.external)
        assert talk.flows_on()
        assert set(far.sources) == {rtp.external}

        site.hang_up(client, server, sent)
        called, _ = site.call_in(client)
        site.hang_up(server, client, called)
        captures.check_that_nothing_was_changed(messages=14)
        assert {row["source"] for row in gateway.show_mappings() if PHONE_1 in row["internal"]} == {
            "api"
        }
        for mapping in (rtp, rtcp, sip):
            ports.release_mapping(mapping)
        assert externals(gateway, PHONE_1) == set()
    check_audio(beside)
    site.hang_up(site.phone_2, server, ordinary)
    assert externals(gateway, PHONE_2) == {f"{EXTERNAL}:5060"}


def test_leases_outlive_the_daemon_and_end_by_themselves(
    network: Network, gateway: Gateway
) -> None:
    ports = PortManager.at(gateway.control, host=PHONE_1)
    rtp = ports.get_mapping(PROXY, UDP_, PortType.RTP)
    sip = ports.get_mapping(None, Transport.TLS, PortType.SIP)
    before = gateway.show_mappings()
    assert {row["kind"] for row in before} == {"rtp", "rtcp", "any"}
    gateway.stop()
    gateway.start()
    after = gateway.show_mappings()
    assert [row | {"expires_in": 0} for row in after] == [row | {"expires_in": 0} for row in before]
    assert ports.renew() == {}
    shortly = PortManager.at(gateway.control, host=PHONE_1, lifetime=2)
    assert shortly.get_mapping(PROXY, UDP_, PortType.RTP, rtp.internal) == rtp
    ports.release_mapping(sip)
    assert wait_until(lambda: gateway.show_mappings() == [], 10.0)


def test_errors_have_their_names_over_the_socket_too(network: Network, gateway: Gateway) -> None:
    ports = PortManager.at(gateway.control, host=PHONE_1)
    sip = ports.get_mapping(PROXY, UDP_, PortType.SIP, Endpoint(PHONE_1, 5060))
    for address, port, error in (
        (LAN_ROUTER, 5060, NotAuthorized),
        (EXTERNAL, 5060, NotAuthorized),
        (PHONE_1, 1023, NotAuthorized),
        (SERVER, 5060, InvalidEndpoint),
        ("10.0.0.255", 5060, InvalidEndpoint),
        ("239.0.0.1", 5060, InvalidEndpoint),
    ):
        with pytest.raises(error):
            ports.get_mapping(PROXY, UDP_, PortType.SIP, Endpoint(address, port))
    ports.release_mapping(sip)
    with pytest.raises(NoMapping):
        ports.update_remote_address(sip, PROXY)
    assert gateway.show_mappings() == []
    gateway.stop()
    with pytest.raises(GatewayFailed, match="no sipnat is running"):
        ports.get_mapping(PROXY, UDP_, PortType.SIP)


def test_a_script_maps_updates_lists_and_releases(network: Network, gateway: Gateway) -> None:
    media = ("--internal", f"{PHONE_1}:4000")
    table = sipnat(
        network, gateway, "map", "add", *media, "--type", "rtp", "--remote", str(PROXY)
    ).splitlines()
    assert [line.split()[:3] for line in table[1:]] == [
        ["rtp/udp", f"{PHONE_1}:4000", f"{EXTERNAL}:4000"],
        ["rtcp/udp", f"{PHONE_1}:4001", f"{EXTERNAL}:4001"],
    ]
    [updated] = json.loads(
        sipnat(network, gateway, "map", "update", *media, "--remote", str(FAR_MEDIA), "--json")
    )
    listed = json.loads(sipnat(network, gateway, "map", "list", "--json"))
    assert updated in [row | {"expires_in": updated["expires_in"]} for row in listed]
    assert [row["remote"] for row in listed] == [str(FAR_MEDIA), str(PROXY)]
    assert gateway.show("mappings").splitlines()[1].split()[-1] == "api"
    with pytest.raises(RuntimeError, match=r"external port 4000 cannot be had$"):
        other = ("--internal", f"{PHONE_2}:4000", "--type", "sip", "--external", "4000")
        sipnat(network, gateway, "map", "add", *other)
    sipnat(network, gateway, "map", "release", *media)
    sipnat(network, gateway, "map", "release", "--internal", f"{PHONE_1}:4001")
    with pytest.raises(RuntimeError, match=r"sipnat: .* has no udp mapping by api$"):
        sipnat(network, gateway, "map", "release", *media)
    assert sipnat(network, gateway, "map", "list") == "no mappings\n"
