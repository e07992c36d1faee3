"""What happens to calls when the gateway dies in them, and when somebody takes its rules away."""

from __future__ import annotations

from pathlib import Path

import pytest

from nat_table.endpoint import Endpoint
from tests.lab.agents import wait_until
from tests.lab.gateway import Gateway
from tests.lab.message import bare_uri
from tests.lab.network import MASQUERADE, PHONE_1, Network
from tests.lab.sdp import media_endpoint
from tests.lab.site import SERVER_MEDIA_1, SERVER_MEDIA_2, Site
from tests.netns.calls import AT_ONCE, check_audio, media_internals, media_is_released

pytestmark = [pytest.mark.netns, pytest.mark.timeout(90)]

OTHER_MEDIA = Endpoint(PHONE_1, 4010)
# The promise is a second; a machine that is busy with other tests may take some more.
SOON = 3.0
OWN_TABLE = """
table inet home_filter {
    chain forward { type filter hook forward priority filter; policy accept; }
}
"""


def externals(gateway: Gateway) -> dict[str, str]:
    """Returns the external endpoint of each internal one."""
    return {row["internal"]: row["external"] for row in gateway.show_mappings()}


def elements(network: Network) -> set[str]:
    """Returns the mappings that stand in the kernel, as nft prints them; none without a table."""
    listing = network.ruleset()
    _, _, inbound = listing.partition("map inbound {")
    _, _, inside = inbound.partition("elements = {")
    return {line.strip(" \t,") for line in inside.partition("}")[0].splitlines() if line.strip()}


def test_a33_kill_9_while_it_rings_and_the_call_is_answered_and_ended(
    site: Site, gateway: Gateway
) -> None:
    phone, server = site.phone_1, site.server
    sent = phone.send("INVITE", server.address_of_record, sdp=phone.offer())
    arrived = server.expect("INVITE", call=sent)
    server.reply(arrived, 180)
    phone.expect(180, call=sent)
    before = externals(gateway)

    gateway.kill()
    gateway.start()
    assert externals(gateway) == before
    server.reply(arrived, 200, sdp=server.offer())
    phone.expect(200, call=sent)
    phone.send("ACK", call=sent)
    server.expect("ACK", call=sent)
    check_audio(site.talk(phone, arrived, SERVER_MEDIA_1))

    site.hang_up(phone, server, sent)
    assert media_is_released(gateway, timeout=AT_ONCE), "it does not know the call any more"
    assert phone.discarded == []


def test_a33_kill_9_in_a_call_loses_no_packet_and_a_restart_knows_the_call(
    site: Site, gateway: Gateway
) -> None:
    phone, server = site.phone_1, site.server
    site.register(phone)
    called, answer = site.call_in(phone)
    talk = site.talk(phone, answer, SERVER_MEDIA_1)
    assert talk.flows_on()
    before = externals(gateway)

    gateway.kill()
    assert talk.flows_on()
    gateway.start()
    assert talk.flows_on()
    assert externals(gateway) == before
    check_audio(talk)

    phone.send("INVITE", call=called, sdp=phone.offer(media=OTHER_MEDIA, version=2))
    again = server.expect("INVITE", call=called)
    server.reply(again, 200, sdp=server.offer(media=SERVER_MEDIA_2, version=2))
    phone.expect(200, call=called)
    phone.send("ACK", call=called)
    server.expect("ACK", call=called)
    check_audio(site.talk(phone, again, SERVER_MEDIA_2, media=OTHER_MEDIA))
    assert wait_until(lambda: media_internals(gateway) == {str(OTHER_MEDIA)}, 40.0)

    server.send("BYE", call=called)
    bye = phone.expect("BYE", call=called)
    assert bye.uri == bare_uri(phone.contact)
    phone.reply(bye, 200)
    server.expect(200, call=called)
    assert media_is_released(gateway, timeout=AT_ONCE)
    kept = {row["internal"]: row["state"] for row in gateway.show_mappings()}
    assert kept == {str(phone.endpoint): "registered"}


@pytest.mark.parametrize("disaster", ["flush", "delete", "reload"])
def test_a75_somebody_removes_the_rules_and_calls_go_on(
    site: Site, network: Network, gateway: Gateway, tmp_path: Path, disaster: str
) -> None:
    phone, server = site.phone_1, site.server
    for each in (phone, site.phone_2):
        site.register(each)
    sent, offer = site.call_out(phone)
    talk = site.talk(phone, offer, SERVER_MEDIA_1)
    assert talk.flows_on()
    before, standing = externals(gateway), elements(network)
    assert standing

    if disaster == "flush":
        network.router.run("nft", "flush", "ruleset")
    elif disaster == "delete":
        network.router.run("nft", "delete", "table", "inet", "sipnat")
    else:
        ruleset = tmp_path / "nftables.conf"
        ruleset.write_text(f"flush ruleset\n{MASQUERADE}{OWN_TABLE}")
        network.router.run("nft", "-f", str(ruleset))
        assert "home_filter" in network.ruleset()

    assert wait_until(lambda: elements(network) == standing, SOON)
    assert talk.flows_on()
    assert externals(gateway) == before
    network.router.run("conntrack", "-F")
    assert talk.flows_on()
    talk.near.sources.clear()
    talk.far.sources.clear()
    assert talk.flows_on()
    assert set(talk.far.sources) == {talk.external}
    assert set(talk.near.sources) == {SERVER_MEDIA_1}
    talk.stop()
    # With the last NAT chain the kernel stops translating, even the flows that it knows.
    assert disaster == "flush" or wait_until(lambda: talk.is_complete, 2.0)

    called, answer = site.call_in(site.phone_2, sdp=server.offer(media=SERVER_MEDIA_2))
    assert media_endpoint(answer.body) != talk.external
    check_audio(site.talk(site.phone_2, answer, SERVER_MEDIA_2))
    site.hang_up(site.phone_2, server, called)
    site.hang_up(phone, server, sent)
    assert media_is_released(gateway)
