"""What an administrator has the running gateway do: drop, flush, drain; with real calls and audio.

A phone whose external port was its own is masqueraded to that by any NAT when its mapping has gone;
so audio is heard to end with the second phone, whose ports are others.
"""

from __future__ import annotations

import json
import re
import subprocess
from typing import Any

import pytest

from tests.lab.agents import SipAgent, Timeout, wait_until
from tests.lab.gateway import SIPNAT, Gateway
from tests.lab.message import Message
from tests.lab.network import EXTERNAL_INTERFACE, INTERNAL_INTERFACE, PHONE_1, PHONE_2, Network
from tests.lab.site import SERVER_MEDIA_1, SERVER_MEDIA_2, Conversation, Site
from tests.netns.calls import check_audio, media_internals
from tests.netns.kernel import conntrack
from tests.netns.streams import PHONE, connect, request

pytestmark = [pytest.mark.netns, pytest.mark.timeout(90)]

WEB = {"internal": f"{PHONE_1}:80", "external": 8080, "transport": "udp"}
MEDIA_1, MEDIA_2 = f"{PHONE_1}:4000", f"{PHONE_2}:4000"
SILENCE = 1.0


def status(gateway: Gateway) -> dict[str, Any]:
    [row] = json.loads(gateway.ask("status", "--json"))
    assert isinstance(row, dict)
    return row


def is_silent(talk: Conversation) -> bool:
    """Tells whether what is sent to the mapping arrives no more."""
    return wait_until(lambda: not talk.flows_on(packets=10, timeout=0.5), 5.0)


def check_turned_away(called: SipAgent, sent: Message) -> None:
    """Checks that a new INVITE does not arrive."""
    with pytest.raises(Timeout):
        called.expect("INVITE", call=sent, timeout=SILENCE)


def test_status_tells_in_a_line_how_the_gateway_is(site: Site, gateway: Gateway) -> None:
    site.register(site.phone_1)
    site.call_out(site.phone_1)
    row = status(gateway)
    assert {key: row[key] for key in ("calls", "registrations", "mappings", "draining")} == {
        "calls": 1,
        "registrations": 1,
        "mappings": 3,
        "draining": False,
    }
    assert not row["is_behind"] and row["uptime"] > 0 and row["version"] and not row["faults"]
    line = gateway.ask("status")
    assert re.fullmatch(
        r"sipnat \S+ up \d+s, in service: calls 1, registrations 1, mappings 3\n", line
    )
    assert len(line) <= 80


def test_status_names_interfaces_that_carry_nothing(gateway: Gateway, network: Network) -> None:
    network.router.run("ip", "link", "set", INTERNAL_INTERFACE, "down")
    network.wan.run("ip", "link", "set", "eth0", "down")
    expected = [
        f"interface {EXTERNAL_INTERFACE} has no carrier",
        f"interface {INTERNAL_INTERFACE} is down",
    ]
    assert wait_until(lambda: status(gateway)["faults"] == expected, 5.0)
    assert " and ".join(expected) in gateway.ask("status")
    network.wan.run("ip", "link", "set", "eth0", "up")
    network.router.run("ip", "address", "flush", "dev", EXTERNAL_INTERFACE)
    network.router.run("ip", "link", "delete", INTERNAL_INTERFACE)
    expected = [
        f"interface {EXTERNAL_INTERFACE} has no IPv4 address",
        f"there is no interface {INTERNAL_INTERFACE}",
    ]
    assert wait_until(lambda: status(gateway)["faults"] == expected, 5.0)


def test_a_dropped_call_loses_its_audio_at_once_and_the_other_goes_on(
    site: Site, gateway: Gateway, network: Network
) -> None:
    _, offer_1 = site.call_out(site.phone_1)
    second, offer_2 = site.call_out(site.phone_2, answer=site.server.offer(media=SERVER_MEDIA_2))
    talk_1 = site.talk(site.phone_1, offer_1, SERVER_MEDIA_1)
    talk_2 = site.talk(site.phone_2, offer_2, SERVER_MEDIA_2)
    assert talk_1.flows_on() and talk_2.flows_on()
    printed = gateway.ask("drop", second.call_id).splitlines()
    assert printed[0] == f"call of {PHONE_2} ended"
    assert f"rtp/udp {MEDIA_2} <-> {talk_2.external} closed" in printed
    assert media_internals(gateway) == {MEDIA_1}
    assert is_silent(talk_2)
    assert f"dport={talk_2.external.port} " not in conntrack(network)
    site.phone_2.send("BYE", call=second)
    site.server.reply(site.server.expect("BYE", call=second), 200)
    site.phone_2.expect(200)
    check_audio(talk_1)


def test_what_a_dropped_call_still_says_opens_nothing(site: Site, gateway: Gateway) -> None:
    sent, _ = site.call_out(site.phone_1)
    gateway.ask("drop", sent.call_id)
    again = site.phone_1.send("INVITE", call=sent, sdp=site.phone_1.offer())
    arrived = site.server.expect("INVITE", call=again)
    site.server.reply(arrived, 200, sdp=site.server.offer())
    site.phone_1.expect(200, call=again)
    assert gateway.show_mappings("rtp", "rtcp") == []
    assert status(gateway)["calls"] == 0


