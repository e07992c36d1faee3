"""The kernel tells what changes on a router, and is silent about what does not concern sipnat."""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from rules.watch import AddressesChanged, DefaultRouteChanged, Event, LinkChanged, Overrun, Watch
from tests.lab.network import Network

pytestmark = pytest.mark.netns

ADDRESSES = AddressesChanged("wan0")
NEW_WAN = "link add wan0 type veth peer name isp0"
UP, DOWN = LinkChanged("wan0", True), LinkChanged("wan0", False)
SMALL_BUFFER = 16 << 10


@pytest.fixture
def watch(network: Network) -> Iterator[Watch]:
    """Yields a watch over the router; the test itself is in another namespace."""
    with closing(network.router.call(Watch)) as watch:
        yield watch


def ip(network: Network, *commands: str) -> None:
    network.router.run("ip", "-batch", "-", text="\n".join(commands))


def wait_for(watch: Watch, *wanted: Event) -> list[Event]:
    """Returns the events until all those wanted have come; the kernel takes its time for links."""
    seen: list[Event] = []
    while not set(wanted) <= set(seen):
        readable, _, _ = select.select([watch], [], [], 5)
        assert readable, f"heard {seen}, not {wanted}"
        seen += watch.events()
    return seen


def is_silent(watch: Watch) -> bool:
    readable, _, _ = select.select([watch], [], [], 0.1)
    return not readable or watch.events() == []


def test_A33_addresses_come_and_go(network: Network, watch: Watch) -> None:
    assert is_silent(watch)
    ip(network, "addr add 203.0.113.2/24 dev wan0")
    assert watch.events() == [ADDRESSES]
    ip(network, "addr add 192.0.2.7/32 dev wan0 label wan0:vip")
    assert watch.events() == [ADDRESSES]
    ip(network, "addr del 203.0.113.2/24 dev wan0")
    assert watch.events() == [ADDRESSES]
    assert watch.events() == []


def test_A33_address_is_replaced_as_by_dhcp(network: Network, watch: Watch) -> None:
    ip(network, "addr add 198.51.100.5/24 dev wan0", "addr del 203.0.113.1/24 dev wan0")
    assert watch.events() == [ADDRESSES]
    ip(network, "addr change 198.51.100.5/24 dev wan0 valid_lft 600 preferred_lft 600")
    assert watch.events() == [ADDRESSES]


def test_every_interface_is_named(network: Network, watch: Watch) -> None:
    ip(network, "link add vpn0 type veth", "addr add 192.168.7.1/24 dev vpn0")
    assert AddressesChanged("vpn0") in watch.events()
    ip(network, "link set vpn0 name vpn1", "link set vpn1 up", "link set veth0 up")
    wait_for(watch, LinkChanged("vpn1", True))
    ip(network, "addr add 192.168.8.1/24 dev vpn1", "addr add 10.0.0.2/24 dev lan0")
    assert watch.events() == [AddressesChanged("vpn1"), AddressesChanged("lan0")]


def test_link_goes_down_and_up(network: Network, watch: Watch) -> None:
    ip(network, "link set wan0 down")
    assert wait_for(watch, DOWN)[-1] == DOWN
    ip(network, "link set wan0 up")
    assert wait_for(watch, UP)[-1] == UP


def test_the_last_of_equal_events_counts(network: Network, watch: Watch) -> None:
    ip(
        network,
        "addr add 203.0.113.2/24 dev wan0",
        "link set wan0 down",
        "addr del 203.0.113.2/24 dev wan0",
    )
    assert watch.events() == [DOWN, ADDRESSES]


def test_link_without_carrier_is_down(network: Network, watch: Watch) -> None:
    network.wan.run("ip", "link", "set", "eth0", "down")
    assert wait_for(watch, DOWN)[-1] == DOWN
    network.wan.run("ip", "link", "set", "eth0", "up")
    assert wait_for(watch, UP)[-1] == UP


def test_link_is_deleted_and_comes_again_under_its_name(network: Network, watch: Watch) -> None:
    ip(network, "link del wan0")
    assert set(wait_for(watch, DOWN)) == {ADDRESSES, DOWN}
    ip(network, NEW_WAN, "addr add 203.0.113.9/24 dev wan0", "link set wan0 up", "link set isp0 up")
    assert {ADDRESSES, UP} <= set(wait_for(watch, UP))
    ip(network, "link del wan0", NEW_WAN, "link set wan0 up", "link set isp0 up")
    assert wait_for(watch, DOWN, UP)[-1] == UP


def test_link_that_is_renamed_is_gone_under_its_old_name(network: Network, watch: Watch) -> None:
    try:
        ip(network, "link set lan0 name old0")
    except RuntimeError as error:
        pytest.skip(f"this kernel renames no link that is up: {error}")
    heard = wait_for(watch, LinkChanged("old0", True))
    assert LinkChanged("lan0", False) in heard and LinkChanged("lan0", True) not in heard


def test_link_of_a_bridge_stays_up_when_it_leaves_it(network: Network, watch: Watch) -> None:
    ip(network, "link add br0 type bridge", "link set lan0 master br0", "link set lan0 nomaster")
    ip(network, "link set wan0 mtu 1400", "link set wan0 alias uplink")
    assert is_silent(watch)


def test_A93_default_routes_come_and_go_and_no_other_route_is_told(
    network: Network, watch: Watch
) -> None:
    ip(network, "route add 198.18.0.0/15 via 203.0.113.10", "route del 198.18.0.0/15")
    assert is_silent(watch)
    ip(network, "route add default via 203.0.113.10")
    assert watch.events() == [DefaultRouteChanged()]
    ip(network, "route replace default via 203.0.113.11")
    assert watch.events() == [DefaultRouteChanged()]
    ip(network, "route del default")
    assert watch.events() == [DefaultRouteChanged()]


def shrink_buffer(watch: Watch) -> None:
    """Gives the socket behind a watch a buffer that holds no burst."""
    with socket.socket(fileno=socket.dup(watch.fileno())) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)


def test_A33_links_are_known_after_an_overrun(network: Network, watch: Watch) -> None:
    shrink_buffer(watch)
    ip(network, *(f"addr add 10.9.{i // 250}.{i % 250}/32 dev wan0" for i in range(500)))
    ip(network, "link add vpn0 type veth peer name far0", "link del lan0")
    assert Overrun() in watch.events()
    ip(network, "addr add 192.168.7.1/24 dev vpn0")
    assert watch.events()[-1] == AddressesChanged("vpn0")
    ip(network, "link add lan0 type veth peer name far1", "link set lan0 up", "link set far1 up")
    assert LinkChanged("lan0", True) in wait_for(watch, LinkChanged("lan0", True))


def test_an_event_loop_is_woken(network: Network, watch: Watch) -> None:
    async def hear() -> list[Event]:
        loop = asyncio.get_running_loop()
        heard: asyncio.Queue[list[Event]] = asyncio.Queue()
        loop.add_reader(watch.fileno(), lambda: heard.put_nowait(watch.events()))
        await asyncio.to_thread(ip, network, "addr add 203.0.113.2/24 dev wan0")
        return await asyncio.wait_for(heard.get(), 5)

    assert asyncio.run(hear()) == [ADDRESSES]
