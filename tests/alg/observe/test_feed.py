"""A feed: what it hands on and loses, and that whoever takes from it leaves time for packets."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from alg.datagram import Datagram
from alg.observe.feed import BATCH, MAX_BYTES, MAX_WAITING, Event, Feed
from alg.observe.passage import Occurrence, Passage
from alg.observe.wanted import Wanted
from alg.verdict import Reason
from nat_table.endpoint import parse_host
from tests.alg.observe.test_ring import call
from tests.alg.playbook import PHONE, SERVER

CALL = call("call-1")
MESSAGE = CALL.passages[0]


async def take(feed: Feed, count: int) -> list[Event]:
    taken: list[Event] = []
    async for batch in feed.batches():
        taken += batch
        if len(taken) >= count:
            break
    return taken


def test_events_come_in_their_order_a_few_at_a_time() -> None:
    feed = Feed(Wanted())
    passages = [MESSAGE._replace(time=float(number)) for number in range(2 * BATCH)]
    for passage in passages:
        feed.see(passage)
    assert asyncio.run(take(feed, len(passages))) == passages
    assert feed.take_lost() == 0


def test_what_has_no_room_is_lost_and_counted_once() -> None:
    feed = Feed(Wanted())
    for _ in range(MAX_WAITING + 5):
        feed.see(MESSAGE)
    assert (feed.take_lost(), feed.take_lost()) == (5, 0)
    assert len(asyncio.run(take(feed, MAX_WAITING))) == MAX_WAITING
    feed.see(MESSAGE)
    assert feed.take_lost() == 0


def test_large_messages_fill_a_feed_too() -> None:
    feed = Feed(Wanted())
    datagram = Datagram(PHONE, SERVER, bytes(MAX_BYTES // 4))
    large = MESSAGE._replace(datagram=datagram)
    for _ in range(10):
        feed.see(large)
    assert feed.take_lost() == 6

    async def first() -> list[Event]:
        return await anext(aiter(feed.batches()))

    assert len(asyncio.run(first())) == 1


def test_whoever_takes_rests_for_longer_than_he_works(monkeypatch: pytest.MonkeyPatch) -> None:
    feed, rests = Feed(Wanted()), []
    clock = iter(range(1000))

    async def rest(seconds: float) -> None:
        rests.append(seconds)

    monkeypatch.setattr("alg.observe.feed.now", lambda: next(clock) * 0.001)
    monkeypatch.setattr("alg.observe.feed.asyncio.sleep", rest)
    for _ in range(2 * BATCH + 1):
        feed.see(MESSAGE)
    asyncio.run(take(feed, 2 * BATCH + 1))
    assert rests == pytest.approx([0.029, 0.029])


def wanted(**keys: object) -> list[Event]:
    choice = Wanted(**keys)  # type: ignore[arg-type]
    return [event for event in [*CALL.events, *call("call-2").events] if choice(event)]


def test_a_call_is_wanted_with_its_changes() -> None:
    found = wanted(call_id="call-1")
    assert [each for each in found if isinstance(each, Passage)] == CALL.passages
    assert any(isinstance(each, Occurrence) for each in found)


def test_a_method_is_wanted_with_its_responses() -> None:
    found = wanted(method="BYE", call_id="call-2")
    assert len(found) == 2


@pytest.mark.parametrize(
    ("text", "is_any"),
    [("10.0.0.20", True), ("10.0.0.20:5060", True), ("10.0.0.20:5062", False), ("::1", False)],
)
def test_a_phone_is_wanted_by_its_address_or_endpoint(text: str, is_any: bool) -> None:
    assert bool(wanted(internal=parse_host(text))) is is_any


def test_keepalives_are_never_wanted() -> None:
    outcome = replace(MESSAGE.outcome, reason=Reason.KEEPALIVE, changes=())
    assert not Wanted()(MESSAGE._replace(outcome=outcome))
