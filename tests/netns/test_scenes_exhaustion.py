"""One host that wants all ports, while another telephones."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from nat_table.endpoint import Endpoint
from tests.lab.gateway import Gateway
from tests.lab.network import PHONE_1, SERVER, Network
from tests.lab.site import SERVER_MEDIA_1, Site
from tests.netns.calls import check_audio, media_is_released

pytestmark = [pytest.mark.netns, pytest.mark.timeout(90)]

ATTACKER = Endpoint(PHONE_1, 5061)
POOL = range(20000, 20040)
MAX_MAPPINGS_PER_HOST = 24
MAX_NEW_PER_SECOND = 40
STREAMS = 8
# Fewer a second than the gateway can read: this is about ports, not about its time.
PAUSE = 0.005
CALLS = 5
ATTACK_TIME = 2.0


@pytest.mark.configured(
    ports=f"{POOL[0]}-{POOL[-1]}",
    max_mappings_per_host=MAX_MAPPINGS_PER_HOST,
    max_new_mappings_per_second=100,
)
def test_a77_a_host_that_wants_every_port_leaves_the_others_theirs(
    site: Site, network: Network, gateway: Gateway
) -> None:
    phone, server = site.phone_2, site.server
    with greedy_host(network):
        site.register(phone)
        for number in range(CALLS):
            if number % 2:
                call, offer = site.call_out(phone)
            else:
                call, offer = site.call_in(phone)
            with site.talk(phone, offer, SERVER_MEDIA_1) as talk:
                check_audio(talk)
            site.hang_up(phone, server, call)
            assert media_is_released(gateway, call)
            assert len(of_attacker(gateway)) <= MAX_MAPPINGS_PER_HOST
        assert len(of_attacker(gateway)) > MAX_MAPPINGS_PER_HOST // 2, "it did not try"
    assert gateway.is_running


@pytest.mark.configured(max_new_mappings_per_second=MAX_NEW_PER_SECOND)
def test_a77_a_host_gets_few_new_mappings_a_second_and_the_log_says_so_once(
    site: Site, network: Network, gateway: Gateway
) -> None:
    started_at = time.monotonic()
    with greedy_host(network):
        time.sleep(ATTACK_TIME)
        call, offer = site.call_out(site.phone_2)
    made = len(of_attacker(gateway))
    (warning,) = [line for line in gateway.log if "may lack audio" in line]
    assert warning.endswith(f"{PHONE_1} has opened {MAX_NEW_PER_SECOND} mappings within a second")
    seconds = time.monotonic() - started_at
    assert MAX_NEW_PER_SECOND <= made <= MAX_NEW_PER_SECOND * (seconds + 1)
    check_audio(site.talk(site.phone_2, offer, SERVER_MEDIA_1))
    site.hang_up(site.phone_2, site.server, call)
    assert media_is_released(gateway, call)


def of_attacker(gateway: Gateway) -> list[str]:
    """Returns the internal endpoints for which the attacker has mappings."""
    rows = gateway.show_mappings()
    return [row["internal"] for row in rows if row["internal"].startswith(f"{ATTACKER.address}:")]


@contextmanager
def greedy_host(network: Network) -> Iterator[None]:
    """Lets a host send INVITEs for new ports, those of the other phone and of the pool first."""
    is_over = threading.Event()

    def send() -> None:
        with network.lan.udp_socket(*ATTACKER) as udp:
            for number in itertools.count():
                if is_over.wait(PAUSE):
                    return
                udp.sendto(greedy_invite(number), (SERVER, 5060))

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def greedy_invite(number: int) -> bytes:
    """Renders an INVITE of a new call with ports that no earlier one named."""
    wanted = [*range(4000, 4010, 2), 5060, *POOL, *range(30000, 60000, 2)]
    first = number * STREAMS % (len(wanted) - STREAMS)
    ports = wanted[first : first + STREAMS]
    sdp = (
        f"v=0\r\no=- 1 1 IN IP4 {PHONE_1}\r\ns=-\r\nc=IN IP4 {PHONE_1}\r\nt=0 0\r\n"
        + "".join(f"m=audio {port} RTP/AVP 0\r\n" for port in ports)
    ).encode()
    head = (
        f"INVITE sip:nobody@{SERVER} SIP/2.0\r\n"
        f"Via: SIP/2.0/UDP {ATTACKER};branch=z9hG4bK{number};rport\r\n"
        f"From: <sip:greedy@{SERVER}>;tag={number}\r\nTo: <sip:nobody@{SERVER}>\r\n"
        f"Call-ID: {number}@{PHONE_1}\r\nCSeq: 1 INVITE\r\nMax-Forwards: 70\r\n"
        f"Contact: <sip:greedy@{ATTACKER}>\r\nContent-Type: application/sdp\r\n"
        f"Content-Length: {len(sdp)}\r\n\r\n"
    )
    return head.encode() + sdp
