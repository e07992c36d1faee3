"""Rows of a story: their names, what changes are told, whose a message is, and its words."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from alg.datagram import Datagram
from alg.observe.entry import parse_entries
from alg.observe.heading import Heading, read_heading
from alg.observe.ladder import draw_ladder
from alg.observe.ladder_svg import render_svg
from alg.observe.ladder_text import render_ladder
from alg.observe.narration import narrate
from alg.observe.passage import Passage
from alg.observe.record import decode_record, encode_passage
from alg.observe.story import is_of_call, is_of_host, occurrence_row, passage_row
from alg.observe.words import REASONS
from alg.verdict import Outcome, Reason, Verdict
from tests.alg.observe.test_ring import call
from tests.alg.observe.watched import Watched
from tests.alg.playbook import PHONE, PHONE_2, SERVER, invite, request, sdp

NAMES = {
    *("event", "number", "time", "direction", "transport", "source", "destination"),
    *("left_source", "left_destination", "method", "status", "call_id", "cseq"),
    *("verdict", "reason", "detail", "edits", "steps", "opened", "closed", "ending"),
    *("took", "commit"),
}
HOSTILE = b"<script>alert(1)</script>\x1b]0;owned\x07\xff"
OF_CONNECTIONS = {"opaque", "connection-limit", "not-diverted", "unmapped", "unreachable"}
Row = dict[str, Any]


def rows_of(play: Watched, *, is_full: bool = False) -> list[Row]:
    return [
        passage_row(event, 0.0, number, is_full=is_full)
        if isinstance(event, Passage)
        else occurrence_row(event, 0.0)
        for number, event in enumerate(play.events, start=1)
    ]


def test_a_row_has_names_that_never_change_and_is_json() -> None:
    for row in rows_of(call()):
        wanted = NAMES if row["event"] == "message" else {"event", "time", "what", "ending"}
        assert set(row) == wanted | {"opened", "closed"}
        json.dumps(row)


def test_a_row_tells_both_sides_of_the_nat() -> None:
    invited, ringing, *_ = rows_of(call(), is_full=True)
    assert (invited["source"], invited["left_source"]) == ("10.0.0.20:5060", "203.0.113.1:5060")
    assert invited["destination"] == invited["left_destination"] == "203.0.113.10:5060"
    assert (ringing["destination"], ringing["left_destination"]) == (
        "203.0.113.1:5060",
        "10.0.0.20:5060",
    )
    assert (invited["method"], invited["status"], invited["cseq"]) == ("INVITE", None, 1)
    assert (ringing["method"], ringing["status"]) == ("INVITE", 180)
    assert (invited["took"], invited["commit"]) == (500, 200)
    after = base64.b64decode(invited["after"])
    assert b"203.0.113.1" in after and b"10.0.0.20" not in after
    assert b"10.0.0.20" in base64.b64decode(invited["before"])


def test_a_host_and_its_port_are_one_edit() -> None:
    play = Watched()
    play.outbound(invite(PHONE, sdp("10.0.0.20", 4000)))
    play.outbound(invite(PHONE_2, sdp("10.0.0.21", 4000), call_id="other"), PHONE_2)
    edits = {edit["what"]: (edit["old"], edit["new"]) for edit in rows_of(play)[1]["edits"]}
    external = play.mappings("sip")["10.0.0.21:5060"]
    assert edits["via"] == edits["contact"] == ("10.0.0.21:5060", external)


def test_the_refused_offer_is_given_up_and_then_expires() -> None:
    rows = rows_of(call())
    refused = next(row for row in rows if row.get("status") == 488)
    assert refused["steps"] == ["rolled back"]
    assert [(row["internal"], row["expires_in"]) for row in refused["ending"]] == [
        ("10.0.0.20:4002", 5.0),
        ("10.0.0.20:4003", 5.0),
    ]
    (change,) = (row for row in rows if row["event"] == "change")
    assert change["what"] == "expired"
    assert {row["internal"] for row in change["closed"]} == {"10.0.0.20:4002", "10.0.0.20:4003"}
    ended = rows[-1]
    assert {row["internal"] for row in ended["closed"]} == {"10.0.0.20:4000", "10.0.0.20:4001"}


def test_what_is_dropped_has_not_left() -> None:
    (passage, *_) = call().passages
    drop = Outcome(Verdict.DROPPED, Reason.COMMIT_FAILED, b"", detail="no memory")
    row = passage_row(passage._replace(outcome=drop), 0.0, 1, is_full=True)
    assert (row["left_source"], row["left_destination"], row["after"]) == (None, None, None)
    text = "\n".join(line.text for line in narrate(parse_entries([row])))
    assert "dropped: the kernel refused a mapping, so it must come again (no memory)" in text


def test_times_are_utc_as_those_of_a_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    row = passage_row(call().passages[0], 0.0, 1, is_full=False) | {"time": 0.0}
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("TZ", "JST-9")
        time.tzset()
        day, _, message = (line.text for line in list(narrate(parse_entries([row])))[:3])
    time.tzset()
    assert (day, message) == ("1970-01-01 (UTC)", "00:00:00.000  INVITE")


def test_whose_a_message_is() -> None:
    play = call("one")
    for event in play.events:
        assert is_of_call(event, "one")
        assert is_of_call(event, "on~")
        assert not is_of_call(event, "on")
        assert is_of_host(event, "10.0.0.20", None)
        assert not is_of_host(event, "10.0.0.2", None)
        assert not is_of_host(event, "203.0.113.10", None)
    of_port = [event for event in play.events if is_of_host(event, "10.0.0.20", 4002)]
    assert len(of_port) == 2, "the re-INVITE that opened it, and its end"


@pytest.mark.parametrize(
    ("message", "heading"),
    [
        (b"INVITE sip:a@b SIP/2.0\r\ni: x y \r\nCSeq: 7 INVITE\r\n\r\n", ("INVITE", 0, "x y", 7)),
        (b"SIP/2.0 180 Ringing\nCall-ID:x\nCSEQ :7 INVITE\n\ni: no", ("INVITE", 180, "x", 7)),
        (b"\r\nSIP/2.0 200\r\n\r\nCall-ID: body", ("", 200, "", None)),
        (b"INVITE sip:a@b SIP/2.0\r\nbroken\r\nCall-ID: x", ("INVITE", 0, "x", None)),
        (b"\x80\x60rtp", ("", 0, "", None)),
        (b"GET / HTTP/1.1\r\nCall-ID: x\r\n\r\n", ("", 0, "", None)),
        (b"", ("", 0, "", None)),
    ],
)
def test_a_heading_is_read_leniently(message: bytes, heading: tuple[object, ...]) -> None:
    found = read_heading(message)
    assert (found.method, found.status, found.call_id, found.cseq) == heading


def test_the_heading_of_a_hostile_message_is_read_in_linear_time() -> None:
    for piece in (b"\nCSeq:", b"\ni:", b" ", b"\n", b"A", b"\nCSeq: 1 "):
        message = b"INVITE sip:a@b SIP/2.0" + piece * (60_000 // len(piece))
        assert isinstance(read_heading(message), Heading)
        assert isinstance(read_heading(piece * (60_000 // len(piece))), Heading)


def test_every_reason_that_a_message_can_have_is_said_in_words() -> None:
    assert {each.value for each in Reason} - OF_CONNECTIONS - {"rewritten"} <= set(REASONS)


def test_the_story_of_a_refused_re_invite_is_told_in_80_columns() -> None:
    lines = [line.text for line in narrate(parse_entries(rows_of(call())))]
    assert max(map(len, lines)) <= 80
    text = "\n".join(line[14:] if line[:2].isdigit() else line for line in lines)
    assert (
        """488 Not Acceptable Here to INVITE
    203.0.113.10:5060 -> 203.0.113.1:5060, udp, inbound
    the re-INVITE was refused (488): its offer is rolled back
    rewritten in 0.5 ms (0.2 ms in the kernel), delivered to 10.0.0.20:5060
        via: 203.0.113.1 -> 10.0.0.20
    rtp/udp 10.0.0.20:4002 <-> 203.0.113.1:4002 is given up, it closes in 5 s
    rtcp/udp 10.0.0.20:4003 <-> 203.0.113.1:4003 is given up, it closes in 5 s
