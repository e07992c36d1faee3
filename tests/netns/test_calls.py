"""Whole calls through the real gateway: both phones on port 5060 and on RTP port 4000.

Each test reads as the call goes on the wire. A test that checks a line of the catalogue of SIP ALG
faults carries its id.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from nat_table.endpoint import Endpoint
from tests.lab.agents import receive_all, wait_until
from tests.lab.gateway import Gateway
from tests.lab.message import bare_uri, parameter, uri_endpoint, via_sent_by
from tests.lab.network import EXTERNAL, PHONE_1, REMOTE_1, REMOTE_2, Network
from tests.lab.rtp import RtpStream
from tests.lab.sdp import media_endpoint, render_sdp
from tests.lab.site import SERVER_MEDIA_1, SERVER_MEDIA_2, Conversation, Site
from tests.netns.calls import check_audio, media_is_released

pytestmark = [pytest.mark.netns, pytest.mark.timeout(90)]

QUEUES = Path("/proc/thread-self/net/netfilter/nfnetlink_queue")


def queued(network: Network) -> int:
    """Returns how many packets have ever gone to the queue (its id_sequence)."""
    text = network.router.call(QUEUES.read_text)
    return int(text.split()[7])


def test_a13_a25_register_is_translated_and_its_answer_restored(site: Site) -> None:
    phone = site.phone_1
    sent = phone.register()
    arrived = site.server.accept_registration()
    answer = phone.expect(200)

    assert arrived.source == Endpoint(EXTERNAL, 5060)
    assert via_sent_by(arrived["Via"]) == arrived.source
    assert uri_endpoint(bare_uri(arrived["Contact"])) == arrived.source
    assert (arrived.call_id, arrived["From"], arrived["To"]) == (
        sent.call_id,
        sent["From"],
        sent["To"],
    )
    assert answer["Contact"] == f"{phone.contact};expires=3600"
    assert via_sent_by(answer["Via"]) == phone.endpoint
    assert parameter(answer["Via"], "received") == EXTERNAL
    assert phone.discarded == []


def test_a19_a23_two_phones_with_equal_ports_call_out_and_are_called(
    site: Site, gateway: Gateway
) -> None:
    for phone in (site.phone_1, site.phone_2):
        site.register(phone)
    assert len(set(site.server.registrations.values())) == 2

    out, offer = site.call_out(site.phone_1)
    called, answer = site.call_in(site.phone_2, sdp=site.server.offer(media=SERVER_MEDIA_2))
    talk_1 = site.talk(site.phone_1, offer, SERVER_MEDIA_1)
    talk_2 = site.talk(site.phone_2, answer, SERVER_MEDIA_2)
    media = gateway.show_mappings("rtp")
    assert {row["call_id"] for row in media} == {out.call_id, called.call_id}
    assert {row["internal"] for row in media} == {"10.0.0.20:4000", "10.0.0.21:4000"}
    assert talk_1.external != talk_2.external
    check_audio(talk_1)
    check_audio(talk_2, 0.0)

    site.phone_1.send("BYE", call=out)
    site.server.reply(site.server.expect("BYE"), 200)
    site.phone_1.expect(200)
    site.server.send("BYE", call=called)
    bye = site.phone_2.expect("BYE")
    assert bye.uri == bare_uri(site.phone_2.contact)
    site.phone_2.reply(bye, 200)
    site.server.expect(200)

    assert media_is_released(gateway)
    kept = {row["internal"]: row["state"] for row in gateway.show_mappings("sip")}
    assert kept == {"10.0.0.20:5060": "registered", "10.0.0.21:5060": "registered"}


def test_inbound_invite_names_the_phone_as_the_phone_names_itself(site: Site) -> None:
    site.register(site.phone_1)
    site.register(site.phone_2)
    for phone in (site.phone_1, site.phone_2):
        called = site.server.call(phone.user)
        arrived = phone.expect("INVITE", call=called)
        assert arrived.uri == bare_uri(phone.contact)
        assert arrived.body == called.body
        assert arrived["Contact"] == site.server.contact


def test_a_repeated_invite_is_rewritten_to_the_same_bytes(site: Site) -> None:
    site.phone_1.send("INVITE", site.server.address_of_record, sdp=site.phone_1.offer())
    arrived = site.server.expect("INVITE")
    assert wait_until(lambda: site.server.repeated >= 2, 3.0), "the repeated INVITE differs"
    site.server.reply(arrived, 486)
    site.phone_1.expect(486)


def test_a37_rtcp_has_a_mapping_next_to_its_rtp(site: Site, gateway: Gateway) -> None:
    _, offer = site.call_out(site.phone_1)
    media = media_endpoint(offer.body)
    external = {row["kind"]: row["external"] for row in gateway.show_mappings("rtp", "rtcp")}
    assert external == {"rtp": str(media), "rtcp": f"{media.address}:{media.port + 1}"}

    phone = site.network.lan.udp_socket(site.phone_1.media.address, site.phone_1.media.port + 1)
    remote = site.network.wan.udp_socket(SERVER_MEDIA_1.address, SERVER_MEDIA_1.port + 1)
    with phone, remote:
        remote.sendto(b"report in", (media.address, media.port + 1))
        assert [raw for raw, _ in receive_all(phone)] == [b"report in"]
        phone.sendto(b"report out", remote.getsockname())
        assert receive_all(remote) == [(b"report out", Endpoint(media.address, media.port + 1))]


def test_a49_audio_from_another_host_than_the_signalling_reaches_the_phone(site: Site) -> None:
    remote_media = Endpoint(REMOTE_1, 30000)
    site.register(site.phone_1)
    _, answer = site.call_in(site.phone_1, sdp=render_sdp(remote_media))
    check_audio(site.talk(site.phone_1, answer, remote_media))


def test_a51_audio_may_begin_on_either_side_and_before_the_answer(site: Site) -> None:
    phone, server = site.phone_1, site.server
    sent = phone.send("INVITE", server.address_of_record, sdp=phone.offer())
    arrived = server.expect("INVITE")
    external = media_endpoint(arrived.body)
    near = RtpStream(site.network.lan, phone.media)
    far = RtpStream(site.network.wan, SERVER_MEDIA_1)
    with near, far:
        near.send_to(SERVER_MEDIA_1)
        assert wait_until(lambda: near.sent >= 10, 2.0)
        server.reply(arrived, 183, sdp=server.offer())
        phone.expect(183, call=sent)
        far.send_to(external)
        check_audio(Conversation(near, far, external))


def test_outside_audio_that_is_early_does_not_spoil_the_call(site: Site) -> None:
    with RtpStream(site.network.wan, SERVER_MEDIA_1) as early:
        early.send_to(Endpoint(EXTERNAL, site.phone_1.media.port))
        time.sleep(0.2)
    _, offer = site.call_out(site.phone_1)
    check_audio(site.talk(site.phone_1, offer, SERVER_MEDIA_1))


def test_a64_cancel_ends_the_call_and_its_media_mappings(site: Site, gateway: Gateway) -> None:
    sent = site.phone_1.send("INVITE", site.server.address_of_record, sdp=site.phone_1.offer())
    arrived = site.server.expect("INVITE")
    site.server.reply(arrived, 180)
    site.phone_1.expect(180)
    assert len(gateway.show_mappings("rtp", "rtcp")) == 2

    site.phone_1.send("CANCEL", call=sent)
    cancelled = site.server.expect("CANCEL")
    assert cancelled.uri == sent.uri
    assert cancelled["Via"].split(";")[0] == arrived["Via"].split(";")[0]
    site.server.reply(cancelled, 200)
    site.phone_1.expect(200)
    site.server.reply(arrived, 487)
    site.phone_1.expect(487)
    site.server.expect("ACK")
    assert media_is_released(gateway)


def test_a64_a_busy_phone_leaves_no_media_mapping(site: Site, gateway: Gateway) -> None:
    site.register(site.phone_2)
    called = site.server.call("phone2")
    site.phone_2.reply(site.phone_2.expect("INVITE"), 486)
    site.server.expect(486, call=called)
    site.phone_2.expect("ACK")
    assert media_is_released(gateway)


def test_a64_a_busy_server_leaves_no_media_mapping(site: Site, gateway: Gateway) -> None:
    sent = site.phone_1.send("INVITE", site.server.address_of_record, sdp=site.phone_1.offer())
    site.server.reply(site.server.expect("INVITE"), 486)
    site.phone_1.expect(486, call=sent)
    site.server.expect("ACK")
    assert media_is_released(gateway)


def test_a_re_invite_from_outside_moves_the_servers_audio(site: Site) -> None:
    phone, server = site.phone_1, site.server
    site.register(phone)
    called, answer = site.call_in(phone)
    moved = Endpoint(REMOTE_2, 30000)
    server.send("INVITE", call=called, sdp=render_sdp(moved, version=2))
    again = phone.expect("INVITE", call=called)
    assert again.uri == bare_uri(phone.contact)
    phone.reply(again, 200, sdp=phone.offer(version=2))
    repeated = server.expect(200, call=called)
    server.send("ACK", call=called)
    phone.expect("ACK", call=called)
    assert media_endpoint(repeated.body) == media_endpoint(answer.body)
    check_audio(site.talk(phone, repeated, moved))


def test_a72_options_pass_in_both_directions(site: Site) -> None:
    site.phone_1.send("OPTIONS", site.server.address_of_record)
    asked = site.server.expect("OPTIONS")
    assert uri_endpoint(bare_uri(asked["Contact"])) == asked.source
    site.server.reply(asked, 200)
    site.phone_1.expect(200)

    site.register(site.phone_1)
    contact = site.server.registrations["phone1"]
    site.server.send("OPTIONS", site.phone_1.address_of_record, uri=contact)
    asked = site.phone_1.expect("OPTIONS")
    assert asked.uri == bare_uri(site.phone_1.contact)
    site.phone_1.reply(asked, 200)
    assert uri_endpoint(bare_uri(site.server.expect(200)["Contact"])) == uri_endpoint(contact)


def test_media_never_enters_user_space(site: Site, network: Network) -> None:
    site.register(site.phone_1)
    _, arrived = site.call_out(site.phone_1)
    before = queued(network)
    assert before > 0
    check_audio(site.talk(site.phone_1, arrived, SERVER_MEDIA_1))
    assert queued(network) == before


def test_a50_a_phone_may_send_rtp_from_another_port_than_it_signalled(
    site: Site, network: Network
) -> None:
    site.register(site.phone_1)
    _, arrived = site.call_out(site.phone_1)
    external = media_endpoint(arrived.body)
    with (
        RtpStream(network.lan, site.phone_1.media) as signalled,
        RtpStream(network.lan, Endpoint(PHONE_1, 4444)) as sender,
        RtpStream(network.wan, SERVER_MEDIA_1) as far,
    ):
        sender.send_to(far.endpoint)
        far.send_to(external)
        time.sleep(1.0)
        sender.stop()
        far.stop()
        assert wait_until(lambda: far.received == sender.sent > 40, 2.0)
        assert wait_until(lambda: signalled.received == far.sent > 40, 2.0)
        assert set(far.sources) == {Endpoint(EXTERNAL, 4444)}, "by ordinary NAT"
