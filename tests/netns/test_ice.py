"""ICE through the gateway: what c= says is what the phone's own STUN probe has found (RFC 8839)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from queue import Queue

import aioice
import pytest

from nat_table.endpoint import Endpoint
from tests.lab.gateway import Gateway
from tests.lab.namespace import Namespace
from tests.lab.network import PHONE_1, SERVER, Network
from tests.lab.sdp import media_endpoint
from tests.lab.site import Site
from tests.lab.stun import StunServer, probe
from tests.netns.masqueraded import masqueraded

pytestmark = [pytest.mark.netns, pytest.mark.timeout(90)]

TIMEOUT = 20.0


@pytest.fixture
def stun_server(network: Network) -> Iterator[StunServer]:
    with StunServer(network.wan, SERVER) as server:
        yield server


def render_ice(connection: aioice.Connection, host: str) -> bytes:
    """Renders an offer whose c= and m= are the agent's host candidate at `host`."""
    candidates = [each for each in connection.local_candidates if each.component == 1]
    default = next(each for each in candidates if each.host == host and each.type == "host")
    lines = [
        "v=0",
        f"o=- 1 1 IN IP4 {host}",
        "s=-",
        f"c=IN IP4 {host}",
        "t=0 0",
        f"m=audio {default.port} RTP/AVP 0",
        f"a=ice-ufrag:{connection.local_username}",
        f"a=ice-pwd:{connection.local_password}",
        *(f"a=candidate:{each.to_sdp()}" for each in candidates),
        "a=rtcp-mux",
        "",
    ]
    return "\r\n".join(lines).encode()


async def take_ice(connection: aioice.Connection, sdp: bytes) -> None:
    """Hands a description to the agent, which must not see an ICE mismatch (RFC 8839 §5.4)."""
    lines = sdp.decode().splitlines()
    values = dict(line[2:].split(":", 1) for line in lines if line.startswith("a=ice-"))
    connection.remote_username = values["ice-ufrag"]
    connection.remote_password = values["ice-pwd"]
    found = [
        aioice.Candidate.from_sdp(line.partition(":")[2])
        for line in lines
        if line.startswith("a=candidate:")
    ]
    assert media_endpoint(sdp) in {Endpoint(each.host, each.port) for each in found}, sdp.decode()
    for candidate in found:
        await connection.add_remote_candidate(candidate)
    await connection.add_remote_candidate(None)


def test_a39_the_mapping_is_the_one_that_the_phones_probe_has_made(
    site: Site, network: Network, gateway: Gateway, stun_server: StunServer
) -> None:
    with masqueraded(network, stun_server) as (phone, port, seen):
        offer = "\r\n".join(
            (
                "v=0",
                f"o=- 1 1 IN IP4 {PHONE_1}",
                "s=-",
                f"c=IN IP4 {PHONE_1}",
                "t=0 0",
                f"m=audio {port} RTP/AVP 0",
                f"a=candidate:1 1 UDP 2130706431 {PHONE_1} {port} typ host",
                f"a=candidate:2 1 UDP 1694498815 {seen.address} {seen.port} typ srflx"
                f" raddr {PHONE_1} rport {port}",
                "",
            )
        ).encode()
        site.register(site.phone_1)
        sent = site.phone_1.send("INVITE", site.server.address_of_record, sdp=offer)
        arrived = site.server.expect("INVITE", call=sent)
        assert media_endpoint(arrived.body) == seen
        before = [line for line in offer.split(b"\r\n") if line.startswith(b"a=")]
        after = [line for line in arrived.body.split(b"\r\n") if line.startswith(b"a=")]
        assert after == before, "candidates are never touched"
        assert probe(phone, stun_server.endpoint) == seen


def test_a39_real_ice_agents_connect_through_the_gateway(
    site: Site, network: Network, stun_server: StunServer
) -> None:
    offers: Queue[bytes] = Queue()
    answers: Queue[bytes] = Queue()

    async def caller() -> bytes:
        connection = aioice.Connection(ice_controlling=True, stun_server=stun_server.endpoint)
        await connection.gather_candidates()
        offers.put(render_ice(connection, PHONE_1))
        await take_ice(connection, await asyncio.to_thread(answers.get, timeout=TIMEOUT))
        await connection.connect()
        await connection.send(b"from the phone")
        heard = await connection.recv()
        await connection.close()
        return heard

    async def callee(offer: bytes) -> bytes:
        connection = aioice.Connection(ice_controlling=False)
        await connection.gather_candidates()
        await take_ice(connection, offer)
        answers.put(render_ice(connection, SERVER))
        await connection.connect()
        await connection.send(b"from outside")
        heard = await connection.recv()
        await connection.close()
        return heard

    heard: dict[str, bytes] = {}

    def run(name: str, namespace: Namespace, play: Callable[[], bytes]) -> threading.Thread:
        def save() -> None:
            heard[name] = namespace.call(play)

        thread = threading.Thread(target=save, daemon=True)
        thread.start()
        return thread

    site.register(site.phone_1)
    phone = run("phone", network.lan, lambda: asyncio.run(caller()))
    sent = site.phone_1.send(
        "INVITE", site.server.address_of_record, sdp=offers.get(timeout=TIMEOUT)
    )
    arrived = site.server.expect("INVITE", call=sent)
    remote = run("remote", network.wan, lambda: asyncio.run(callee(arrived.body)))
    for thread in (phone, remote):
        thread.join(TIMEOUT)
    assert heard == {"phone": b"from outside", "remote": b"from the phone"}
