"""What the log of a gateway says of calls: mappings and Call-IDs, and no word of who they are."""

from __future__ import annotations

import json

import pytest

from tests.lab.gateway import Gateway
from tests.lab.network import PHONE_1, REMOTE_1, SERVER, Network
from tests.lab.site import Site

pytestmark = [pytest.mark.netns, pytest.mark.timeout(90)]

USERS = ("phone1", "phone2", "server@", "sip:")


def make_trouble(network: Network, site: Site) -> str:
    """Registers, calls and is refused in many ways; returns the Call-ID of a call that was not."""
    site.register(site.phone_1)
    site.register(site.phone_2)
    sent, _ = site.call_out(site.phone_1)
    site.hang_up(site.phone_1, site.server, sent)
    for _ in range(3):
        site.phone_2.send("INVITE", site.server.address_of_record, sdp=site.phone_2.offer())
        site.server.expect("INVITE")
    with network.lan.udp_socket(PHONE_1, 5070) as phone:
        for message in (
            b"INVITE sip:phone1@x SIP/2.0\r\nVia: nonsense\r\n\r\n",
            b"INVITE sip:phone1@x SIP/2.0\r\nCall-ID: sip:phone1@x\r\n",
            b"\r\n\r\n",
        ):
            phone.sendto(message, (REMOTE_1, 5060))
    return sent.call_id


@pytest.mark.configured(log_format="json", max_unanswered_per_host=1)
def test_above_debug_no_user_is_named(network: Network, gateway: Gateway, site: Site) -> None:
    call_id = make_trouble(network, site)
    assert gateway.stop() == 0
    assert not [line for line in gateway.log if any(user in line for user in USERS)]
    rows = [json.loads(line) for line in gateway.log if line != "ready"]
    assert {row["logger"] for row in rows} == {"sipnat"}
    (opened,) = [row for row in rows if row["message"].startswith(f"opened rtp {PHONE_1}")]
    assert opened["call_id"] == call_id
    assert opened["internal"] == f"{PHONE_1}:4000"
    assert "quota" in {row.get("reason") for row in rows}


@pytest.mark.configured(log_level="debug")
def test_text_is_what_a_terminal_gets(network: Network, gateway: Gateway, site: Site) -> None:
    make_trouble(network, site)
    assert gateway.stop() == 0
    assert all(line.startswith("sipnat: ") or line == "ready" for line in gateway.log)
    assert any(line.endswith(f"{SERVER}:5060 rewritten") for line in gateway.log)
