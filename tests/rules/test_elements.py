"""Bindings and changes as elements of the kernel's maps, byte by byte and back again."""

from __future__ import annotations

import random

from nat_table.binding import Binding, Kind, Owner, Pinhole
from nat_table.changes import Closed, Opened, Refreshed
from nat_table.endpoint import Endpoint, Transport
from rules.elements import Element, Operation, bindings, elements, operations

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


UDP = bytes.fromhex("11000000")
INTERNAL = bytes.fromhex("0a000014 0fa00000")
EXTERNAL = bytes.fromhex("cb007101 4e200000")


def test_media_is_one_element_in_each_map_and_a_bound_port() -> None:
    assert list(elements(bind(4000, 20000))) == [
        Element("inbound", UDP + EXTERNAL, INTERNAL),
        Element("outbound", UDP + INTERNAL, EXTERNAL),
        Element("bound", UDP + EXTERNAL[4:]),
    ]


def test_signalling_is_marked() -> None:
    names = [element.set_name for element in elements(bind(5060, 5060, Kind.SIP))]
    assert names == ["inbound", "outbound", "bound", "signalling"]
    tcp = elements(bind(5060, 5060, Kind.SIP, Transport.TCP))
    assert [element.set_name for element in tcp] == ["inbound", "outbound", "bound"]


def test_operations_keep_the_order_of_changes_and_skip_refreshes() -> None:
    first, second = bind(4000, 20000), bind(4002, 20000)
    steps = operations(
        [
            Closed(first, (PINHOLE,)),
            Refreshed(second, PINHOLE, None),
            Opened(second, PINHOLE),
        ],
    )
    assert [step.is_added for step in steps] == [False, False, False, True, True, True]
    assert [step.element for step in steps[3:]] == list(elements(second))
    assert steps[0].undone() == Operation(True, steps[0].element)


def test_bindings_come_back_from_their_elements_in_any_order() -> None:
    made = {
        bind(5060, 5060, Kind.SIP),
        bind(4000, 20000, Kind.RTP),
        bind(4001, 20001, Kind.RTCP),
        bind(5060, 5060, Kind.RTP, Transport.TCP),
    }
    standing = [element for binding in made for element in elements(binding)]
    random.Random(1).shuffle(standing)
    assert set(bindings(standing)) == made


def test_half_a_mapping_is_none() -> None:
    inbound, outbound, _ = elements(bind(4000, 20000))
    _, other, _ = elements(bind(4000, 20002))
    assert bindings([inbound]) == bindings([outbound]) == bindings([inbound, other]) == []
