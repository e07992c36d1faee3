"""Ladders: who has which lane, what is drawn where, in text of 80 columns and in SVG."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from msgspec import structs

from alg.observe.entry import EditEntry, Entry, StreamEntry, parse_entries
from alg.observe.ladder import MAX_DRAWN, MAX_LINES, Ladder, Tone, draw_ladder
from alg.observe.ladder_svg import render_svg
from alg.observe.ladder_text import render_ladder
from alg.observe.passage import Passage
from alg.observe.story import passage_row
from alg.verdict import Outcome, Reason, Verdict
from tests.alg.observe.test_ring import call
from tests.alg.observe.test_story import HOSTILE, rows_of
from tests.alg.observe.watched import Watched
from tests.alg.playbook import PHONE_2, SERVER, SERVER6, invite, register, request, response, sdp

ONE_WAY = StreamEntry(
    "rtp",
    "10.0.0.20:4000",
    "203.0.113.1:4000",
    "203.0.113.10:40000",
    "audio",
    600,
    0,
    "no media from remote since 12 s",
)
SVG = "{http://www.w3.org/2000/svg}"


def draw(play: Watched, *streams: StreamEntry) -> Ladder:
    return draw_ladder("call call-1", parse_entries(rows_of(play)), streams)


def text_of(ladder: Ladder) -> str:
    return "\n".join(line.text for line in render_ladder(ladder)) + "\n"


def texts_in(svg: str) -> list[str]:
    """Returns the texts of a picture, which must be shapes and text alone, with nothing to load."""
    root = ElementTree.fromstring(svg)
    tags = {element.tag.removeprefix(SVG) for element in root.iter()}
    assert tags <= {"svg", "title", "rect", "line", "polygon", "path", "text"}
    for element in root.iter():
        for name, value in element.attrib.items():
            assert not name.startswith("on") and "href" not in name and name != "style"
            assert "url(" not in value and "javascript" not in value
    return [element.text or "" for element in root.iter(f"{SVG}text")]


def test_a_call_with_a_refused_re_invite_and_one_way_audio() -> None:
    shown = text_of(draw(call(), ONE_WAY))
    assert max(map(len, shown.splitlines())) <= 80
    assert shown.startswith(
        """\
call call-1
          phone                 internal   external                 server
        10.0.0.20                gateway  203.0.113.1            203.0.113.10
   0.000    |----INVITE (offer)---->|-5 edits->|----INVITE (offer)---->|
            | * via, contact, o=, c=, content-length                   |
            | opened sip/udp 10.0.0.20:5060 <-> 203.0.113.1:5060       |
            | opened rtp/udp 10.0.0.20:4000 <-> 203.0.113.1:4000       |
   0.000    |<-----180 Ringing------|<--1 edit-|<-----180 Ringing------|
            | * via                 |          |                       |
   0.000    |<---200 OK (answer)----|<--1 edit-|<---200 OK (answer)----|
            | * via                 |          |                       |
            |====================audio 600 packets====================>|
            | 10.0.0.20:4000 <-> 203.0.113.1:4000 <-> 203.0.113.10:40000
            |<=====================audio 0 packets=====================|
            | no media from remote since 12 s  |                       |