@pytest.mark.parametrize("end", ["internal", "external"])
def test_a_mapping_is_dropped_by_either_end(site: Site, gateway: Gateway, end: str) -> None:
    site.call_out(site.phone_1)
    _, offer = site.call_out(site.phone_2)
    talk = site.talk(site.phone_2, offer, SERVER_MEDIA_1)
    assert talk.flows_on()
    named = MEDIA_2 if end == "internal" else str(talk.external)
    [row] = json.loads(gateway.ask("drop", named, "--json"))
    assert (row["what"], row["internal"], row["state"]) == ("mapping", MEDIA_2, "call")
    assert is_silent(talk)
    assert media_internals(gateway) == {MEDIA_1}
    assert f"{PHONE_2}:4001" in {row["internal"] for row in gateway.show_mappings("rtcp")}


@pytest.mark.parametrize("named", ["no-such-call@nowhere", "10.0.0.99:4000"])
def test_what_there_is_not_cannot_be_dropped(
    network: Network, gateway: Gateway, named: str
) -> None:
    done = subprocess.run(
        network.router.command(SIPNAT, "drop", named, "--control", gateway.control),
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"sipnat: [^\n]+\n", done.stderr)


@pytest.mark.configured(static=[WEB])
def test_a_flush_ends_what_was_signalled_and_phones_begin_anew(
    site: Site, gateway: Gateway
) -> None:
    for phone in (site.phone_1, site.phone_2):
        site.register(phone)
        _, offer = site.call_out(phone)
    talk = site.talk(site.phone_2, offer, SERVER_MEDIA_1)
    assert talk.flows_on()
    assert gateway.ask("flush", "--yes") == "mappings closed: 6\n"
    [left] = gateway.show_mappings()
    assert left["source"] == "static"
    assert is_silent(talk)
    talk.close()
    row = status(gateway)
    assert (row["calls"], row["registrations"], row["is_behind"]) == (0, 0, False)
    site.register(site.phone_1)
    _, offer = site.call_in(site.phone_1)
    assert site.talk(site.phone_1, offer, SERVER_MEDIA_1).flows_on()


@pytest.mark.configured(static=[WEB])
def test_a_flush_of_all_takes_requested_mappings_and_static_ones_are_made_again(
    site: Site, gateway: Gateway
) -> None:
    site.register(site.phone_1)
    gateway.ask("map", "add", "--internal", f"{PHONE_2}:9000", "--type", "rtcp")
    assert gateway.ask("flush", "--all") == "mappings closed: 3\n"
    assert gateway.show_mappings() == []
    assert wait_until(lambda: len(gateway.show_mappings()) == 1, 15.0)
    assert gateway.show_mappings()[0]["source"] == "static"


def test_a_flush_ends_tcp_connections_so_that_phones_connect_anew(
    network: Network, gateway: Gateway
) -> None:
    with connect(network) as line:
        line.exchange()
        gateway.ask("flush")
        assert wait_until(lambda: gateway.show_connections() == [], 5.0)
        assert gateway.show_mappings() == []
        for stream in (line.phone, line.server):
            with pytest.raises(ConnectionResetError):
                stream.is_at_end()


def test_while_it_drains_calls_go_on_and_new_ones_are_turned_away(
    site: Site, gateway: Gateway
) -> None:
    phone, server = site.phone_1, site.server
    for each in (phone, site.phone_2):
        site.register(each)
    sent, offer = site.call_out(phone)
    talk = site.talk(phone, offer, SERVER_MEDIA_1)
    assert gateway.ask("drain") == "calls that go on: 1; new ones are turned away\n"
    new = site.phone_2.send("INVITE", server.address_of_record, sdp=site.phone_2.offer())
    check_turned_away(server, new)
    check_turned_away(site.phone_2, server.call("phone2"))
    site.register(site.phone_2)
    again = phone.send("INVITE", call=sent, sdp=phone.offer())
    server.reply(server.expect("INVITE", call=again), 200, sdp=server.offer())
    phone.expect(200, call=again)
    phone.send("ACK", call=again)
    check_audio(talk)
    assert gateway.show_reasons()["draining"] >= 2
    assert "draining" in gateway.ask("status")
    waiting = subprocess.Popen(
        site.network.router.command(SIPNAT, "drain", "--wait", "--control", gateway.control),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert waiting.stdout is not None
        assert waiting.stdout.readline().startswith("calls that go on: 1;")
        site.hang_up(phone, server, sent)
        assert waiting.wait(10) == 0
        assert waiting.stdout.read().startswith("calls that go on: 0;")
    finally:
        waiting.kill()
        waiting.wait()
    assert gateway.ask("drain", "--off") == "new calls are taken\n"
    site.call_out(site.phone_2)


def test_while_it_drains_a_new_call_over_tcp_holds_nothing_else_up(
    network: Network, gateway: Gateway
) -> None:
    with connect(network) as line:
        line.exchange()
        gateway.ask("drain")
        line.phone.send(request(PHONE, 2, "INVITE"))
        line.phone.send(request(PHONE, 3))
        assert line.server.expect().sequence == 3
