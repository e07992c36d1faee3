"""Bindings and changes as elements of the kernel's maps, byte by byte and back again."""

from __future__ import annotations

import random
from dataclasses import replace

from nat_table.behavior import Filtering
from nat_table.binding import Binding, Kind, Owner, Pinhole
from nat_table.changes import Admitted, Change, Closed, Excluded, Opened, Refreshed, Turned
from nat_table.endpoint import Endpoint, Transport
from rules.elements import (
    Element,
    Operation,
    admitted,
    bindings,
    elements,
    latching,
    operations,
    whole,
)
from rules.settings import Settings

PINHOLE = Pinhole(Owner("call"), 60.0)


def bind(
    internal_port: int,
    external_port: int,
    kind: Kind = Kind.RTP,
    transport: Transport = Transport.UDP,
) -> Binding:
    return Binding(
        transport,
        Endpoint("10.0.0.20", internal_port),
        Endpoint("203.0.113.1", external_port),
        kind,
        0.0,
    )


SETTINGS = Settings(("lan0",), "wan0", ("203.0.113.1", "203.0.113.2"))
LATCHING = replace(SETTINGS, media_filter=Filtering.LATCH)
UDP = bytes.fromhex("11000000")
INTERNAL = bytes.fromhex("0a000014 0fa00000")
EXTERNAL = bytes.fromhex("cb007101 4e200000")
REMOTE = bytes.fromhex("c6336407")


def test_media_is_one_element_in_each_map_its_endpoint_and_a_bound_port() -> None:
    assert list(elements(bind(4000, 20000), SETTINGS)) == [
        Element("inbound", UDP + EXTERNAL, INTERNAL),
        Element("outbound", UDP + INTERNAL, EXTERNAL),
        Element("media", UDP + INTERNAL),
        Element("bound", UDP + EXTERNAL[4:]),
    ]


def test_A93_only_the_address_of_masquerade_needs_a_fence() -> None:
    other = replace(bind(4000, 20000), external=Endpoint("203.0.113.2", 20000))
    names = [element.set_name for element in elements(other, SETTINGS)]
    assert names == ["inbound", "outbound", "media"]


def test_signalling_is_marked() -> None:
    made = elements(bind(5060, 5060, Kind.SIP), SETTINGS)
    assert [element.set_name for element in made] == ["inbound", "outbound", "signalling", "bound"]


def test_A69_signalling_over_tcp_is_relayed_and_admits_by_its_external_endpoint() -> None:
    sip = bind(5060, 20000, Kind.SIP, Transport.TCP)
    made = list(elements(sip, SETTINGS))
    assert [element.set_name for element in made if element.set_name != "relayed"] == [
        *("inbound", "outbound", "signalling", "bound")
    ]
    assert Element("relayed", EXTERNAL) in made
    (admission,) = operations([Admitted(sip, "198.51.100.7")], SETTINGS)
    tcp = bytes.fromhex("06000000")
    assert admission == Operation(True, Element("admitted", tcp + EXTERNAL + REMOTE))
    standing = [*made, admission.element]
    assert whole(standing, SETTINGS) == set(standing)
    assert whole(standing[1:], SETTINGS) == set()


def test_A53_media_over_tcp_is_left_to_the_kernels_nat() -> None:
    made = elements(bind(4000, 20000, transport=Transport.TCP), SETTINGS)
    assert [element.set_name for element in made] == ["inbound", "outbound", "media", "bound"]


def test_what_was_asked_for_is_never_captured_and_admits_by_address() -> None:
    asked = bind(8080, 8080, Kind.ANY)
    made = elements(asked, SETTINGS)
    assert [element.set_name for element in made] == ["inbound", "outbound", "requested", "bound"]
    open_to_all = replace(SETTINGS, signalling_filter=Filtering.ENDPOINT_INDEPENDENT)
    (step,) = operations([Admitted(asked, "198.51.100.7")], open_to_all)
    assert step.element.set_name == "admitted"


