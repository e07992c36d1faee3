"""What the gateway tells of the media of live calls: its counts, and who is not heard."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from nat_table.endpoint import Endpoint
from tests.lab.agents import wait_until
from tests.lab.gateway import Gateway
from tests.lab.network import PHONE_1, SERVER, SERVER6, Network
from tests.lab.rtp import RtpStream
from tests.lab.sdp import media_endpoint
from tests.lab.site import SERVER_MEDIA_1, Conversation, Site
from tests.netns.kernel6 import FIREWALL, LOCAL_1, MASQUERADE6, ROUTED_1, keys_of, network_in
from tests.netns.test_scenes_calls import describe_again

pytestmark = [pytest.mark.netns, pytest.mark.timeout(120)]

NAMED_WITHIN = 15.0
QUIET = 13.0
"""Longer than it takes to name who is not heard."""

RTCP = Endpoint(SERVER, 40001)


def calls(gateway: Gateway, *options: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(gateway.show("calls", "--json", *options))
    return rows


def audio(gateway: Gateway, *options: str) -> dict[str, Any]:
    """Returns the row of the only call's RTP."""
    (call,) = calls(gateway, *options)
    (stream,) = (each for each in call["streams"] if each["kind"] == "rtp")
    assert isinstance(stream, dict)
    return stream


def is_named(gateway: Gateway, who: str, timeout: float = NAMED_WITHIN) -> bool:
    def has_warning() -> bool:
        (call,) = calls(gateway)
        return any(f"no media from {who} since" in each for each in call["warnings"])

    return wait_until(has_warning, timeout)


def stays_quiet(gateway: Gateway, seconds: float = QUIET) -> bool:
    """Tells whether nothing is wrong with the only call for so long."""
    return not wait_until(lambda: calls(gateway)[0]["warnings"] != [], seconds)


@contextmanager
def talking(site: Site) -> Iterator[Conversation]:
    _, arrived = site.call_out(site.phone_1)
    with site.talk(site.phone_1, arrived, SERVER_MEDIA_1) as talk:
        assert talk.flows_on(20)
        yield talk


def test_a_call_shows_its_ends_and_every_packet_of_its_media(site: Site, gateway: Gateway) -> None:
    sent, arrived = site.call_out(site.phone_1)
    talk = site.talk(site.phone_1, arrived, SERVER_MEDIA_1)
    assert talk.flows_on()
    talk.stop()
    assert wait_until(lambda: talk.is_complete, 2.0)

    def is_counted() -> bool:
        counted = audio(gateway)
        return (counted["sent"], counted["received"]) == (talk.near.sent, talk.far.sent)

    assert wait_until(is_counted, 5.0), (audio(gateway), talk.near.sent, talk.far.sent)
    (call,) = calls(gateway)
    age, up = call.pop("age"), call.pop("up")
    assert 0 < up <= age < 60
    rtp, rtcp = call.pop("streams")
    assert call == {
        "call_id": sent.call_id,
        "phone": PHONE_1,
        "remote": SERVER,
        "state": "up",
        "direction": "outbound",
        "warnings": [],
    }
    assert rtp == {
        "media": "audio",
        "kind": "rtp",
        "internal": str(talk.near.endpoint),
        "external": str(talk.external),
        "remote": str(talk.far.endpoint),
        "sent": talk.near.sent,
        "sent_bytes": 200 * talk.near.sent,
        "received": talk.far.sent,
        "received_bytes": 200 * talk.far.sent,
        "silent": None,
    }
    assert (rtcp["kind"], rtcp["sent"], rtcp["received"]) == ("rtcp", 0, 0)


def test_a_call_in_is_chosen_by_call_id_and_by_phone(site: Site, gateway: Gateway) -> None:
    site.register(site.phone_1)
    site.register(site.phone_2)
    sent, _ = site.call_in(site.phone_1)
    other, _ = site.call_out(site.phone_2)
    (call,) = calls(gateway, "--call-id", f"{sent.call_id[:8]}~", "--users")
    assert (call["direction"], call["phone"]) == ("inbound", PHONE_1)
    assert "@" in call["from"] and call["to"] == site.phone_1.address_of_record
    (call,) = calls(gateway, "--internal", site.phone_2.endpoint.address)
    assert call["call_id"] == other.call_id and "from" not in call
    (call,) = calls(gateway, "--internal", str(site.phone_2.media))
    assert call["call_id"] == other.call_id
    assert calls(gateway, "--internal", "10.0.0.99") == []


