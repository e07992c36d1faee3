"""Networks of latching: shared by addresses, and remembered only once the kernel has agreed."""

from __future__ import annotations

from nat_table.behavior import Filtering
from nat_table.binding import Binding, Kind
from nat_table.changes import Admitted, Excluded
from nat_table.endpoint import Endpoint, Transport
from rules.elements import latching
from rules.latches import Latches
from rules.settings import Settings

LATCH = Settings(("lan0",), "wan0", ("203.0.113.1",), media_filter=Filtering.LATCH)
MEDIA = Binding(
    Transport.UDP, Endpoint("10.0.0.20", 4000), Endpoint("203.0.113.1", 4000), Kind.RTP, 0.0
)
ONE, OTHER = "198.51.100.7", "198.51.100.8"


def test_A49_network_stays_while_one_of_its_addresses_does() -> None:
    latches = Latches()
    first = latches.plan([Admitted(MEDIA, ONE), Admitted(MEDIA, OTHER)], LATCH)
    assert {step.element for step in first.steps} == latching(MEDIA, [ONE])
    latches.confirm(first)
    assert latches.plan([Excluded(MEDIA, ONE)], LATCH).steps == []
    both = latches.plan([Excluded(MEDIA, ONE), Excluded(MEDIA, OTHER)], LATCH)
    assert {step.element for step in both.steps if not step.is_added} == latching(MEDIA, [ONE])


def test_refused_plan_is_forgotten() -> None:
    latches = Latches()
    latches.plan([Admitted(MEDIA, ONE)], LATCH)
    assert len(latches.plan([Admitted(MEDIA, OTHER)], LATCH).steps) == 2


def test_other_policies_need_none() -> None:
    settings = Settings(("lan0",), "wan0", ("203.0.113.1",))
    assert Latches().plan([Admitted(MEDIA, ONE)], settings).steps == []
