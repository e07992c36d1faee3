"""What happens in calls: two on one flow, forks, refused changes, hold, an end that got lost."""

from __future__ import annotations

import time
from contextlib import ExitStack

import pytest

from nat_table.endpoint import Endpoint
from tests.lab.agents import SipAgent, wait_until
from tests.lab.gateway import Gateway
from tests.lab.message import Message, bare_uri
from tests.lab.network import PHONE_1, REMOTE_1, REMOTE_2, Network
from tests.lab.sdp import media_endpoint, render_sdp
from tests.lab.site import SERVER_MEDIA_1, SERVER_MEDIA_2, Conversation, Site
from tests.netns.calls import check_audio, hears, media_internals, media_is_released
from tests.netns.kernel import conntrack

pytestmark = [pytest.mark.netns, pytest.mark.timeout(90)]

OTHER_MEDIA = Endpoint(PHONE_1, 4010)
NOWHERE = Endpoint("0.0.0.0", 4000)
FLOW_TIMEOUT = 2
# Longer than replaced media is kept.
HOLD_TIME = 7.0
IDLE_CALL_TIMEOUT = 5


def test_a62_two_calls_of_a_trunk_on_one_flow_end_one_at_a_time(
    site: Site, gateway: Gateway
) -> None:
    pbx, server = site.phone_1, site.server
    first, offer_1 = site.call_out(pbx)
    second, offer_2 = site.call_out(
        pbx, sdp=pbx.offer(media=OTHER_MEDIA), answer=server.offer(media=SERVER_MEDIA_2)
    )
    assert offer_1.source == offer_2.source
    talk_1 = site.talk(pbx, offer_1, SERVER_MEDIA_1)
    talk_2 = site.talk(pbx, offer_2, SERVER_MEDIA_2, media=OTHER_MEDIA)
    assert talk_1.flows_on() and talk_2.flows_on()

    talk_1.stop()
    site.hang_up(pbx, server, first)
    assert media_is_released(gateway, first)
    assert media_internals(gateway) == {str(OTHER_MEDIA)}
    check_audio(talk_2)

    site.hang_up(server, pbx, second)
    assert media_is_released(gateway)


def test_a48_a_forked_call_has_early_audio_from_both_and_goes_on_with_one(
    site: Site, network: Network, gateway: Gateway
) -> None:
    phone = site.phone_1
    with ExitStack() as stack:
        desk = stack.enter_context(SipAgent(network.wan, "desk", REMOTE_1, media_port=30000))
        mobile = stack.enter_context(SipAgent(network.wan, "mobile", REMOTE_2, media_port=31000))
        forks = (desk, mobile)
        site.server.routes["group"] = [bare_uri(fork.contact) for fork in forks]

        sent = phone.send("INVITE", f"sip:group@{site.server.endpoint.address}", sdp=phone.offer())
        arrived = {fork.user: fork.expect("INVITE", call=sent) for fork in forks}
        [external] = {media_endpoint(invite.body) for invite in arrived.values()}
        near = site.listen(network.lan, phone.media)
        far = {fork.user: site.listen(network.wan, fork.media) for fork in forks}
        tags = set()
        for fork in forks:
            fork.reply(arrived[fork.user], 183, sdp=fork.offer())
            tags.add(phone.expect(183, call=sent)["To"])
            far[fork.user].send_to(external)
            assert hears(near, fork.media)
        assert len(tags) == 2
        far["desk"].stop()

        mobile.reply(arrived["mobile"], 200, sdp=mobile.offer())
        phone.expect(200, call=sent)
        phone.send("ACK", call=sent)
        mobile.expect("ACK", call=sent)
        near.send_to(mobile.media)
        talk = Conversation(near, far["mobile"], external)
        assert talk.flows_on()
        near.sources.clear()
        assert talk.flows_on()
        assert set(near.sources) == {mobile.media}
        assert set(talk.far.sources) == {external}

        site.hang_up(phone, mobile, sent)
        assert media_is_released(gateway)


@pytest.mark.parametrize("status", [488, 491])
def test_a46_a_refused_move_of_the_phones_audio_leaves_it_where_it_was(
    site: Site, gateway: Gateway, status: int
) -> None:
    phone, server = site.phone_1, site.server
    sent, offer = site.call_out(phone)
    talk = site.talk(phone, offer, SERVER_MEDIA_1)
    assert talk.flows_on()

    phone.send("INVITE", call=sent, sdp=phone.offer(media=OTHER_MEDIA, version=2))
    again = server.expect("INVITE", call=sent)
    assert media_endpoint(again.body) != talk.external
    assert media_internals(gateway) == {str(phone.media), str(OTHER_MEDIA)}
    server.reply(again, status)
    phone.expect(status, call=sent)
    server.expect("ACK", call=sent)

    assert wait_until(lambda: media_internals(gateway) == {str(phone.media)}, 40.0)
    check_audio(talk)
    site.hang_up(phone, server, sent)
    assert media_is_released(gateway)