@pytest.mark.parametrize("who", ["phone", "remote"])
def test_one_way_audio_is_named_and_no_more_once_it_flows(
    site: Site, gateway: Gateway, who: str
) -> None:
    with talking(site) as talk:
        silent, target = (
            (talk.near, SERVER_MEDIA_1) if who == "phone" else (talk.far, talk.external)
        )
        silent.stop()
        assert is_named(gateway, who)
        assert re.fullmatch(rf"no media from {who} since \d+ s", audio(gateway)["silent"])
        text = gateway.show("calls")
        assert f"\n  ! audio: no media from {who} since " in text
        assert max(map(len, text.splitlines())) <= 80
        silent.send_to(target)
        assert wait_until(lambda: calls(gateway)[0]["warnings"] == [], 10.0)


def test_audio_that_never_comes_is_named(site: Site, gateway: Gateway) -> None:
    """The server sends to the phone's own address, as where nothing has rewritten its SDP."""
    site.call_out(site.phone_1)
    near = site.listen(site.network.lan, site.phone_1.media)
    far = site.listen(site.network.wan, SERVER_MEDIA_1)
    near.send_to(SERVER_MEDIA_1)
    far.send_to(site.phone_1.media)
    assert is_named(gateway, "remote")
    assert (audio(gateway)["received"], near.received) == (0, 0)


def test_a_call_on_hold_may_be_silent(site: Site, gateway: Gateway) -> None:
    phone = site.phone_1
    sent, arrived = site.call_out(phone)
    with site.talk(phone, arrived, SERVER_MEDIA_1) as talk:
        assert talk.flows_on(20)
        describe_again(site, sent, phone.offer(version=2, direction="sendonly"))
        talk.far.stop()
        assert stays_quiet(gateway)
        assert calls(gateway)[0]["state"] == "held"
        describe_again(site, sent, phone.offer(version=3))
        assert calls(gateway)[0]["state"] == "up"
        assert is_named(gateway, "remote")


def test_a_side_that_goes_on_with_rtcp_is_muted_not_lost(site: Site, gateway: Gateway) -> None:
    with talking(site) as talk:
        talk.far.stop()
        external = Endpoint(talk.external.address, talk.external.port + 1)
        with RtpStream(site.network.wan, RTCP) as reports:
            reports.send_to(external)
            assert stays_quiet(gateway)


def test_a57_two_phones_whose_audio_stays_inside_are_not_accused(
    site: Site, gateway: Gateway
) -> None:
    server, caller, called = site.server, site.phone_1, site.phone_2
    site.register(called)
    sent = caller.send("INVITE", server.address_of_record, sdp=caller.offer())
    first = server.expect("INVITE", call=sent)
    _, answered = site.call_in(called, sdp=first.body)
    server.reply(first, 200, sdp=answered.body)
    told = caller.expect(200, call=sent)
    caller.send("ACK", call=sent)
    assert media_endpoint(told.body) == called.media
    assert not wait_until(lambda: any(each["warnings"] for each in calls(gateway)), QUIET)
    assert [each["state"] for each in calls(gateway)] == ["up", "up"]


def test_a50_a_phone_that_sends_from_another_port_is_not_accused(
    site: Site, network: Network, gateway: Gateway
) -> None:
    with talking(site) as talk:
        talk.near.stop()
        with RtpStream(network.lan, Endpoint(PHONE_1, 4100)) as other:
            other.send_to(SERVER_MEDIA_1)
            assert stays_quiet(gateway)


def test_early_media_from_one_side_is_in_order(site: Site, gateway: Gateway) -> None:
    phone, server = site.phone_1, site.server
    sent = phone.send("INVITE", server.address_of_record, sdp=phone.offer())
    arrived = server.expect("INVITE", call=sent)
    server.reply(arrived, 183, sdp=server.offer())
    phone.expect(183, call=sent)
    far = site.listen(site.network.wan, SERVER_MEDIA_1)
    far.send_to(media_endpoint(arrived.body))
    assert stays_quiet(gateway)
    (call,) = calls(gateway)
    assert (call["state"], call["up"]) == ("ringing", None)
    assert audio(gateway)["received"] > 100


def test_a_restart_in_a_call_loses_neither_counts_nor_silence(site: Site, gateway: Gateway) -> None:
    with talking(site) as talk:
        for end in (gateway.stop, gateway.kill):
            before = calls(gateway)[0]
            end()
            gateway.start()
            after = calls(gateway)[0]
            assert after["age"] > before["age"] and after["up"] > before["up"]
            assert audio(gateway)["sent"] > before["streams"][0]["sent"]
        assert stays_quiet(gateway)
        talk.far.stop()
        assert is_named(gateway, "remote")


