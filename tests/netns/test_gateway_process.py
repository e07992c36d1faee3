"""The gateway as a process: crash, restart, clean stop, refusals, floods, and large messages."""

from __future__ import annotations

import random
import re
import signal
import subprocess
import sys
from contextlib import closing

import pytest

from nat_table.endpoint import Endpoint
from tests.lab.agents import SipAgent, receive_all
from tests.lab.gateway import SIPNAT, Gateway
from tests.lab.message import bare_uri, parse, uri_endpoint, via_sent_by
from tests.lab.network import EXTERNAL, PHONE_1, PHONE_2, SERVER, Network
from tests.lab.site import SERVER_MEDIA_1, Site

pytestmark = [pytest.mark.netns, pytest.mark.timeout(90)]

FLOOD = 2000
BURST = 50
LARGE_BODY = 60_000
NOBODY = "65534"
CAPTURE_RULE = re.compile(r"NFQUEUE|\bqueue (?:num|flags|to)\b")


def capture_rules(network: Network) -> list[str]:
    """Returns the rules on the router that hand packets to a queue, by nft or by iptables."""
    listing = network.ruleset() + network.router.run("iptables-save")
    return [line for line in listing.splitlines() if CAPTURE_RULE.search(line)]


def test_the_phone_can_hang_up_after_a_crash_and_restart(site: Site, gateway: Gateway) -> None:
    sent, _ = site.call_out(site.phone_1)
    gateway.kill()
    gateway.start()
    site.phone_1.send("BYE", call=sent)
    bye = site.server.expect("BYE")
    assert via_sent_by(bye["Via"]) == bye.source
    site.server.reply(bye, 200)
    site.phone_1.expect(200)
    assert site.phone_1.discarded == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_takes_the_capture_rules_away_and_exits_0(
    network: Network, gateway: Gateway, site: Site, number: signal.Signals
) -> None:
    _, offer = site.call_out(site.phone_1)
    talk = site.talk(site.phone_1, offer, SERVER_MEDIA_1)
    assert capture_rules(network)
    assert gateway.stop(number) == 0
    assert capture_rules(network) == []
    assert talk.flows_on(), "a clean stop must not cut a call"
    site.phone_1.send("OPTIONS", site.server.address_of_record)
    assert site.server.expect("OPTIONS")["Contact"] == site.phone_1.contact


def test_a_flood_of_sip_leaves_the_gateway_up(network: Network, gateway: Gateway) -> None:
    phone = network.lan.udp_socket(PHONE_1, 5060)
    server = network.wan.udp_socket(SERVER, 5060)
    with phone, server:
        arrived = []
        for number in range(FLOOD):
            phone.sendto(well_formed(number), (SERVER, 5060))
            if number % BURST == BURST - 1:
                arrived += receive_all(server, quiet=0.1)
        assert gateway.is_running
        call_ids = {message.call_id for raw, source in arrived if (message := parse(raw, source))}
        assert call_ids == {f"{number}@{PHONE_1}" for number in range(FLOOD)}
        for raw, source in arrived:
            message = parse(raw, source)
            assert message is not None and via_sent_by(message["Via"]) == source
    check_still_works(network)


def test_a85_a_flood_of_noise_passes_byte_identical(network: Network, gateway: Gateway) -> None:
    rng = random.Random(5060)
    noise = [rng.randbytes(rng.randrange(1, 1400)) for _ in range(FLOOD)]
    phone = network.lan.udp_socket(PHONE_1, 5060)
    server = network.wan.udp_socket(SERVER, 5060)
    with phone, server:
        arrived = []
        for first in range(0, FLOOD, BURST):
            for raw in noise[first : first + BURST]:
                phone.sendto(raw, (SERVER, 5060))
            arrived += receive_all(server, quiet=0.1)
    assert gateway.is_running
    assert [raw for raw, _ in arrived] == noise
    check_still_works(network)


