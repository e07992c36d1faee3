"""Whole calls whose signalling or media goes over TCP, through the real gateway."""

from __future__ import annotations

import socket
import time

import pytest

from nat_table.endpoint import Endpoint
from tests.lab.agents import wait_until
from tests.lab.gateway import Gateway
from tests.lab.message import bare_uri, uri_endpoint
from tests.lab.network import EXTERNAL, PHONE_1, REMOTE_1, REMOTE_2, SERVER, Network
from tests.lab.sdp import media_endpoint, render_sdp
from tests.lab.site import PROXY, SERVER_MEDIA_1, SERVER_MEDIA_2, Site
from tests.netns.calls import check_audio, media_is_released
from tests.netns.connections import check_refused, connected, listening

pytestmark = [pytest.mark.netns, pytest.mark.timeout(90)]

LISTENING = Endpoint(PHONE_1, 7394)


def messages(where: Endpoint, setup: str) -> bytes:
    """Renders a description of audio, and of messages over TCP (RFC 4975)."""
    lines = (
        f"m=message {where.port} TCP/MSRP *",
        f"a=setup:{setup}",
        "a=accept-types:text/plain",
        f"a=path:msrp://{where}/s1;tcp",
        "",
    )
    return render_sdp(Endpoint(where.address, 4000)) + "\r\n".join(lines).encode()


def listens_at(body: bytes) -> Endpoint:
    """Returns where a description says that messages are taken."""
    audio, _, _ = body.partition(b"m=message")
    return Endpoint(media_endpoint(audio).address, int(body.partition(b"m=message ")[2].split()[0]))


def say(network: Network, source: str, where: Endpoint, listener: socket.socket) -> Endpoint:
    """Has somebody outside connect and both ends say something; returns whom the phone sees."""
    with connected(network.wan, Endpoint(source, 0), where) as far:
        near, peer = listener.accept()
        with near:
            near.settimeout(5.0)
            far.sendall(b"MSRP 1 SEND")
            assert near.recv(64) == b"MSRP 1 SEND"
            near.sendall(b"MSRP 1 200 OK")
            assert far.recv(64) == b"MSRP 1 200 OK"
            assert far.getsockname()[1] == peer[1]
    return Endpoint(*peer)


def test_a68_calls_by_connections_have_the_audio_of_any_call(
    network: Network, gateway: Gateway
) -> None:
    with Site(network, transport="tcp") as site:
        for phone in (site.phone_1, site.phone_2):
            site.register(phone)
        sent, arrived = site.call_out(site.phone_1)
        called, answered = site.call_in(site.phone_2, sdp=site.server.offer(media=SERVER_MEDIA_2))
        rows = gateway.show_mappings("rtp", "rtcp")
        assert {row["transport"] for row in rows} == {"udp"} and len(rows) == 4
        check_audio(site.talk(site.phone_1, arrived, SERVER_MEDIA_1))
        check_audio(site.talk(site.phone_2, answered, SERVER_MEDIA_2))
        site.hang_up(site.server, site.phone_1, sent)
        site.hang_up(site.phone_2, site.server, called)
        assert media_is_released(gateway)


def test_a15_both_phones_are_called_at_the_contacts_they_registered(
    network: Network, gateway: Gateway
) -> None:
    """The server connects to what is mapped for the port that the phone listens at."""
    with Site(network, transport="tcp") as site:
        contacts = []
        for phone in (site.phone_1, site.phone_2):
            answer = site.register(phone)
            assert bare_uri(answer["Contact"]) == bare_uri(phone.contact)
            contacts.append(uri_endpoint(site.server.registrations[phone.user]))
        assert contacts[0] != contacts[1] and {each.address for each in contacts} == {EXTERNAL}
        for phone in (site.phone_1, site.phone_2):
            sent, _ = site.call_in(phone)
            site.hang_up(site.server, phone, sent)


