"""What the kernel hands to user space: SIP and nothing else, also when nobody listens."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import netfilterqueue
import pytest

from nat_table.binding import Kind
from rules.backend import KernelBackend
from rules.settings import Settings
from tests.lab.network import (
    EXTERNAL,
    EXTERNAL_INTERFACE,
    INTERNAL_INTERFACE,
    PHONE_1,
    PHONE_2,
    REMOTE_1,
    SERVER,
    Network,
)
from tests.netns.kernel import POOL_PORT, SETTINGS, Peer, conntrack, install, opened

pytestmark = pytest.mark.netns

LISTEN = """
from netfilterqueue import NetfilterQueue
def take(packet):
    packet.set_payload(packet.get_payload()[:-1] + b"!")
    packet.accept()
queue = NetfilterQueue()
queue.bind(5060, take)
print("ready", flush=True)
queue.run()
"""


@pytest.fixture
def listener(network: Network, backend: KernelBackend) -> Iterator[None]:
    """Runs a user-space listener that turns the last byte of every captured packet into "!"."""
    command = network.router.command(sys.executable, "-c", LISTEN)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        yield
        process.kill()


def open_checksum(peer: Peer) -> None:
    """Lets a sender omit the UDP checksum, which the listener does not mend."""
    so_no_check = 11
    peer.udp.setsockopt(socket.SOL_SOCKET, so_no_check, 1)


def test_A51_captured_packet_leaves_by_the_mapping_made_while_it_waits(
    network: Network, backend: KernelBackend, peers: dict[str, Peer]
) -> None:
    def bind_and_commit(packet: netfilterqueue.Packet) -> None:
        backend.commit([opened(PHONE_1, POOL_PORT, kind=Kind.SIP)])
        packet.accept()

    queue = network.router.call(netfilterqueue.NetfilterQueue)
    queue.bind(SETTINGS.queue_number, bind_and_commit)
    try:
        for _ in range(2):
            peers[PHONE_1].send(b"REGISTER", SERVER, 5060)
            time.sleep(0.05)
            queue.run(block=False)
            assert peers[SERVER].expect(b"REGISTER") == (EXTERNAL, POOL_PORT)
        assert conntrack(network).count(f"src={PHONE_1}") == 1
    finally:
        queue.unbind()


@pytest.mark.usefixtures("listener")
def test_what_is_captured(network: Network, backend: KernelBackend, peers: dict[str, Peer]) -> None:
    for peer in peers.values():
        open_checksum(peer)
    backend.commit([opened(PHONE_1, 5060, kind=Kind.SIP), opened(PHONE_2, POOL_PORT)])
    phone, server, remote = peers[PHONE_1], peers[SERVER], peers[REMOTE_1]

    phone.send(b"to a SIP port?", SERVER, 5060)
    assert server.expect(b"to a SIP port!") == (EXTERNAL, 5060)
    phone.send(b"a SIP socket to any port?", REMOTE_1, 7000)
    remote.expect(b"a SIP socket to any port!")
    remote.send(b"from any remote?", EXTERNAL, 5060)
    phone.expect(b"from any remote!")
    peers[PHONE_2].send(b"unmapped to a SIP port?", SERVER, 5060)
    server.expect(b"unmapped to a SIP port!")
    peers[PHONE_2].send(b"media?", REMOTE_1, 7000)
    remote.expect(b"media?")
    remote.send(b"media?", EXTERNAL, POOL_PORT)
    peers[PHONE_2].expect(b"media?")
    peers[PHONE_2].send(b"hairpin?", EXTERNAL, 5060)
    phone.expect(b"hairpin!")
    phone.send(b"hairpin?", EXTERNAL, POOL_PORT)
    peers[PHONE_2].expect(b"hairpin!")

    network.router.call(backend.release_capture)
    phone.send(b"released?", SERVER, 5060)
    server.expect(b"released?")


@pytest.mark.parametrize("is_fail_open", [True, False])
def test_A74_without_a_listener_signalling_passes_or_is_held(
    network: Network, backend: KernelBackend, peers: dict[str, Peer], is_fail_open: bool
) -> None:
    settings = Settings(
        (INTERNAL_INTERFACE,), EXTERNAL_INTERFACE, (EXTERNAL,), is_fail_open=is_fail_open
    )
    install(network, settings)
    assert network.router.run("iptables-save").count("NFQUEUE") <= 1
    peers[PHONE_1].send(b"REGISTER", SERVER, 5060)
    if is_fail_open:
        peers[SERVER].expect(b"REGISTER")
    else:
        peers[SERVER].expect_nothing()
