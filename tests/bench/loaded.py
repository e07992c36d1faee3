"""`./dev bench loaded`: a router with 100,000 mappings: how it starts, and what a call costs then.

Everything is real but the phones: the kernel's maps, conntrack, the store on disk, the process. A
call is seven packets through the packet path, changes committed and all; its figure is the median
of several runs.
"""

from __future__ import annotations

import gc
import statistics
import time
from contextlib import closing

import dpkt

from alg.daemon.ledger import Ledger
from alg.daemon.packet_path import PacketPath
from alg.daemon.process import ROW_VERSION
from alg.datagram import Side
from alg.gateway import Gateway as Engine
from alg.gateway_settings import GatewaySettings
from alg.io.store import Store, boot_id
from nat_table.endpoint import Endpoint
from nat_table.table import NatTable
from rules.backend import Backend, KernelBackend
from rules.memory import MemoryBackend
from rules.settings import Settings
from tests.bench.rewrite import SDP, message
from tests.bench.table import EXTERNAL, MAPPINGS, fill, new_table
from tests.lab.gateway import Gateway
from tests.lab.network import EXTERNAL_INTERFACE, INTERNAL_INTERFACE, Network

SERVER = Endpoint("198.51.100.1", 5060)
LAN, WAN = 1, 2
SIDES = {LAN: Side.INTERNAL, WAN: Side.EXTERNAL}
RUNS, CALLS = 9, 60
SETTINGS = Settings((INTERNAL_INTERFACE,), EXTERNAL_INTERFACE, tuple(EXTERNAL))
NEVER = 1e9


def packet(source: Endpoint, destination: Endpoint, payload: bytes) -> bytes:
    """Encodes an IPv4 packet."""
    udp = dpkt.udp.UDP(sport=source.port, dport=destination.port, data=payload)
    udp.ulen = len(udp)
    addresses = [bytes(map(int, each.address.split("."))) for each in (source, destination)]
    ip = dpkt.ip.IP(src=addresses[0], dst=addresses[1], p=dpkt.ip.IP_PROTO_UDP, data=udp)
    ip.len = len(ip)
    return bytes(ip)


def call(number: int) -> list[tuple[bytes, int, int]]:
    """Returns the packets of one call, INVITE to the answer of BYE, with their interfaces."""
    phone = Endpoint(f"10.200.{number // 250}.{number % 250}", 5060)
    host, far = phone.address, SERVER.address
    tag = ";tag=8321234356"
    out = [
        message("INVITE sip:bob@example.com SIP/2.0", "1 INVITE", host, "", SDP.format(host=host)),
        message("ACK sip:bob@example.com SIP/2.0", "1 ACK", host, tag),
        message("BYE sip:bob@example.com SIP/2.0", "2 BYE", host, tag),
    ]
    back = [
        message("SIP/2.0 100 Trying", "1 INVITE", EXTERNAL[0]),
        message("SIP/2.0 180 Ringing", "1 INVITE", EXTERNAL[0], tag),
        message("SIP/2.0 200 OK", "1 INVITE", EXTERNAL[0], tag, SDP.format(host=far)),
        message("SIP/2.0 200 OK", "2 BYE", EXTERNAL[0], tag),
    ]
    call_id = f"{number}@{host}".encode()
    order = [(out[0], True), *((each, False) for each in back[:3]), (out[1], True)]
    order += [(out[2], True), (back[3], False)]
    return [
        (packet(phone, SERVER, own), LAN, WAN) if is_out else (packet(SERVER, phone, own), WAN, LAN)
        for each, is_out in order
        for own in (each.replace(b"3848276298220188511@atlanta.example.com", call_id),)
    ]


def filled() -> NatTable:
    """Returns a table with all its mappings, which never expire."""
    table = new_table()
    for binding in fill(table):
        table.refresh(binding, table.pinholes(binding)[0].owner, NEVER)
    table.take_changes()
    return table


def path_of(table: NatTable, backend: Backend) -> PacketPath:
    """Returns the packet path of a gateway with this table."""
    engine = Engine(GatewaySettings(tuple(EXTERNAL)), table, backend.masqueraded)
    return PacketPath(engine, Ledger(table, backend), SIDES.__getitem__, 0)


def call_cost(network: Network, table: NatTable | None) -> float:
    """Returns the microseconds of a call; the kernel has the table's mappings already."""
    backend = network.router.call(lambda: KernelBackend(SETTINGS))
    path = path_of(table or new_table(), backend)
    times = []
    for run in range(RUNS):
        packets = [each for number in range(CALLS) for each in call(run * CALLS + number)]
        start = time.perf_counter()
        for each in packets:
            path.handle(*each)
        times.append((time.perf_counter() - start) / CALLS * 1e6)
    return statistics.median(times)


def reconcile(table: NatTable, backend: KernelBackend) -> float:
    """Returns the seconds until the kernel is equal to the table."""
    start = time.perf_counter()
    for _ in Ledger(table, backend).reconcile():
        pass
    return time.perf_counter() - start


def save(table: NatTable, path: str) -> None:
    """Writes the store that a gateway with this table would leave."""
    store = Store(path, boot_id(), ROW_VERSION)
    store.load()
    rows = dict(Ledger(table, MemoryBackend(SETTINGS)).take_rows(has_all=True))
    store.save_all({key: row for key, row in rows.items() if row is not None})
    store.close()


def start_gateway(network: Network, table: NatTable | None) -> float:
    """Returns the seconds from the start of the process to its "ready"."""
    with closing(
        Gateway(network.router, external_addresses=EXTERNAL, max_mappings=2 * MAPPINGS)
    ) as gateway:
        if table is not None:
            save(table, gateway.store)
        start = time.perf_counter()
        gateway.start(timeout=60)
        seconds = time.perf_counter() - start
        gateway.stop()
    return seconds


def main() -> None:
    """Prints the table."""
    with Network() as network:
        for address in EXTERNAL[1:]:
            network.router.run("ip", "addr", "add", f"{address}/24", "dev", EXTERNAL_INTERFACE)
        bare = start_gateway(network, None)
        backend = network.router.call(lambda: KernelBackend(SETTINGS))
        network.router.call(backend.install)
        alone = call_cost(network, None)
        loaded = filled()
        print(f"{len(loaded):,} mappings")
        print(f"{'to make an empty kernel equal':44}{reconcile(loaded, backend):9.2f} s")
        print(f"{'to find an equal kernel equal':44}{reconcile(loaded, backend):9.2f} s")
        gc.freeze()
        crowded = call_cost(network, loaded)
        times = crowded / alone
        full = start_gateway(network, loaded)
    print(f"{'a call with its commits, nothing loaded':44}{alone:9.0f} us")
    print(f"{'a call with its commits, all loaded':44}{crowded:9.0f} us, {times:.2f} times")
    print(f"{'start to ready, no mappings':44}{bare:9.2f} s")
    print(f"{'start to ready, store and kernel full':44}{full:9.2f} s")