def test_a03_a85_mutilated_sip_leaves_the_gateway_up(network: Network, gateway: Gateway) -> None:
    rng = random.Random(3261)
    phone = network.lan.udp_socket(PHONE_2, 5060)
    with phone, network.wan.udp_socket(SERVER, 5060) as server:
        for number in range(FLOOD):
            raw = bytearray(well_formed(number))
            for _ in range(rng.randrange(1, 8)):
                raw[rng.randrange(len(raw))] = rng.randrange(256)
            phone.sendto(raw[: rng.randrange(1, len(raw) + 1)], (SERVER, 5060))
            if number % BURST == BURST - 1:
                receive_all(server, quiet=0.05)
    assert gateway.is_running
    check_still_works(network)


@pytest.mark.parametrize(
    "keepalive",
    [b"\r\n", b"\r\n\r\n", b"\0\0\0\0", b"jaK", b"\x00\x01\x00\x00\x21\x12\xa4\x42" + b"t" * 12],
    ids=["crlf", "double-crlf", "zeros", "jak", "stun"],
)
def test_a72_keepalives_pass_untouched(
    network: Network, gateway: Gateway, keepalive: bytes
) -> None:
    phone = network.lan.udp_socket(PHONE_1, 5060)
    server = network.wan.udp_socket(SERVER, 5060)
    with phone, server:
        phone.sendto(keepalive, (SERVER, 5060))
        [(raw, source)] = receive_all(server, quiet=0.3)
        assert raw == keepalive
        server.sendto(keepalive, source)
        assert receive_all(phone, quiet=0.3) == [(keepalive, Endpoint(SERVER, 5060))]


def test_a70_a_message_of_60_kilobytes_arrives_whole_and_rewritten(site: Site) -> None:
    body = random.Random(70).randbytes(LARGE_BODY)
    content = ("application/octet-stream", body)
    site.phone_1.send("MESSAGE", site.server.address_of_record, body=content)
    arrived = site.server.expect("MESSAGE")
    assert arrived.body == body
    assert arrived["Content-Length"] == str(LARGE_BODY)
    assert via_sent_by(arrived["Via"]) == arrived.source
    assert arrived.source.address == EXTERNAL
    site.server.reply(arrived, 200)
    site.phone_1.expect(200)

    site.register(site.phone_2)
    contact = site.server.registrations["phone2"]
    site.server.send("MESSAGE", site.phone_2.address_of_record, uri=contact, body=content)
    arrived = site.phone_2.expect("MESSAGE")
    assert (arrived.uri, arrived.body) == (bare_uri(site.phone_2.contact), body)


@pytest.mark.parametrize("side", ["--internal", "--external"])
def test_a_missing_interface_is_refused_in_one_sentence(network: Network, side: str) -> None:
    other = ("--external", "wan0") if side == "--internal" else ("--internal", "lan0")
    check_refused(network, [SIPNAT, "run", side, "nosuch0", *other], "nosuch0")


def test_a_second_gateway_is_refused_in_one_sentence(network: Network, gateway: Gateway) -> None:
    check_refused(network, gateway.arguments(), "another sipnat")
    assert gateway.is_running
    check_still_works(network)


@pytest.mark.parametrize("keys", [{}, {"queue": 77}], ids=["same-queue", "own-queue"])
def test_a_second_gateway_with_another_socket_is_refused_too(
    network: Network, gateway: Gateway, keys: dict[str, int]
) -> None:
    with closing(Gateway(network.router, **keys)) as second:
        check_refused(network, second.arguments(), "another sipnat")
    assert gateway.is_running
    check_still_works(network)