@pytest.mark.parametrize("status", [488, 491])
def test_a46_a_move_from_outside_that_the_phone_refuses_changes_nothing(
    site: Site, gateway: Gateway, status: int
) -> None:
    phone, server = site.phone_1, site.server
    site.register(phone)
    called, answer = site.call_in(phone)
    talk = site.talk(phone, answer, SERVER_MEDIA_1)
    assert talk.flows_on()
    before = gateway.show_mappings("rtp", "rtcp")

    server.send("INVITE", call=called, sdp=render_sdp(Endpoint(REMOTE_2, 30000), version=2))
    phone.reply(phone.expect("INVITE", call=called), status)
    server.expect(status, call=called)
    phone.expect("ACK", call=called)

    check_audio(talk)
    after = gateway.show_mappings("rtp", "rtcp")
    assert [row["external"] for row in after] == [row["external"] for row in before]
    site.hang_up(server, phone, called)
    assert media_is_released(gateway)


@pytest.mark.parametrize(
    ("direction", "is_nowhere"),
    [("sendonly", False), ("inactive", False), ("sendonly", True)],
    ids=["sendonly", "inactive", "zero-address"],
)
def test_a42_a43_a_call_on_hold_outlives_every_flow_and_resumes_on_its_port(
    site: Site, network: Network, gateway: Gateway, direction: str, is_nowhere: bool
) -> None:
    network.expire_flows_after(FLOW_TIMEOUT)
    phone = site.phone_1
    sent, offer = site.call_out(phone)
    talk = site.talk(phone, offer, SERVER_MEDIA_1)
    assert talk.flows_on()

    held_media = NOWHERE if is_nowhere else phone.media
    held = describe_again(site, sent, phone.offer(media=held_media, version=2, direction=direction))
    assert f"a={direction}\r\n".encode() in held.body
    assert (
        media_endpoint(held.body).address == (held_media if is_nowhere else talk.external).address
    )
    talk.stop()
    time.sleep(HOLD_TIME)
    assert wait_until(lambda: conntrack(network) == "", 20.0)
    assert media_internals(gateway) == {str(phone.media)}

    resumed = describe_again(site, sent, phone.offer(version=3))
    assert media_endpoint(resumed.body) == talk.external
    talk.far.send_to(talk.external)
    talk.near.send_to(SERVER_MEDIA_1)
    assert talk.flows_on()
    check_audio(talk)
    site.hang_up(phone, site.server, sent)
    assert media_is_released(gateway)


@pytest.mark.configured(idle_call_timeout=IDLE_CALL_TIMEOUT)
def test_a63_a_call_whose_bye_was_lost_is_released(
    site: Site, network: Network, gateway: Gateway
) -> None:
    network.expire_flows_after(FLOW_TIMEOUT)
    site.call_out(site.phone_1)
    assert media_internals(gateway) == {str(site.phone_1.media)}
    assert media_is_released(gateway)


@pytest.mark.configured(idle_call_timeout=IDLE_CALL_TIMEOUT)
def test_a63_a_call_with_audio_is_kept_until_the_audio_ends(
    site: Site, network: Network, gateway: Gateway
) -> None:
    network.expire_flows_after(FLOW_TIMEOUT)
    _, offer = site.call_out(site.phone_1)
    talk = site.talk(site.phone_1, offer, SERVER_MEDIA_1)
    deadline = time.monotonic() + 3 * IDLE_CALL_TIMEOUT
    while time.monotonic() < deadline:
        assert talk.flows_on()
        assert media_internals(gateway) == {str(site.phone_1.media)}
    check_audio(talk)
    assert media_is_released(gateway)


def describe_again(site: Site, call: Message, sdp: bytes) -> Message:
    """Sends a re-INVITE of phone 1, accepted; returns it as the server got it."""
    phone, server = site.phone_1, site.server
    phone.send("INVITE", call=call, sdp=sdp)
    again = server.expect("INVITE", call=call)
    assert ";tag=" in again["To"]
    server.reply(again, 200, sdp=server.offer(version=2))
    phone.expect(200, call=call)
    phone.send("ACK", call=call)
    server.expect("ACK", call=call)
    return again
