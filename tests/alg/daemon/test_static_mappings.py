"""Mappings of the configuration: made at start, dropped with their table, tried again."""

from __future__ import annotations

import asyncio

import pytest

from alg.daemon import static_mappings
from alg.daemon.static_mappings import StaticMappings
from alg.static_mapping import StaticMapping
from nat_table.behavior import Behavior
from nat_table.lease import Source
from tests.alg.port_manager.office import HOST, Office

WEB = StaticMapping(f"{HOST}:80", 8080, "tcp")
OTHER_WEB = StaticMapping("10.0.0.9:80", 8080, "tcp")
QUARANTINE = Behavior().quarantine_timeout
PBX = StaticMapping(f"{HOST}:5060", "203.0.113.1:5060", "udp")


@pytest.fixture
def office(monkeypatch: pytest.MonkeyPatch) -> Office:
    office = Office()
    monkeypatch.setattr(static_mappings, "now", lambda: office.now)
    return office


def begin(office: Office, *wanted: StaticMapping) -> StaticMappings:
    made = StaticMappings(wanted, office.leases)
    made.begin()
    return made


def test_they_stand_for_ever_and_the_next_start_finds_them(office: Office) -> None:
    begin(office, WEB, PBX)
    office.wait(1e9)
    standing = {f"{HOST}:80": "203.0.113.1:8080", f"{HOST}:5060": "203.0.113.1:5060"}
    assert office.mappings() == standing
    changes = len(office.committed)
    begin(office, WEB, PBX)
    assert len(office.committed) == changes


@pytest.mark.parametrize(
    "others",
    [
        (),
        (StaticMapping(f"{HOST}:80", 8081, "tcp"),),
        (StaticMapping(f"{HOST}:80", 8080, "udp"),),
        (StaticMapping(f"{HOST}:80", "203.0.113.1:8081", "tcp"),),
    ],
)
def test_what_the_configuration_has_no_more_is_dropped(
    office: Office, others: tuple[StaticMapping, ...]
) -> None:
    begin(office, WEB)
    begin(office, *others)
    assert [str(each.external_port) for each in others] == [
        external.rpartition(":")[2] for external in office.mappings().values()
    ]


def test_one_that_cannot_be_had_is_said_once_and_made_when_it_can(
    office: Office, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(office, OTHER_WEB)
    elsewhere = StaticMapping(f"{HOST}:81", "203.0.113.2:8081", "tcp")
    kept = StaticMappings((WEB, elsewhere), office.leases)
    monkeypatch.setattr(static_mappings, "INTERVAL", 0.001)

    async def scenario() -> None:
        keeping = asyncio.create_task(kept.keep())
        while len(caplog.messages) < 2:
            await asyncio.sleep(0)
        office.leases.release(Source.STATIC, *OTHER_WEB.socket, office.now)
        office.now += QUARANTINE
        while not office.mappings():
            await asyncio.sleep(0)
        keeping.cancel()

    asyncio.run(asyncio.wait_for(scenario(), 5.0))
    assert office.mappings() == {f"{HOST}:80": "203.0.113.1:8080"}
    assert caplog.messages == [
        f"static mapping of {HOST}:80, tried again: external port 8080 cannot be had",
        f"static mapping of {HOST}:81, tried again: the external address of {HOST} is 203.0.113.1",
    ]