def test_the_last_calls_that_have_ended_keep_their_final_counts(
    site: Site, gateway: Gateway
) -> None:
    """Who looks too late, on a busy machine, misses what came since he looked before."""
    for _ in range(3):
        sent, arrived = site.call_out(site.phone_1)
        with site.talk(site.phone_1, arrived, SERVER_MEDIA_1) as talk:
            assert talk.flows_on()
            talk.stop()
            assert wait_until(lambda: talk.is_complete, 2.0)
            site.hang_up(site.phone_1, site.server, sent)
            assert wait_until(lambda: calls(gateway) == [], 5.0)
        final = audio(gateway, "--ended", "--call-id", sent.call_id)
        if (final["sent"], final["received"]) == (talk.near.sent, talk.far.sent):
            break
    else:
        pytest.fail(f"{final} is not {talk.near.sent} and {talk.far.sent}")
    assert "ended after" in gateway.show("calls", "--ended")
    site.call_out(site.phone_1)
    assert [each["state"] for each in calls(gateway, "--ended")][:2] == ["up", "ended"]
    assert audio(gateway, "--ended", "--call-id", sent.call_id) == final


def test_a59_audio_over_ipv6_is_counted_each_way(mode: str) -> None:
    """Whoever is not heard there is named as over IPv4, by these counts."""
    address = ROUTED_1 if mode == "pinhole" else LOCAL_1
    with (
        network_in(mode, MASQUERADE6 if mode == "nat66" else FIREWALL) as network,
        Gateway(network.router, **keys_of(mode)) as gateway,
        Site(network, phones=(address, address[:-1] + "1"), server=SERVER6) as site,
    ):
        _, arrived = site.call_out(site.phone_1)
        talk = site.talk(site.phone_1, arrived, site.server_media_1)
        assert talk.flows_on()
        assert max(map(len, gateway.show("calls").splitlines())) <= 80
        talk.far.stop()
        assert wait_until(lambda: audio(gateway)["received"] == talk.far.sent, 5.0)
        sent = audio(gateway)["sent"]
        assert wait_until(lambda: audio(gateway)["sent"] > sent, 5.0)
        assert audio(gateway)["received"] == talk.far.sent


@pytest.mark.configured(watch_media=False)
def test_nothing_is_counted_where_it_is_not_wanted(site: Site, gateway: Gateway) -> None:
    _, arrived = site.call_out(site.phone_1)
    with site.talk(site.phone_1, arrived, SERVER_MEDIA_1) as talk:
        assert talk.flows_on()
        stream = audio(gateway)
    keys = ("sent", "sent_bytes", "received", "received_bytes", "silent")
    assert {stream[key] for key in keys} == {None}
    assert "sent - got -" in gateway.show("calls")
    assert accounting(site.network) == "0"


def test_the_kernel_goes_on_counting_after_a_stop_and_says_so_once(
    network: Network, gateway: Gateway
) -> None:
    def is_said() -> bool:
        return any("counts the packets" in line for line in gateway.log)

    assert accounting(network) == "1" and is_said()
    assert gateway.stop() == 0
    assert accounting(network) == "1"
    gateway.start()
    assert not is_said()


def test_what_flows_before_the_kernel_counts_is_counted_from_then_on(
    site: Site, gateway: Gateway
) -> None:
    """As where the release before, which did not count, has made way for this one."""
    gateway.stop()
    gateway.configure(watch_media=False)
    site.network.router.run("sysctl", "-w", "net.netfilter.nf_conntrack_acct=0")
    gateway.start()
    with talking(site) as talk:
        gateway.stop()
        gateway.configure()
        gateway.start()
        assert talk.flows_on()
        assert audio(gateway)["sent"] > 20 and audio(gateway)["received"] > 20
        talk.stop()
        assert wait_until(lambda: talk.is_complete, 2.0)


def test_where_somebody_stops_the_counting_nobody_is_accused(site: Site, gateway: Gateway) -> None:
    with talking(site):
        site.network.router.run("sysctl", "-w", "net.netfilter.nf_conntrack_acct=0")
        assert wait_until(lambda: audio(gateway)["sent"] is None, 10.0)
        assert calls(gateway)[0]["warnings"] == []
        assert any("nf_conntrack_acct" in line and "off" in line for line in gateway.log)


def accounting(network: Network) -> str:
    return network.router.run("cat", "/proc/sys/net/netfilter/nf_conntrack_acct").strip()
