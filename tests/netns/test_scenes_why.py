"""`sipnat why` and `sipnat ladder` on live calls: what was refused is told, and drawn."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from nat_table.endpoint import Endpoint
from tests.lab.agents import wait_until
from tests.lab.gateway import SIPNAT, Gateway
from tests.lab.message import Message
from tests.lab.network import PHONE_1, Network
from tests.lab.site import SERVER_MEDIA_1, Site
from tests.netns.calls import media_internals

pytestmark = [pytest.mark.netns, pytest.mark.timeout(90)]

OTHER_MEDIA = Endpoint(PHONE_1, 4010)


def sipnat(network: Network, gateway: Gateway, *arguments: str) -> str:
    """Returns what a command prints."""
    return network.router.run(SIPNAT, *arguments, "--control", gateway.control)


def call_with_a_refused_move(site: Site, gateway: Gateway) -> Message:
    """Makes a call whose phone offers another port in between, which the server refuses."""
    phone, server = site.phone_1, site.server
    sent, offer = site.call_out(phone)
    talk = site.talk(phone, offer, SERVER_MEDIA_1)
    assert talk.flows_on()
    phone.send("INVITE", call=sent, sdp=phone.offer(media=OTHER_MEDIA, version=2))
    server.reply(server.expect("INVITE", call=sent), 488)
    phone.expect(488, call=sent)
    server.expect("ACK", call=sent)
    assert wait_until(lambda: media_internals(gateway) == {str(phone.media)}, 40.0)
    site.hang_up(phone, server, sent)
    return sent


def test_why_tells_the_roll_back_of_a_refused_re_invite(
    site: Site, network: Network, gateway: Gateway
) -> None:
    sent = call_with_a_refused_move(site, gateway)
    told = sipnat(network, gateway, "why", sent.call_id)
    assert max(map(len, told.splitlines())) <= 80
    story = told[told.index("488 Not Acceptable Here to INVITE") :]
    external = "203.0.113.1"
    assert "the re-INVITE was refused (488): its offer is rolled back" in story
    assert f"rtp/udp {OTHER_MEDIA} <-> {external}" in story
    given_up, expired, ended = (
        story.index(text)
        for text in ("is given up, it closes in 5 s", "mappings expire", "one side hangs up")
    )
    assert given_up < expired < ended
    assert "the call has ended" in story[ended:]

    rows = json.loads(sipnat(network, gateway, "why", sent.call_id, "--json"))
    assert [row.get("status") or row.get("method") or row["what"] for row in rows] == [
        *("INVITE", 180, 200, "ACK", "INVITE", 488, "ACK", "expired", "BYE", 200),
    ]
    opening = [row for row in rows if row["opened"]]
    assert all(row["commit"] and row["took"] >= row["commit"] for row in opening)
    assert opening[0]["edits"][0]["old"].startswith(PHONE_1)
    assert rows[0]["before"] and rows[0]["after"]

    of_phone = json.loads(sipnat(network, gateway, "why", "--internal", PHONE_1, "--json"))
    assert [row["time"] for row in of_phone] == sorted(row["time"] for row in of_phone)
    assert len(of_phone) == len(rows)


def test_a_ladder_is_drawn_of_a_live_call(
    site: Site, network: Network, gateway: Gateway, tmp_path: Path
) -> None:
    sent = call_with_a_refused_move(site, gateway)
    shown = sipnat(network, gateway, "ladder", sent.call_id[:12] + "~")
    assert max(map(len, shown.splitlines())) <= 80
    for text in ("INVITE (offer)", "200 OK (answer)", "-488-", "BYE", "its offer is rolled back"):
        assert text in shown
    counts = [int(count) for count in re.findall(r"=audio (\d+) packets=", shown)]
    assert len(counts) == 2 and min(counts) > 40, "both directions of the one stream that flowed"
    picture = tmp_path / "call.svg"
    sipnat(network, gateway, "ladder", sent.call_id, "--svg", str(picture))
    root = ElementTree.fromstring(picture.read_text())
    texts = [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert f"call {sent.call_id}" in texts
    assert any("10.0.0.20:5060 → " in text or "10.0.0.20 → " in text for text in texts)


@pytest.mark.configured(trace_megabytes=0)
def test_nothing_is_remembered_where_that_is_switched_off(
    site: Site, network: Network, gateway: Gateway
) -> None:
    sent, _ = site.call_out(site.phone_1)
    with pytest.raises(RuntimeError, match="nothing is remembered, because trace_megabytes is 0"):
        sipnat(network, gateway, "why", sent.call_id)
    site.hang_up(site.phone_1, site.server, sent)
