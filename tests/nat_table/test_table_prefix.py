"""The table where an IPv6 prefix stands for another: computed addresses, everybody's own ports."""

import random
from ipaddress import IPv6Network

import pytest

from nat_table.behavior import Behavior
from nat_table.binding import Binding, Kind, Pinhole
from nat_table.endpoint import Endpoint, Transport
from nat_table.prefix import PrefixTranslation
from nat_table.refusal import NoExternalAddress, NoFreePort, QuotaExceeded, RateExceeded
from nat_table.table import NatTable
from tests.nat_table.phones import CALL, FLOW, SIP, bind

INSIDE, OUTSIDE = "fd00::/48", "2001:db8::/48"
HOST, OTHER = "fd00::20", "fd00::21"
MAPPED = "2001:db8:0:cf47::20"


def new_table(external: str = OUTSIDE, **knobs: object) -> NatTable:
    translation = PrefixTranslation(IPv6Network(INSIDE), IPv6Network(external))
    behavior = Behavior(**knobs)  # type: ignore[arg-type]
    return NatTable(["203.0.113.1"], behavior, random.Random(1), translation)


def test_a_host_has_its_computed_address_and_its_own_ports() -> None:
    table = new_table()
    assert table.external_address(HOST) == MAPPED
    for port in (1024, 5060, 61000, 65535):  # the fence is for masqueraded flows
        assert bind(table, Endpoint(HOST, port)).external == (MAPPED, port)
    pair = table.bind_pair(
        Endpoint(HOST, 4000), Endpoint(HOST, 4001), CALL, now=0.0, expires_at=9.0
    )
    assert [binding.external for binding in pair] == [(MAPPED, 4000), (MAPPED, 4001)]
    assert bind(table, SIP).external.address == "203.0.113.1"


def test_on_a_routed_network_everything_stands_for_itself() -> None:
    table = new_table(INSIDE)
    binding = bind(table, Endpoint(HOST, 5060))
    assert binding.internal == binding.external
    assert table.look_up_external(Transport.UDP, binding.external) == binding


def test_a_table_without_ipv4_serves_ipv6() -> None:
    translation = PrefixTranslation(IPv6Network("::/0"), IPv6Network("::/0"))
    table = NatTable([], Behavior(), random.Random(1), translation)
    assert bind(table, Endpoint("2001:db8::20", 5060)).external == ("2001:db8::20", 5060)
    with pytest.raises(NoExternalAddress):
        bind(table, SIP)


def test_a_closed_port_is_its_owners_at_once_and_needs_no_quarantine() -> None:
    table = new_table()
    first = bind(table, Endpoint(HOST, 4000))
    table.close(first, FLOW, 1.0)
    table.revert(table.take_changes())
    assert len(table) == 0
    again = bind(table, Endpoint(HOST, 4000), now=1.0)
    assert again.external == first.external
    table.take_changes()
    table.close(again, FLOW, 2.0)
    table.revert(table.take_changes())
    assert list(table.bindings()) == [again]


def test_a_wanted_port_is_the_own_one_or_none() -> None:
    binding = new_table().bind(
        Transport.UDP, Endpoint(HOST, 4000), Kind.RTP, CALL, now=0.0, expires_at=9.0, wanted=4444
    )
    assert binding.external == (MAPPED, 4000)


def test_a_port_below_1024_is_refused_and_one_of_the_routers_own_is_not() -> None:
    table = new_table(denied_ports=frozenset({5060}))
    with pytest.raises(NoFreePort):
        bind(table, Endpoint(HOST, 1023))
    assert bind(table, Endpoint(HOST, 5060)).external == (MAPPED, 5060)


def test_a_row_ends_with_the_ports() -> None:
    row = [Endpoint(HOST, port) for port in range(65534, 65538)]
    with pytest.raises(NoFreePort):
        new_table().bind_pairs(row, CALL, now=0.0, expires_at=9.0)


@pytest.mark.parametrize("host", ["2001:db8::20", "fd01::1", "fd00::ffff:ffff:ffff:ffff"])
def test_a_host_without_a_counterpart_is_refused(host: str) -> None:
    with pytest.raises(NoExternalAddress, match=host):
        bind(new_table(), Endpoint(host, 5060))


def test_a77_quotas_and_rates_apply() -> None:
    table = new_table(max_mappings_per_host=2, max_new_per_second=1)
    bind(table, Endpoint(HOST, 4000))
    with pytest.raises(RateExceeded):
        bind(table, Endpoint(HOST, 4001))
    bind(table, Endpoint(HOST, 4001), now=2.0)
    with pytest.raises(QuotaExceeded, match="has 2 mappings"):
        bind(table, Endpoint(HOST, 4002), now=4.0)
    bind(table, Endpoint(OTHER, 4002), now=4.0)


@pytest.mark.parametrize("external", [(OTHER, 5060), (MAPPED, 5062), ("203.0.113.1", 5060)])
def test_only_what_the_translation_says_is_adopted(external: tuple[str, int]) -> None:
    table = new_table()
    internal = Endpoint(HOST, 5060)
    wrong = Binding(Transport.UDP, internal, Endpoint(*external), Kind.SIP, 0.0)
    with pytest.raises(ValueError, match="is not free"):
        table.adopt(wrong, Pinhole(FLOW, 9.0), 0.0)
    right = Binding(Transport.UDP, internal, Endpoint(MAPPED, 5060), Kind.SIP, 0.0)
    table.adopt(right, Pinhole(FLOW, 9.0), 0.0)
    assert list(table.bindings()) == [right]
