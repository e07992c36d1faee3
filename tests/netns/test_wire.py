"""The lab itself, without the gateway: if these fail, no other netns test means anything.

They show a plain masquerading router: packets pass, SIP crosses it untouched, and therefore
nobody outside can call or send audio to where the phones say they are.
"""

from __future__ import annotations

import time

import pytest

from nat_table.endpoint import Endpoint
from tests.lab.agents import Timeout, receive_all
from tests.lab.message import bare_uri, parameter
from tests.lab.network import EXTERNAL, PHONE_1, PHONE_2, REMOTE_1, SERVER, Network
from tests.lab.rtp import RtpStream
from tests.lab.sdp import media_endpoint
from tests.lab.site import SERVER_MEDIA_1, Site

pytestmark = pytest.mark.netns


def test_a_datagram_crosses_masqueraded_and_its_answer_returns(network: Network) -> None:
    phone = network.lan.udp_socket(PHONE_1, 5060)
    server = network.wan.udp_socket(SERVER, 5060)
    with phone, server:
        phone.sendto(b"ping", (SERVER, 5060))
        [(raw, source)] = receive_all(server)
        assert (raw, source.address) == (b"ping", EXTERNAL)
        server.sendto(b"pong", source)
        assert receive_all(phone) == [(b"pong", Endpoint(SERVER, 5060))]


def test_an_unasked_datagram_from_outside_reaches_no_phone(network: Network) -> None:
    phone = network.lan.udp_socket(PHONE_1, 4000)
    remote = network.wan.udp_socket(REMOTE_1)
    with phone, remote:
        remote.sendto(b"hello", (EXTERNAL, 4000))
        assert receive_all(phone, quiet=0.3) == []


def test_without_masquerade_both_sides_see_true_addresses() -> None:
    with Network(is_masqueraded=False) as network:
        phone = network.lan.udp_socket(PHONE_2, 4000)
        remote = network.wan.udp_socket(REMOTE_1, 4000)
        with phone, remote:
            remote.sendto(b"hello", (PHONE_2, 4000))
            assert receive_all(phone, quiet=0.3) == [(b"hello", Endpoint(REMOTE_1, 4000))]


def test_a_datagram_of_60_kilobytes_crosses_in_fragments(network: Network) -> None:
    phone = network.lan.udp_socket(PHONE_1, 5060)
    server = network.wan.udp_socket(SERVER, 5060)
    with phone, server:
        phone.sendto(b"x" * 60_000, (SERVER, 5060))
        assert [len(raw) for raw, _ in receive_all(server)] == [60_000]


def test_rtp_is_sent_50_times_a_second_and_counted_at_both_ends(network: Network) -> None:
    near = RtpStream(network.lan, Endpoint(PHONE_1, 4000))
    far = RtpStream(network.wan, SERVER_MEDIA_1)
    with near, far:
        near.send_to(SERVER_MEDIA_1)
        time.sleep(0.2)
        far.send_to(next(iter(far.sources)))
        time.sleep(1.0)
        near.stop()
        far.stop()
        time.sleep(0.2)
        assert 50 <= near.sent <= 70
        assert (far.received, near.received) == (near.sent, far.sent)
        assert list(near.sources) == [SERVER_MEDIA_1]


def test_agents_hold_a_whole_call_where_nothing_translates() -> None:
    with Network(is_masqueraded=False) as network, Site(network) as site:
        restored = site.register(site.phone_1)
        assert restored["Contact"] == f"{site.phone_1.contact};expires=3600"
        sent, arrived = site.call_out(site.phone_1)
        assert arrived.raw == sent.raw
        audio = site.talk(site.phone_1, arrived, SERVER_MEDIA_1)
        time.sleep(0.5)
        assert min(audio.counts()) >= 20
        site.phone_1.send("BYE", call=sent)
        site.server.reply(site.server.expect("BYE"), 200)
        site.phone_1.expect(200, call=sent)

        site.register(site.phone_2)
        sent, _ = site.call_in(site.phone_2)
        site.server.send("BYE", call=sent)
        site.phone_2.reply(site.phone_2.expect("BYE"), 200)
        site.server.expect(200, call=sent)


def test_an_agent_repeats_a_lost_request_and_answers_a_repeated_one(network: Network) -> None:
    with Site(network) as site:
        network.router.run("nft", "add", "table", "ip", "loss")
        network.router.run(
            "nft", "add", "chain ip loss forward { type filter hook forward priority 0; }"
        )
        network.router.run(
            "nft", "add", "rule ip loss forward limit rate 1/day burst 1 packets drop"
        )
        started_at = time.monotonic()
        site.register(site.phone_1)
        assert time.monotonic() - started_at >= 0.5


def test_a_cancelled_call_ends_with_487_and_its_own_ack() -> None:
    with Network(is_masqueraded=False) as network, Site(network) as site:
        sent = site.phone_1.send("INVITE", site.server.address_of_record, sdp=b"v=0\r\n")
        arrived = site.server.expect("INVITE")
        site.server.reply(arrived, 180)
        site.phone_1.expect(180)
        site.phone_1.send("CANCEL", call=sent)
        site.server.reply(site.server.expect("CANCEL"), 200)
        site.server.reply(arrived, 487)
        site.phone_1.expect(487)
        assert site.server.expect("ACK").sequence == sent.sequence


def test_behind_plain_masquerade_the_server_learns_private_addresses(network: Network) -> None:
    with Site(network) as site:
        site.register(site.phone_1)
        assert site.server.registrations["phone1"] == bare_uri(site.phone_1.contact)
        sent = site.phone_1.send("INVITE", site.server.address_of_record, sdp=site.phone_1.offer())
        arrived = site.server.expect("INVITE")
        assert arrived.raw == sent.raw
        assert media_endpoint(arrived.body) == Endpoint(PHONE_1, 4000)
        assert parameter(arrived["Via"], "received") == EXTERNAL
        with pytest.raises(OSError, match="unreachable"):
            site.server.call("phone1")
        with pytest.raises(Timeout):
            site.phone_1.expect("INVITE", timeout=0.2)