mappings expire
    closed rtp/udp 10.0.0.20:4002 <-> 203.0.113.1:4002
    closed rtcp/udp 10.0.0.20:4003 <-> 203.0.113.1:4003
"""
        in text
    )


def test_hostile_text_is_harmless_in_a_story() -> None:
    play = Watched()
    text = request("INVITE", body=sdp("10.0.0.20", 4000)).replace(b"call-1", HOSTILE * 1500)
    outcome = play.outbound(text)
    play.events.append(
        Passage(1.0, 0.0, 0.0, Datagram(PHONE, SERVER, HOSTILE), outcome, None, None)
    )
    for line in narrate(parse_entries(rows_of(play))):
        assert line.text.isprintable()
        assert len(line.text) <= 80


def test_messages_by_others_are_remembered_told_and_drawn(cases: Path) -> None:
    told = 0
    for path in sorted((*(cases / "torture").glob("*.dat"), *(cases / "messages").iterdir())):
        play, payload = Watched(), path.read_bytes()
        play.outbound(payload)
        play.inbound(payload)
        for passage in play.passages:
            again = decode_record(encode_passage(passage))
            assert isinstance(again, Passage)
            row = passage_row(passage, 0.0, 1, is_full=True)
            assert passage_row(again, 0.0, 1, is_full=True) == row, path.name
        entries = parse_entries(rows_of(play))
        ladder = draw_ladder(path.name, entries)
        for line in (*narrate(entries), *render_ladder(ladder)):
            assert line.text.isprintable() and len(line.text) <= 80, path.name
        ElementTree.fromstring(render_svg(ladder))
        told += 1
    assert told > 200