"""
    )
    assert "| the re-INVITE was refused (488): its offer is rolled back|" in shown
    assert "  20.000    | mappings expire" in shown


def test_media_is_drawn_behind_its_answer_and_never_where_the_offer_was_refused() -> None:
    ladder = draw(call())
    media = [rung for rung in ladder.rungs if rung.tone is Tone.MEDIA]
    assert [(arrow.start, arrow.end) for rung in media for arrow in rung.arrows] == [(0, 3), (3, 0)]
    assert media[0].notes == ("10.0.0.20:4000 <-> 203.0.113.1:4000",)
    silent = [rung for rung in draw(call(), ONE_WAY).rungs if rung.tone is Tone.SILENT]
    assert [rung.notes for rung in silent] == [("no media from remote since 12 s",)]


def test_what_was_given_up_is_not_drawn_when_a_later_offer_is_agreed_on() -> None:
    play = Watched()
    sent = play.outbound(invite(body=sdp("10.0.0.20", 4000)))
    play.inbound(response(sent.payload, 200, body=sdp("203.0.113.10", 40000)))
    for cseq, port, status in ((2, 4002, 488), (3, 4004, 200)):
        offer = invite(body=sdp("10.0.0.20", port, version=cseq), cseq=cseq, to_tag="b")
        body = sdp("203.0.113.10", 40000, version=2) if status == 200 else ""
        play.inbound(response(play.outbound(offer).payload, status, body=body))
    notes = [rung.notes for rung in draw(play).rungs if rung.tone is Tone.MEDIA and rung.notes]
    assert notes == [
        ("10.0.0.20:4000 <-> 203.0.113.1:4000",),
        ("10.0.0.20:4004 <-> 203.0.113.1:4004",),
    ]


def test_media_that_was_agreed_on_while_it_rang_is_drawn_when_the_call_is_answered() -> None:
    play = Watched()
    sent = play.outbound(invite(body=sdp("10.0.0.20", 4000)))
    play.inbound(response(sent.payload, 183, body=sdp("203.0.113.10", 40000)))
    play.inbound(response(sent.payload, 180))
    assert Tone.MEDIA not in [rung.tone for rung in draw(play).rungs]
    play.inbound(response(sent.payload, 200))
    assert [rung.tone for rung in draw(play).rungs[-2:]] == [Tone.MEDIA] * 2


def test_media_whose_offer_is_forgotten_comes_first() -> None:
    entries = parse_entries(rows_of(call()))[3:]
    ladder = draw_ladder("call", entries, [ONE_WAY])
    assert [rung.tone for rung in ladder.rungs[:2]] == [Tone.MEDIA, Tone.SILENT]


def test_two_phones_and_two_servers_have_lanes_of_their_own() -> None:
    play = call()
    play.outbound(
        invite(PHONE_2, sdp("10.0.0.21", 4000)), PHONE_2, SERVER._replace(address="203.0.113.11")
    )
    ladder = draw(play)
    assert [(lane.name, lane.address) for lane in ladder.lanes] == [
        ("phone", "10.0.0.20"),
        ("phone", "10.0.0.21"),
        ("internal", "gateway"),
        ("external", "203.0.113.1"),
        ("server", "203.0.113.10"),
        ("server", "203.0.113.11"),
    ]
    shown = text_of(ladder)
    assert max(map(len, shown.splitlines())) <= 80
    assert "|--INVITE-->|" in shown
    assert {"10.0.0.21", "203.0.113.11"} <= set(texts_in(render_svg(ladder)))


def test_a_hairpin_comes_back_to_the_other_phone() -> None:
    play = Watched()
    sent = play.outbound(register(PHONE_2, call_id="registration-2"), PHONE_2)
    play.inbound(response(sent.payload, 200), PHONE_2)
    play.events.clear()
    play.hairpin(invite(body=sdp("10.0.0.20", 4000)))
    ladder = draw(play)
    assert [lane.name for lane in ladder.lanes] == ["phone", "phone", "internal", "external"]
    there, back = ladder.rungs
    assert [(arrow.start, arrow.end) for arrow in there.arrows] == [(0, 2), (2, 3)]
    assert [(arrow.start, arrow.end) for arrow in back.arrows] == [(2, 1)]
    texts_in(render_svg(ladder))
    text_of(ladder)


def test_a_dropped_message_stops_at_the_gateway() -> None:
    (passage, *_) = call().passages
    drop = Outcome(Verdict.DROPPED, Reason.COMMIT_FAILED, b"", detail="no memory")
    row = passage_row(passage._replace(outcome=drop), 0.0, 1, is_full=False)
    shown = text_of(draw_ladder("call", parse_entries([row])))
    assert "|--------INVITE-------->|-dropped-x|" in shown
    assert "dropped: the kernel refused a mapping" in shown


def test_long_addresses_stand_above_the_picture() -> None:
    play = Watched()
    play.outbound(request("OPTIONS"), destination=SERVER6._replace(address="2001:db8:1:2:3:4:5:6"))
    lines = text_of(draw(play)).splitlines()
    assert "server: 2001:db8:1:2:3:4:5:6" in lines[1]
    assert lines[3].endswith("2001:db8:1:2:3:~")


def test_of_a_long_call_the_latest_are_drawn() -> None:
    entries = parse_entries(rows_of(call())) * 200
    ladder = draw_ladder("call", entries)
    assert ladder.rungs[0].notes == (f"{len(entries) - MAX_DRAWN} earlier ones are not drawn",)
    assert len(ladder.rungs) < 2 * MAX_DRAWN


@pytest.mark.parametrize("entries", [[], [Entry("change", 1.0, "expired")]])
def test_a_ladder_of_next_to_nothing(entries: list[Entry]) -> None:
    ladder = draw_ladder("call", entries)
    assert "phone" in text_of(ladder)
    texts_in(render_svg(ladder))


def test_the_picture_says_what_was_changed_and_counts_packets() -> None:
    texts = texts_in(render_svg(draw(call(), ONE_WAY)))
    assert "via, contact, o=, c=: 10.0.0.20 → 203.0.113.1" in texts
    assert "content-length: 87 → 91" in texts
    assert "audio 600 packets" in texts and "audio 0 packets" in texts
    assert "no media from remote since 12 s" in texts
    assert "the re-INVITE was refused (488): its offer is rolled back" in texts


def test_hostile_text_is_harmless_in_a_ladder() -> None:
    play = Watched()
    message = request("INVITE", body=sdp("10.0.0.20", 4000)).replace(b"call-1", HOSTILE * 1500)
    play.outbound(message)
    (passage,) = play.events
    assert isinstance(passage, Passage)
    entries = parse_entries(rows_of(play))
    evil = replace_text(entries[0])
    text = HOSTILE.decode("latin-1")
    stream = StreamEntry(text, text, text, text, text, 1, 0, text)
    ladder = draw_ladder(HOSTILE.decode("latin-1") * 1500, [*entries, evil], [stream])
    for line in text_of(ladder).splitlines():
        assert line.isprintable() and len(line) <= 80
    svg = render_svg(ladder)
    assert "<script" not in svg and "\x1b" not in svg
    assert texts_in(svg)


def replace_text(entry: Entry) -> Entry:
    """Returns an entry all of whose text is hostile, as a gateway that is none might send it."""
    evil = HOSTILE.decode("latin-1")
    values = {name: getattr(entry, name) for name in entry.__struct_fields__}
    texts = {name: evil for name, value in values.items() if isinstance(value, str)}
    return Entry(**{**values, **texts, "event": "message", "steps": (evil,)})


def test_of_hundreds_of_edits_and_mappings_a_few_are_drawn() -> None:
    (entry, *_) = parse_entries(rows_of(call()))
    edits = tuple(EditEntry("m=", str(number), str(number + 1)) for number in range(200))
    entry = structs.replace(entry, edits=edits, opened=entry.opened * 100)
    change = structs.replace(entry, event="change", what="dropped", closed=entry.opened)
    for rung in draw_ladder("call call-1", [entry, change]).rungs:
        assert len(rung.edits) <= MAX_LINES and len(rung.notes) <= MAX_LINES + 1
    notes = [note for rung in draw_ladder("", [entry]).rungs for note in rung.notes]
    assert f"and {200 - MAX_LINES} more edits" in notes
