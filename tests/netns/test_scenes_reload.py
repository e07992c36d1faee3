"""The configuration read again by the real gateway, while calls go on: by command and by SIGHUP."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.lab.agents import SipAgent, receive_all, wait_until
from tests.lab.gateway import SIPNAT, Gateway
from tests.lab.network import EXTERNAL, PHONE_1, PHONE_2, REMOTE_1, SERVER, Network
from tests.lab.site import SERVER_MEDIA_1, Site
from tests.netns.browser import LISTEN
from tests.netns.calls import check_audio

pytestmark = [pytest.mark.netns, pytest.mark.timeout(90)]

WEB = {"internal": f"{PHONE_2}:80", "external": 8080, "transport": "udp"}


def reload(gateway: Gateway, **keys: object) -> dict[str, str]:
    """Writes other keys, has them read, and returns what is said of each that has changed."""
    gateway.configure(**keys)
    rows = json.loads(gateway.ask("reload", "--json"))
    return {row["key"]: row["state"] for row in rows}


def has_logged(gateway: Gateway, words: str) -> bool:
    return wait_until(lambda: any(words in line for line in gateway.log), 5.0)


def test_filters_servers_and_limits_change_under_a_live_call(
    site: Site, gateway: Gateway, network: Network
) -> None:
    site.register(site.phone_1)
    _, offer = site.call_out(site.phone_1)
    talk = site.talk(site.phone_1, offer, SERVER_MEDIA_1)
    assert talk.flows_on()
    contact = site.server.registrations["phone1"]
    with SipAgent(network.wan, "stranger", REMOTE_1) as caller:

        def may_call() -> bool:
            asked = caller.send("OPTIONS", site.phone_1.address_of_record, uri=contact)
            try:
                site.phone_1.expect("OPTIONS", call=asked, timeout=1.0)
            except AssertionError:
                return False
            return True

        assert not may_call()
        changed = reload(gateway, servers=[REMOTE_1], media_filter="address-dependent")
        assert changed == {"servers": "in use", "media_filter": "in use"}
        assert may_call()
        changed = reload(gateway, signalling_filter="endpoint-independent", max_calls_per_host=1)
        assert set(changed.values()) == {"in use"} and len(changed) == 4
        assert may_call()
    check_audio(talk)
    site.phone_1.send("INVITE", site.server.address_of_record, sdp=site.phone_1.offer())
    assert wait_until(lambda: gateway.show_reasons()["quota"] >= 1, 5.0)


def test_media_of_strangers_is_kept_out_from_now_on(
    site: Site, gateway: Gateway, network: Network
) -> None:
    _, offer = site.call_out(site.phone_1)
    talk = site.talk(site.phone_1, offer, SERVER_MEDIA_1)
    assert talk.flows_on()
    talk.close()
    with (
        network.lan.udp_socket(*site.phone_1.media) as phone,
        network.wan.udp_socket(REMOTE_1, 7000) as stranger,
    ):

        def arrives(octets: bytes) -> bool:
            stranger.sendto(octets, talk.external)
            return any(raw == octets for raw, _ in receive_all(phone, quiet=0.3))

        assert reload(gateway, media_filter="address-dependent") == {"media_filter": "in use"}
        assert not arrives(b"kept out")
        assert reload(gateway) == {"media_filter": "in use"}
        assert arrives(b"let in")
    assert gateway.show_mappings("rtp")


def test_hands_off_denied_ports_and_sizes_change(site: Site, gateway: Gateway) -> None:
    assert reload(gateway, hands_off=[SERVER], deny_ports=[4000]) == {
        "hands_off": "in use",
        "deny_ports": "in use",
    }
    site.phone_1.send("OPTIONS", site.server.address_of_record)
    assert site.server.expect("OPTIONS")["Contact"] == site.phone_1.contact
    reload(gateway, deny_ports=[4000])
    site.phone_1.send("INVITE", site.server.address_of_record, sdp=site.phone_1.offer())
    assert b"c=IN IP4 " + PHONE_1.encode() in site.server.expect("INVITE").body
    assert gateway.show_reasons()["denied-port"] >= 1
    reload(gateway, max_message_size=1024)
    body = ("text/plain", b"x" * 2000)
    site.phone_1.send("MESSAGE", site.server.address_of_record, body=body)
    assert site.server.expect("MESSAGE")["Contact"] == site.phone_1.contact


def test_networks_that_are_routed_are_left_alone_from_now_on(site: Site, gateway: Gateway) -> None:
    site.register(site.phone_1)
    assert reload(gateway, routed=[f"{SERVER}/32"]) == {"routed": "in use"}
    before = gateway.show_reasons()["rewritten"]
    site.phone_1.send("OPTIONS", site.server.address_of_record)
    assert site.server.expect("OPTIONS")["Contact"] == site.phone_1.contact
    assert gateway.show_reasons()["rewritten"] == before


def test_sip_ports_change(site: Site, gateway: Gateway, network: Network) -> None:
    assert reload(gateway, sip_ports=[5060, 5080]) == {"sip_ports": "in use"}
    with (
        SipAgent(network.wan, "other", SERVER, 5080) as server,
        SipAgent(network.lan, "phone", PHONE_2, 5090, proxy=server.endpoint) as phone,
    ):
        phone.send("OPTIONS", server.address_of_record)
        assert EXTERNAL in server.expect("OPTIONS")["Contact"]


def test_static_mappings_come_and_go(network: Network, gateway: Gateway) -> None:
    assert reload(gateway, static=[WEB]) == {"static": "in use"}
    with (
        network.lan.udp_socket(PHONE_2, 80) as host,
        network.wan.udp_socket(REMOTE_1, 7000) as remote,
    ):
        remote.sendto(b"hello", (EXTERNAL, 8080))
        assert [raw for raw, _ in receive_all(host)] == [b"hello"]
        reload(gateway)
        assert gateway.show_mappings() == []
        remote.sendto(b"hello again", (EXTERNAL, 8080))
        assert receive_all(host) == []


def test_mappings_on_request_are_served_or_not(network: Network, gateway: Gateway) -> None:
    def is_served() -> bool:
        return ":5351 " in network.router.run("ss", "-Hlnu")

    assert is_served()
    assert reload(gateway, pcp=False) == {"pcp": "in use"}
    assert not is_served()
    assert set(reload(gateway, max_lease=600)) == {"pcp", "max_lease"}
    assert is_served()
    gateway.ask("map", "add", "--internal", f"{PHONE_2}:9000", "--type", "rtcp")
    [row] = gateway.show_mappings()
    assert row["expires_in"] <= 600


def test_a_hangup_reloads_and_the_log_says_what_changed(site: Site, gateway: Gateway) -> None:
    gateway.ask("drain")
    gateway.configure(log_level="debug", queue=7)
    os.kill(gateway.pid, signal.SIGHUP)
    assert has_logged(gateway, "reloaded: log_level")
    assert has_logged(gateway, "not changed before the next start: queue")
    site.register(site.phone_1)
    assert has_logged(gateway, "-> ")
    [row] = json.loads(gateway.ask("status", "--json"))
    assert row["draining"], "what is no key is kept"


def test_who_watches_and_the_log_change(site: Site, gateway: Gateway, network: Network) -> None:
    def is_served() -> bool:
        return LISTEN in network.router.run("ss", "-Hlnt")

    sent, _ = site.call_out(site.phone_1)
    assert "INVITE" in gateway.ask("why", sent.call_id)
    changed = reload(
        gateway, http={"listen": LISTEN}, trace_megabytes=0, log_format="json", watch_media=False
    )
    assert len(changed) == 4 and set(changed.values()) == {"in use"}
    assert is_served()
    with pytest.raises(RuntimeError, match="trace_megabytes is 0"):
        gateway.ask("why", sent.call_id)
    site.hang_up(site.phone_1, site.server, sent)
    assert has_logged(gateway, '"message": "closed rtp ')
    assert len(reload(gateway)) == 4
    assert not is_served()


@pytest.mark.parametrize("by_signal", [False, True])
def test_a_faulty_file_changes_nothing(network: Network, gateway: Gateway, by_signal: bool) -> None:
    path = next(each for each in gateway.arguments() if each.endswith(".toml"))
    Path(path).write_text('hands_off = ["203.0.113.0/24"]\nmax_mappings = "many"\n')
    rules = network.ruleset()
    if by_signal:
        os.kill(gateway.pid, signal.SIGHUP)
        assert has_logged(gateway, "nothing has changed: ")
    else:
        done = subprocess.run(
            network.router.command(SIPNAT, "reload", "--control", gateway.control),
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stdout) == (1, "")
        assert "max_mappings" in done.stderr and done.stderr.count("\n") == 1
    assert network.ruleset() == rules
    with Site(network) as site:
        site.register(site.phone_1)
    assert gateway.show_reasons()["hands-off"] == 0


def test_what_needs_a_restart_is_said_and_the_options_still_hold(gateway: Gateway) -> None:
    gateway.configure(queue=7, internal=["lan7"], max_mappings=9)
    assert gateway.ask("reload").splitlines() == [
        "queue: at the next start",
        "max_mappings: in use",
    ]
    assert gateway.ask("reload") == "queue: at the next start\n"
    gateway.configure()
    assert gateway.ask("reload") == "max_mappings: in use\n"
    assert gateway.ask("reload") == "nothing has changed\n"