def test_what_turns_into_signalling_moves_from_one_set_to_the_other_and_keeps_its_maps() -> None:
    for transport, more in ((Transport.UDP, []), (Transport.TCP, ["relayed"])):
        asked = bind(5060, 20000, Kind.ANY, transport)
        steps = operations([Turned(replace(asked, kind=Kind.SIP), asked)], SETTINGS)
        assert [(step.is_added, step.element.set_name) for step in steps] == [
            (False, "requested"),
            (True, "signalling"),
            *((True, name) for name in more),
        ]


def test_operations_keep_the_order_of_changes_and_skip_refreshes() -> None:
    first, second = bind(4000, 20000), bind(4002, 20000)
    refreshed = Refreshed(second, PINHOLE, None)
    changes: list[Change] = [Closed(first, (PINHOLE,)), refreshed, Opened(second, PINHOLE)]
    steps = operations(changes, SETTINGS)
    assert [step.is_added for step in steps] == [False] * 4 + [True] * 4
    assert [step.element for step in steps[4:]] == list(elements(second, SETTINGS))
    assert steps[0].undone() == Operation(True, steps[0].element)


def test_A84_remotes_are_admitted_where_the_policy_depends_on_addresses() -> None:
    sip, media = bind(5060, 5060, Kind.SIP), bind(4000, 20000)
    changes = [Admitted(sip, "198.51.100.7"), Admitted(media, "198.51.100.7")]
    (step,) = operations(changes, SETTINGS)
    internal = UDP + bytes.fromhex("0a000014 13c40000")
    assert step == Operation(True, Element("admitted", internal + REMOTE))
    assert operations([Excluded(sip, "198.51.100.7")], SETTINGS) == [step.undone()]
    strict = replace(SETTINGS, media_filter=Filtering.ADDRESS_DEPENDENT)
    assert len(operations(changes, strict)) == 2
    open_to_all = replace(SETTINGS, signalling_filter=Filtering.ENDPOINT_INDEPENDENT)
    assert operations(changes, open_to_all) == []


def test_A49_a_latch_is_limited_to_the_networks_of_public_addresses() -> None:
    media = bind(4000, 20000)
    assert latching(media, ["10.1.2.3", "192.168.1.1", "100.64.0.9", "172.16.0.1"]) == set()
    assert latching(media, ["10.1.2.3", "198.51.100.7", "198.51.100.8"]) == {
        Element("limited", UDP + INTERNAL),
        Element("near", UDP + INTERNAL + bytes.fromhex("c6336400")),
    }


def test_A78_a_new_mapping_has_no_latch_of_an_earlier_call() -> None:
    latched = Element("latched", UDP + INTERNAL)
    steps = operations([Opened(bind(4000, 20000), PINHOLE)], LATCHING)
    assert steps[-2:] == [Operation(True, latched), Operation(False, latched)]


def test_remotes_without_a_mapping_are_not_kept() -> None:
    media = bind(4000, 20000)
    standing = [*elements(media, SETTINGS), admitted(media, "198.51.100.7", SETTINGS)]
    assert whole(standing, SETTINGS) == set(standing)
    assert whole(standing[1:], SETTINGS) == set()


def test_bindings_come_back_from_their_elements_in_any_order() -> None:
    made = {
        bind(5060, 5060, Kind.SIP),
        bind(4000, 20000, Kind.RTP),
        bind(4001, 20001, Kind.RTCP),
        bind(5060, 5060, Kind.SIP, Transport.TCP),
        bind(8080, 8080, Kind.ANY, Transport.TCP),
        bind(8081, 8081, Kind.ANY),
    }
    standing = [element for binding in made for element in elements(binding, SETTINGS)]
    random.Random(1).shuffle(standing)
    assert set(bindings(standing, SETTINGS)) == made


def test_a_binding_is_known_by_its_element_of_inbound() -> None:
    binding = bind(4000, 20000)
    inbound, outbound, *others = elements(binding, SETTINGS)
    assert bindings([inbound], SETTINGS) == [binding]
    assert bindings([outbound, *others], SETTINGS) == []
