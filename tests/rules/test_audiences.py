"""Who may send to a binding, as far as that follows from all that its pinholes name."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nat_table.behavior import Filtering, Mode6
from nat_table.binding import ANYONE, Binding, Kind, Permit
from nat_table.changes import Admitted, Change, Excluded, Forbidden, Permitted, Turned
from nat_table.endpoint import Endpoint, Transport
from rules.audiences import Audiences
from rules.elements import Element, admitted, elements, latching
from rules.permits import permitting
from rules.settings import Settings

SETTINGS = Settings(("lan0",), "wan0", ("203.0.113.1",))
LATCH = replace(SETTINGS, media_filter=Filtering.LATCH)
STRICT = replace(SETTINGS, media_filter=Filtering.ADDRESS_DEPENDENT)
MEDIA = Binding(
    Transport.UDP, Endpoint("10.0.0.20", 4000), Endpoint("203.0.113.1", 4000), Kind.RTP, 0.0
)
ASKED = replace(MEDIA, kind=Kind.ANY)
ASKED6 = replace(
    ASKED, internal=Endpoint("2001:db8::20", 80), external=Endpoint("2001:db8::20", 80)
)
ONE, OTHER = "198.51.100.7", "198.51.100.8"
NETWORK, PORT, HOST = (
    Permit("198.51.100.0/24"),
    Permit("198.51.100.0/24", 5060),
    Permit("198.51.100.7/32"),
)
KEY = bytes.fromhex("11000000 0a000014 0fa00000")


def test_A49_network_stays_while_one_of_its_addresses_does() -> None:
    audiences = Audiences()
    first = audiences.plan([Admitted(MEDIA, ONE), Admitted(MEDIA, OTHER)], LATCH)
    assert {step.element for step in first.steps} == latching(MEDIA, [ONE])
    audiences.confirm(first)
    assert audiences.plan([Excluded(MEDIA, ONE)], LATCH).steps == []
    both = audiences.plan([Excluded(MEDIA, ONE), Excluded(MEDIA, OTHER)], LATCH)
    assert {step.element for step in both.steps if not step.is_added} == latching(MEDIA, [ONE])


def test_refused_plan_is_forgotten() -> None:
    audiences = Audiences()
    audiences.plan([Admitted(MEDIA, ONE)], LATCH)
    assert len(audiences.plan([Admitted(MEDIA, OTHER)], LATCH).steps) == 2


def test_addresses_follow_from_nothing_else_under_other_policies() -> None:
    assert Audiences().plan([Admitted(MEDIA, ONE)], SETTINGS).steps == []


def test_everybody_is_one_element_and_a_network_an_interval() -> None:
    assert permitting(ASKED, [ANYONE], SETTINGS) == {Element("unfiltered", KEY)}
    assert permitting(ASKED, [Permit("0.0.0.0/0"), NETWORK], SETTINGS) == {
        Element("unfiltered", KEY)
    }
    first, last = bytes.fromhex("c6336400 13c40000"), bytes.fromhex("c63364ff 13c40000")
    assert permitting(ASKED, [PORT], SETTINGS) == {Element("permitted", KEY + first + KEY + last)}
    (every_port,) = permitting(ASKED, [HOST], SETTINGS)
    assert every_port.key.endswith(bytes.fromhex("c6336407 ffff0000"))
    (all_of_a_port,) = permitting(ASKED, [Permit("", 5060)], SETTINGS)
    assert all_of_a_port.key.endswith(bytes.fromhex("ffffffff 13c40000"))


def test_all_ports_of_a_host_leave_out_the_one_that_is_open_to_its_network() -> None:
    """The kernel would take the two in one order, and refuse them in the other."""
    end = Permit(NETWORK.network, 0xFFFF)
    both = permitting(ASKED, [PORT, HOST, end], SETTINGS)
    assert len(both) == 4
    spans = {(_key_at(each, 0), _key_at(each, len(KEY) + 8)) for each in both}
    host, last = bytes.fromhex("c6336407"), bytes.fromhex("c63364ff")
    first = bytes.fromhex("c6336400")
    assert spans == {
        ((first, 5060), (last, 5060)),
        ((first, 0xFFFF), (last, 0xFFFF)),
        ((host, 0), (host, 5059)),
        ((host, 5061), (host, 0xFFFE)),
    }
    assert permitting(ASKED, [PORT, NETWORK], SETTINGS) == permitting(ASKED, [NETWORK], SETTINGS)


def _key_at(element: Element, start: int) -> tuple[bytes, int]:
    remote = element.key[start + len(KEY) :][:8]
    return remote[:4], int.from_bytes(remote[4:6], "big")


def test_a_permit_of_the_other_family_lets_nobody_in() -> None:
    settings = replace(SETTINGS, mode6=Mode6.PINHOLE)
    assert permitting(ASKED, [Permit("2001:db8::/32")], settings) == set()
    assert permitting(ASKED6, [NETWORK], settings) == set()
    (everybody,) = permitting(ASKED6, [ANYONE], settings)
    assert everybody.set_name == "unfiltered6"
    (network,) = permitting(ASKED6, [Permit("2001:db8::/32")], settings)
    assert network.set_name == "permitted6" and len(network.key) == 2 * 44


def test_signalling_over_tcp_is_permitted_by_its_external_endpoint() -> None:
    relayed = replace(ASKED, transport=Transport.TCP, kind=Kind.SIP)
    (everybody,) = permitting(relayed, [ANYONE], SETTINGS)
    assert everybody.key == bytes.fromhex("06000000 cb007101 0fa00000")


@pytest.mark.parametrize("covered", [PORT, HOST])
def test_a_permit_within_another_has_no_element_until_that_goes(covered: Permit) -> None:
    audiences = Audiences()
    both = audiences.plan([Permitted(ASKED, covered), Permitted(ASKED, NETWORK)], SETTINGS)
    assert {step.element for step in both.steps} == permitting(ASKED, [NETWORK], SETTINGS)
    audiences.confirm(both)
    left = audiences.plan([Forbidden(ASKED, NETWORK)], SETTINGS)
    assert [(step.is_added, {step.element}) for step in left.steps] == [
        (False, permitting(ASKED, [NETWORK], SETTINGS)),
        (True, permitting(ASKED, [covered], SETTINGS)),
    ]


@pytest.mark.parametrize(
    ("changes", "is_narrowed"),
    [
        ([Forbidden(ASKED, NETWORK)], True),
        ([Forbidden(ASKED, NETWORK), Permitted(ASKED, HOST)], True),
        ([Forbidden(ASKED, NETWORK), Permitted(ASKED, ANYONE)], False),
        ([Permitted(ASKED, HOST)], False),
        (
            [
                Forbidden(ASKED, NETWORK),
                Turned(replace(ASKED, kind=Kind.SIP), ASKED),
                Permitted(replace(ASKED, kind=Kind.SIP), NETWORK),
            ],
            False,
        ),
    ],
    ids=["gone", "smaller", "larger", "more", "turned"],
)
def test_flows_are_cut_where_somebody_is_let_in_no_longer(
    changes: list[Change], is_narrowed: bool
) -> None:
    audiences = Audiences()
    audiences.confirm(audiences.plan([Permitted(ASKED, NETWORK)], SETTINGS))
    assert bool(audiences.plan(changes, SETTINGS).narrowed) is is_narrowed


def test_nothing_is_cut_where_the_policy_lets_all_in_or_the_first_one() -> None:
    for settings in (SETTINGS, LATCH):
        audiences = Audiences()
        audiences.confirm(audiences.plan([Permitted(MEDIA, NETWORK)], settings))
        assert audiences.plan([Forbidden(MEDIA, NETWORK)], settings).narrowed == []


def test_everything_of_a_binding_by_policy() -> None:
    plain, permits = set(elements(MEDIA, SETTINGS)), permitting(MEDIA, [NETWORK], SETTINGS)
    for settings, more in (
        (SETTINGS, set()),
        (STRICT, {admitted(MEDIA, ONE, STRICT)}),
        (LATCH, latching(MEDIA, [ONE])),
    ):
        audiences = Audiences()
        adopted = set(audiences.adopt([(MEDIA, [ONE, NETWORK])], settings))
        assert adopted == plain | permits | more
        assert len(audiences.plan([Forbidden(MEDIA, NETWORK)], settings).steps) == 1
