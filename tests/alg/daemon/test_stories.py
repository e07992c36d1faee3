"""The command `why`: what it answers, what it refuses, and that it lets others have their turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from alg.daemon.stories import Stories
from alg.datagram import Datagram
from alg.io.control import Request, RequestRefused, Row
from alg.observe.passage import Passage
from alg.observe.ring import Ring
from tests.alg.observe.test_ring import call, fill


def remembering(*calls: str) -> Ring:
    ring = Ring(4 << 20)
    for name in calls:
        for event in call(name).events:
            if isinstance(event, Passage):
                ring.see(event)
            else:
                ring.notice(event)
    return ring


async def collect(rows: AsyncIterator[Row]) -> list[Row]:
    return [row async for row in rows]


def tell(ring: Ring, **request: object) -> list[Row]:
    return asyncio.run(collect(Stories(ring).tell(request)))


def test_a_call_is_told_in_order_with_what_expired() -> None:
    rows = tell(remembering("one", "other"), call_id="one")
    assert [row.get("status") or row.get("method") or row["what"] for row in rows] == [
        *("INVITE", 180, 200, "INVITE", 488, "expired", "BYE", 200),
    ]
    assert not {"before", "after"} & set(rows[0])
    (full, *_) = tell(remembering("one"), call_id="on~", full=True)
    assert {"before", "after"} <= set(full)


def test_a_phone_is_told_over_all_its_calls() -> None:
    ring = remembering("one", "other")
    assert len(tell(ring, internal="10.0.0.20")) == 16
    assert len(tell(ring, internal="10.0.0.20:4002")) == 4


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        ({"call_id": "nobody"}, "nothing is remembered of the call nobody"),
        ({"internal": "10.0.0.9"}, "nothing is remembered of 10.0.0.9"),
        ({"internal": "lan0"}, "internal is lan0, allowed is such as 10.0.0.20 or"),
        ({}, "why needs a call_id or an internal address"),
        ({"call_id": ""}, "why needs a call_id or an internal address"),
        ({"call_id": "one", "internal": "10.0.0.20"}, "why needs a call_id or an internal"),
        ({"call_id": 7}, "call_id is not a text"),
    ],
)
def test_what_cannot_be_told_is_refused_in_one_sentence(request_: Request, sentence: str) -> None:
    with pytest.raises(RequestRefused, match=sentence):
        tell(remembering("one"), **request_)


def test_a_ring_without_room_says_so() -> None:
    with pytest.raises(RequestRefused, match="trace_megabytes is 0"):
        tell(Ring(), call_id="one")


def test_a_call_id_that_is_not_utf_8_is_found_by_what_rows_call_it() -> None:
    ring = Ring(1 << 20)
    (passage, *_) = call("one").passages
    sent = passage.datagram
    payload = sent.payload.replace(b"Call-ID: one", b"Call-ID: \xffone\xfe-two")
    assert payload != sent.payload
    datagram = Datagram(sent.source, sent.destination, payload, sent.came_from, sent.goes_to)
    outcome = replace(passage.outcome, edits=())
    ring.see(passage._replace(datagram=datagram, outcome=outcome))
    (row,) = tell(ring, internal="10.0.0.20")
    assert row["call_id"] == "\ufffdone\ufffd-two"
    assert [each["number"] for each in tell(ring, call_id=row["call_id"])] == [row["number"]]


def test_others_have_their_turn_while_a_full_ring_is_searched() -> None:
    ring = Ring(8 << 20)
    fill(ring, call("one"), 5000)
    turns = 0

    async def search() -> None:
        nonlocal turns

        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(others())
        with pytest.raises(RequestRefused):
            await collect(Stories(ring).tell({"internal": "10.0.0.2"}))
        task.cancel()

    asyncio.run(search())
    assert turns > 20