def test_another_user_who_takes_the_name_of_its_socket_keeps_no_gateway_out(
    network: Network,
) -> None:
    hold = "import socket, time; s = socket.socket(1); s.bind('\\0sipnat'); s.listen(); "
    squat = [sys.executable, "-c", f"{hold}print('held', flush=True); time.sleep(60)"]
    as_nobody = ["setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]
    with subprocess.Popen(
        network.router.command(*as_nobody, *squat), stdout=subprocess.PIPE, text=True
    ) as squatter:
        try:
            assert squatter.stdout is not None and squatter.stdout.readline() == "held\n"
            with Gateway(network.router) as gateway:
                assert any("somebody else" in line for line in gateway.log)
                check_still_works(network)
        finally:
            squatter.kill()


def test_without_root_it_is_refused_in_one_sentence(network: Network) -> None:
    as_nobody = ["setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]
    readable = subprocess.run([*as_nobody, SIPNAT, "version"], capture_output=True, check=False)
    if readable.returncode:
        pytest.skip("the checkout is not readable by other users")
    with closing(Gateway(network.router)) as refused:
        check_refused(network, [*as_nobody, *refused.arguments()], "root")


def test_another_user_who_asks_is_told_who_may(network: Network) -> None:
    as_nobody = ["setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]
    readable = subprocess.run([*as_nobody, SIPNAT, "version"], capture_output=True, check=False)
    if readable.returncode:
        pytest.skip("the checkout is not readable by other users")
    with Gateway(network.router) as gateway:
        asked = subprocess.run(
            [*as_nobody, SIPNAT, "show", "calls", "--control", gateway.control],
            capture_output=True,
            text=True,
            check=False,
        )
    assert (asked.returncode, asked.stdout) == (1, "")
    assert asked.stderr == (
        f"sipnat: only root and the group of {gateway.control} may ask the gateway: try with sudo\n"
    )


def test_starting_twice_in_turn_leaves_one_set_of_rules(network: Network) -> None:
    rulesets = []
    for _ in range(2):
        gateway = Gateway(network.router)
        with gateway:
            rulesets.append(network.router.run("nft", "--terse", "list", "ruleset"))
            assert gateway.stop() == 0
    assert rulesets[0] == rulesets[1]


def test_it_gets_ready_where_nobody_answers_and_begins_without_mappings(network: Network) -> None:
    for other_end in (network.lan, network.wan):
        other_end.run("ip", "link", "set", "eth0", "down")
    with Gateway(network.router) as gateway:
        assert gateway.show_mappings() == []


def well_formed(number: int) -> bytes:
    """Renders one of many different OPTIONS that a phone might send."""
    return (
        f"OPTIONS sip:{SERVER} SIP/2.0\r\n"
        f"Via: SIP/2.0/UDP {PHONE_1}:5060;branch=z9hG4bK{number};rport\r\n"
        f"From: <sip:phone1@{SERVER}>;tag={number}\r\nTo: <sip:{SERVER}>\r\n"
        f"Call-ID: {number}@{PHONE_1}\r\nCSeq: {number} OPTIONS\r\nMax-Forwards: 70\r\n"
        f"Contact: <sip:phone1@{PHONE_1}:5060>\r\nContent-Length: 0\r\n\r\n"
    ).encode()


def check_refused(network: Network, command: list[str], word: str) -> None:
    """Checks for exit status 1, one sentence on stderr, and an untouched ruleset."""
    before = network.ruleset()
    done = subprocess.run(
        network.router.command(*command), capture_output=True, text=True, timeout=20
    )
    assert (done.returncode, done.stdout) == (1, "")
    [sentence] = done.stderr.splitlines()
    assert sentence.startswith("sipnat: ") and word in sentence
    assert network.ruleset() == before


def check_still_works(network: Network) -> None:
    """Checks that a phone can still register through the gateway."""
    with (
        SipAgent(network.lan, "late", PHONE_1, 5070, proxy=Endpoint(SERVER, 5060)) as phone,
        SipAgent(network.wan, "server", SERVER) as server,
    ):
        phone.register()
        request = server.expect("REGISTER")
        assert uri_endpoint(bare_uri(request["Contact"])) == request.source
        server.reply(request, 200)
        phone.expect(200)
