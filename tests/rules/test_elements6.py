"""Bindings of IPv6 as elements: sets of their own, and none to translate where nothing is."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv6Network

import pytest

from nat_table.behavior import Filtering, Mode6
from nat_table.binding import Binding, Kind, Owner, Pinhole
from nat_table.changes import Admitted, Opened
from nat_table.endpoint import Endpoint, Transport
from rules.elements import (
    Element,
    Operation,
    admitted,
    bindings,
    elements,
    is_relayed,
    latching,
    listed,
    operations,
    pack_endpoint,
    unpack_endpoint,
    whole,
)
from rules.settings import Settings
from rules.strays import stray

PHONE, HOST = Endpoint("fd00:1::20", 4000), Endpoint("2001:db8:1::20", 4000)
EXTERNAL, TRANSLATED = Endpoint("2001:db8:2::1", 20000), Endpoint("2001:db8:9::20", 4000)
REMOTE = "2001:db8:7::1"
PINHOLE = Settings(("lan0",), "wan0", ("203.0.113.1",), mode6=Mode6.PINHOLE)
NAT66 = replace(PINHOLE, mode6=Mode6.NAT66, external_addresses6=("2001:db8:2::1",))
NPTV6 = replace(
    PINHOLE, mode6=Mode6.NPTV6, prefixes6=(IPv6Network("fd00::/48"), IPv6Network("2001:db8::/48"))
)
SITES = {
    "pinhole": (PINHOLE, HOST, HOST),
    "nat66": (NAT66, PHONE, EXTERNAL),
    "nptv6": (NPTV6, PHONE, TRANSLATED),
}
sites = pytest.mark.parametrize(
    ("settings", "internal", "external"), SITES.values(), ids=SITES.keys()
)
UDP = bytes.fromhex("11000000")
PACKED_PHONE = bytes.fromhex("fd000001 00000000 00000000 00000020 0fa00000")
PACKED_EXTERNAL = bytes.fromhex("20010db8 00020000 00000000 00000001 4e200000")
PACKED_HOST = bytes.fromhex("20010db8 00010000 00000000 00000020 0fa00000")


def bind(
    internal: Endpoint,
    external: Endpoint,
    kind: Kind = Kind.RTP,
    transport: Transport = Transport.UDP,
) -> Binding:
    return Binding(transport, internal, external, kind, 0.0)


def test_nat66_is_as_ipv4_is() -> None:
    assert list(elements(bind(PHONE, EXTERNAL), NAT66)) == [
        Element("inbound6", UDP + PACKED_EXTERNAL, PACKED_PHONE),
        Element("outbound6", UDP + PACKED_PHONE, PACKED_EXTERNAL),
        Element("media6", UDP + PACKED_PHONE),
        Element("bound6", UDP + PACKED_EXTERNAL[-4:]),
    ]


def test_a_pinhole_is_its_endpoint_alone() -> None:
    assert list(elements(bind(HOST, HOST), PINHOLE)) == [Element("media6", UDP + PACKED_HOST)]


def test_under_nptv6_there_is_no_fence() -> None:
    names = [each.set_name for each in elements(bind(PHONE, TRANSLATED, Kind.SIP), NPTV6)]
    assert names == ["inbound6", "outbound6", "signalling6"]


@sites
def test_bindings_come_back_from_the_sets_that_are_listed(
    settings: Settings, internal: Endpoint, external: Endpoint
) -> None:
    made = {
        bind(internal, external),
        bind(Endpoint(internal.address, 5060), Endpoint(external.address, 5060), Kind.SIP),
        bind(Endpoint("10.0.0.20", 4001), Endpoint("203.0.113.1", 20001), Kind.RTCP),
    }
    standing = [element for binding in made for element in elements(binding, settings)]
    read = [element for element in standing if element.set_name in listed(settings)]
    assert set(bindings(read, settings)) == made


def test_half_a_mapping_of_nat66_is_no_pinhole() -> None:
    inbound, outbound, media, bound = elements(bind(PHONE, EXTERNAL), NAT66)
    assert bindings([outbound, media, bound], NAT66) == []
    assert whole([outbound, media, bound], NAT66) == set()
    assert whole([inbound], NAT66) == {inbound, outbound, media, bound}


@sites
def test_a84_remotes_stand_and_fall_with_their_binding(
    settings: Settings, internal: Endpoint, external: Endpoint
) -> None:
    strict = replace(settings, media_filter=Filtering.ADDRESS_DEPENDENT)
    binding = bind(internal, external)
    standing = [*elements(binding, strict), admitted(binding, REMOTE, strict)]
    assert standing[-1].set_name == "admitted6" and len(standing[-1].key) == 40
    assert whole(standing, strict) == set(standing)
    assert whole(standing[-1:], strict) == set()
    (step,) = operations([Admitted(binding, REMOTE)], strict)
    assert step == Operation(True, standing[-1])


def test_a49_a_latch_is_limited_to_the_64_bits_of_public_addresses() -> None:
    media = bind(PHONE, EXTERNAL)
    assert latching(media, ["fd00:9::1", "fe80::1"]) == set()
    network = bytes.fromhex("20010db8 00070000 00000000 00000000")
    assert latching(media, [REMOTE, "2001:db8:7::ffff:1", "fd00:9::1"]) == {
        Element("limited6", UDP + PACKED_PHONE),
        Element("near6", UDP + PACKED_PHONE + network),
    }
    latch = replace(NAT66, media_filter=Filtering.LATCH)
    steps = operations([Opened(media, Pinhole(Owner("call"), 60.0))], latch)
    assert {step.element.set_name for step in steps[-2:]} == {"latched6"}


@sites
def test_a69_tcp_is_relayed_unless_the_relay_is_off_or_another_npt_translates(
    settings: Settings, internal: Endpoint, external: Endpoint
) -> None:
    binding = bind(internal, external, Kind.SIP, Transport.TCP)
    relaying = replace(settings, relay_port=15060)
    for each in (settings, relaying, replace(relaying, has_other_npt=True)):
        names = {element.set_name for element in elements(binding, each)}
        is_expected = each is relaying
        assert is_relayed(binding, each) is ("relayed6" in names) is is_expected
        key = admitted(binding, REMOTE, each).key[4:24]
        assert key == pack_endpoint(external if is_expected else internal)


def test_endpoints_are_packed_and_unpacked_in_their_one_spelling() -> None:
    for endpoint in (PHONE, HOST, EXTERNAL, Endpoint("::1", 1), Endpoint("203.0.113.1", 65535)):
        assert unpack_endpoint(pack_endpoint(endpoint)) == endpoint
    assert [stray(pack_endpoint(each)).set_name for each in (PHONE, Endpoint("10.0.0.1", 1))] == [
        "strays6",
        "strays",
    ]
