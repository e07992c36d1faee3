"""More messages than the gateway can serve: a call that is up goes on, and then all is well."""

from __future__ import annotations

import json
import os
import signal
import socket
import time

import pytest

from alg.daemon.overload import LONG
from tests.lab.agents import wait_until
from tests.lab.gateway import Gateway
from tests.lab.message import via_sent_by
from tests.lab.network import PHONE_2, REMOTE_1, Network
from tests.lab.site import Site
from tests.netns.test_gateway_process import well_formed

pytestmark = [pytest.mark.netns, pytest.mark.timeout(120)]

HALF = 2000
"""Messages before and after those of the call: the queue has room for them all."""

ROUNDS = 10


@pytest.mark.parametrize("on_failure", ["pass", "hold"])
def test_a_call_goes_on_while_the_queue_is_long(network: Network, on_failure: str) -> None:
    with (
        Gateway(network.router, on_failure=on_failure) as gateway,
        Site(network) as site,
        network.lan.udp_socket(PHONE_2, 5070) as flood,
        network.wan.udp_socket(REMOTE_1, 5060),
    ):
        sent, _ = site.call_out(site.phone_1)
        for number in range(ROUNDS):
            os.kill(gateway.pid, signal.SIGSTOP)
            fill(flood, 2 * number)
            site.phone_1.send("INFO", call=sent)
            fill(flood, 2 * number + 1)
            os.kill(gateway.pid, signal.SIGCONT)
            rest(gateway)
            info = site.server.expect("INFO", timeout=20.0)
            assert via_sent_by(info["Via"]) == info.source
            site.server.reply(info, 200)
            site.phone_1.expect(200)
            assert wait_until(lambda: waiting(gateway) == 0, timeout=20.0)
            if gateway.show_reasons().get("overload"):
                break
        else:
            pytest.fail("the gateway was never overloaded")
        site.hang_up(site.phone_1, site.server, sent)
        site.call_out(site.phone_1)
        assert any("packets wait for" in line for line in gateway.log)


def fill(flood: socket.socket, number: int) -> None:
    """Sends as many requests that begin something."""
    for each in range(number * HALF, (number + 1) * HALF):
        flood.sendto(well_formed(each).replace(b":5060;", b":5070;"), (REMOTE_1, 5060))


def rest(gateway: Gateway) -> None:
    """Holds the gateway up once it has begun, so that on any machine what waits is late."""
    time.sleep(0.02)
    os.kill(gateway.pid, signal.SIGSTOP)
    time.sleep(LONG)
    os.kill(gateway.pid, signal.SIGCONT)


def waiting(gateway: Gateway) -> int:
    """Returns how many packets wait in the gateway's queue."""
    rows = json.loads(gateway.show("kernel", "--json"))
    return sum(row["value"] for row in rows if row["item"] == "queue waiting")