def test_a_phone_with_a_bare_contact_is_reached_by_both_transports(
    network: Network, gateway: Gateway
) -> None:
    with Site(network, transport="tcp") as site:
        phone = site.phone_1
        phone.contact = f"<sip:phone1@{phone.endpoint}>"
        site.register(phone)
        contact = uri_endpoint(site.server.registrations["phone1"])
        sent = site.server.call("phone1")
        phone.expect("INVITE", call=sent)
        with (
            network.lan.udp_socket(*phone.endpoint) as udp,
            network.wan.udp_socket(SERVER, 5060) as server,
        ):
            server.sendto(b"hello", contact)
            udp.settimeout(5.0)
            assert udp.recvfrom(64) == (b"hello", PROXY)


@pytest.mark.configured(tcp_media=True)
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_a53_messages_reach_a_phone_that_waits_for_them(
    network: Network, gateway: Gateway, transport: str
) -> None:
    with Site(network, transport=transport) as site, listening(network.lan, LISTENING) as listener:
        phone = site.phone_1
        sent, arrived = site.call_out(
            phone,
            sdp=messages(LISTENING, "passive"),
            answer=messages(Endpoint(REMOTE_1, 9), "active"),
        )
        where = listens_at(arrived.body)
        [row] = gateway.show_mappings("media")
        assert (row["transport"], row["internal"]) == ("tcp", str(LISTENING))
        assert row["external"] == str(where)
        assert f"a=path:msrp://{where}/s1;tcp".encode() in arrived.body
        assert say(network, REMOTE_1, where, listener).address == REMOTE_1
        site.hang_up(phone, site.server, sent)
        assert wait_until(lambda: not gateway.show_mappings("media"), 5.0)
        check_refused(network.wan, Endpoint(REMOTE_2, 0), where)


@pytest.mark.configured(tcp_media=True)
def test_a53_what_waits_for_messages_outlives_a_crash(network: Network, gateway: Gateway) -> None:
    with Site(network) as site, listening(network.lan, LISTENING) as listener:
        sent, arrived = site.call_out(
            site.phone_1,
            sdp=messages(LISTENING, "passive"),
            answer=messages(Endpoint(REMOTE_1, 9), "active"),
        )
        where = listens_at(arrived.body)
        time.sleep(1.5)  # for the store, which is written twice a second
        gateway.kill()
        assert say(network, REMOTE_1, where, listener).address == REMOTE_1
        gateway.start()
        assert [row["kind"] for row in gateway.show_mappings("media")] == ["media"]
        assert say(network, REMOTE_1, where, listener).address == REMOTE_1
        site.hang_up(site.server, site.phone_1, sent)
        assert wait_until(lambda: not gateway.show_mappings("media"), 5.0)


@pytest.mark.parametrize("media_filter", ["address-dependent", "latch"])
def test_a53_only_one_of_two_may_connect(network: Network, media_filter: str) -> None:
    """Whom signalling names, or who comes first: media over TCP is filtered as any media."""
    with (
        Gateway(network.router, tcp_media=True, media_filter=media_filter),
        Site(network) as site,
        listening(network.lan, LISTENING) as listener,
    ):
        _, arrived = site.call_out(
            site.phone_1,
            sdp=messages(LISTENING, "passive"),
            answer=messages(Endpoint(REMOTE_1, 9), "active"),
        )
        where = listens_at(arrived.body)
        assert say(network, REMOTE_1, where, listener).address == REMOTE_1
        with pytest.raises(OSError), connected(network.wan, Endpoint(REMOTE_2, 0), where):
            pass


def test_a53_a81_nothing_is_opened_unless_it_is_allowed(network: Network, gateway: Gateway) -> None:
    with Site(network) as site, listening(network.lan, LISTENING):
        _, arrived = site.call_out(site.phone_1, sdp=messages(LISTENING, "passive"))
        where = listens_at(arrived.body)
        assert where == Endpoint(EXTERNAL, LISTENING.port)
        check_refused(network.wan, Endpoint(REMOTE_1, 0), where)
