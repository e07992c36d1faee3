"""The ring: what it keeps, that it stays in its room, and how it is searched."""

from __future__ import annotations

import gc
import tracemalloc
from dataclasses import replace

from alg.datagram import Datagram
from alg.observe.passage import Occurrence, Passage
from alg.observe.record import decode_record, encode_passage
from alg.observe.ring import RECORDS_PER_STEP, Found, Ring
from alg.observe.story import passage_row
from alg.verdict import Outcome, Reason, Verdict
from tests.alg.observe.watched import Watched
from tests.alg.playbook import PHONE, SERVER, invite, request, response, sdp


def call(call_id: str = "call-1") -> Watched:
    """Returns a call with a re-INVITE that is refused."""
    play = Watched()
    sent = play.outbound(invite(body=sdp("10.0.0.20", 4000), call_id=call_id))
    play.inbound(response(sent.payload, 180))
    play.inbound(response(sent.payload, 200, body=sdp("203.0.113.10", 40000)))
    play.wait(10)
    offer = invite(body=sdp("10.0.0.20", 4002, version=2), call_id=call_id, cseq=2, to_tag="b")
    play.inbound(response(play.outbound(offer).payload, 488))
    play.wait(10)
    ended = play.outbound(request("BYE", call_id=call_id, cseq=3, to_tag="b"))
    play.inbound(response(ended.payload, 200))
    return play


def fill(ring: Ring, play: Watched, count: int) -> None:
    """Has the ring see the messages of a call again and again."""
    passages = play.passages
    for i in range(count):
        ring.see(passages[i % len(passages)])


def find_all(ring: Ring, needle: str = "") -> list[Found]:
    return [found for step in ring.search(needle, lambda event: True) for found in step]


def test_what_comes_out_of_the_ring_tells_the_same_story() -> None:
    for passage in call().passages:
        again = decode_record(encode_passage(passage))
        assert isinstance(again, Passage)
        assert (again.came, again.left) == (passage.came, passage.left)
        assert passage_row(again, 0, 1, is_full=True) == passage_row(passage, 0, 1, is_full=True)


def test_the_ring_keeps_messages_and_occurrences_in_order() -> None:
    play, ring = call(), Ring(1 << 20)
    for event in play.events:
        (ring.see if isinstance(event, Passage) else ring.notice)(event)  # type: ignore[arg-type]
    found = find_all(ring)
    assert [each.number for each in found] == list(range(1, len(play.events) + 1))
    assert [type(each.event) for each in found] == [type(each) for each in play.events]
    assert any(isinstance(each.event, Occurrence) for each in found)


def test_the_ring_takes_no_more_memory_than_its_room() -> None:
    play, room = call(), 2 << 20
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    ring = Ring(room)
    fill(ring, play, 10_000)
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert 0.8 * room < taken <= room
    numbers = [each.number for each in find_all(ring)]
    assert numbers == list(range(10_001 - len(ring), 10_001)), "the newest stay"


def test_a_record_larger_than_the_room_is_not_kept() -> None:
    ring = Ring(500)
    fill(ring, call(), 3)
    assert len(ring) == 0


def test_a_smaller_room_pushes_the_oldest_out() -> None:
    ring = Ring(1 << 20)
    fill(ring, call(), 100)
    ring.resize(20_000)
    assert 0 < len(ring) < 30
    assert find_all(ring)[-1].number == 100


def test_keepalives_that_change_nothing_are_left_out() -> None:
    ring, payload = Ring(1 << 20), b"\r\n\r\n"
    outcome = Outcome(Verdict.UNCHANGED, Reason.KEEPALIVE, payload)
    passage = Passage(1.0, 0.0, 0.0, Datagram(PHONE, SERVER, payload), outcome, None, None)
    ring.see(passage)
    assert len(ring) == 0
    ring.see(passage._replace(outcome=replace(outcome, reason=Reason.NOT_SIP)))
    assert len(ring) == 1


def test_a_search_goes_in_short_steps_and_bears_what_comes_meanwhile() -> None:
    ring = Ring(8 << 20)
    fill(ring, call("one"), 1000)
    fill(ring, call("other"), 1000)
    search = ring.search("one", lambda event: True)
    found = next(search)
    assert len(found) <= RECORDS_PER_STEP
    fill(ring, call("one"), 500)
    rest = [len(step) for step in search]
    assert max(rest) <= RECORDS_PER_STEP
    assert len(rest) > 10
    assert len(found) + sum(rest) == 1000
