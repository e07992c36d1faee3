"""Offer and answer as transcripts: what the other side says counts too (RFC 3264, 3605, 5761)."""

from __future__ import annotations

import pytest

from tests.alg.dialogs.test_calls import (
    AUDIO,
    NEW_AUDIO,
    call_in,
    call_out,
    from_server,
    hang_up,
    media,
    offer,
)
from tests.alg.playbook import PHONE, Playbook, invite, request, response, sdp

VIDEO = {"10.0.0.20:4002", "10.0.0.20:4003"}
BOTH = offer() + "m=video 4002 RTP/AVP 31\n"
THERE = "198.51.100.9"
ELSEWHERE = "198.51.100.77"


def answer(*lines: str, host: str = THERE) -> str:
    return sdp(host, 30000, *lines)


def call(play: Playbook, description: str, answered: str) -> None:
    sent = play.outbound(invite(PHONE, description))
    play.inbound(response(sent.payload, 200, body=answered))
    play.outbound(request("ACK", to_tag="b"))


def reinvite(play: Playbook, description: str, answered: str, cseq: int = 2) -> None:
    sent = play.outbound(invite(PHONE, description, cseq=cseq, to_tag="b"))
    play.inbound(response(sent.payload, 200, body=answered))


@pytest.fixture
def play() -> Playbook:
    return Playbook()


def test_a44_a_stream_that_the_answer_rejects_is_released(play: Playbook) -> None:
    call(play, BOTH, answer("m=video 0 RTP/AVP 31"))
    assert media(play) == AUDIO | VIDEO, "late packets may still come"
    play.wait(10)
    assert media(play) == AUDIO


def test_a44_a_stream_that_only_a_provisional_answer_rejects_is_kept(play: Playbook) -> None:
    sent = play.outbound(invite(PHONE, BOTH))
    play.inbound(response(sent.payload, 183, body=answer("m=video 0 RTP/AVP 31")))
    play.wait(10)
    assert media(play) == AUDIO | VIDEO
    play.inbound(response(sent.payload, 200, body=answer("m=video 30002 RTP/AVP 31")))
    play.wait(10)
    assert media(play) == AUDIO | VIDEO


def test_a44_a_stream_that_one_fork_takes_is_kept(play: Playbook) -> None:
    sent = play.outbound(invite(PHONE, BOTH))
    play.inbound(response(sent.payload, 200, body=answer("m=video 0 RTP/AVP 31"), to_tag="f1"))
    play.inbound(response(sent.payload, 200, body=answer("m=video 9000 RTP/AVP 31"), to_tag="f2"))
    play.wait(10)
    assert media(play) == AUDIO | VIDEO
    hang_up(play, to_tag="f2")
    play.wait(10)
    assert media(play) == AUDIO


def test_a44_a_stream_may_be_added_again(play: Playbook) -> None:
    call(play, BOTH, answer("m=video 0 RTP/AVP 31"))
    play.wait(10)
    reinvite(play, BOTH, answer("m=video 9000 RTP/AVP 31"))
    play.wait(10)
    assert media(play) == AUDIO | VIDEO


def test_a56_a_rejected_stream_that_shares_its_port_keeps_it(play: Playbook) -> None:
    shared = offer() + "m=video 4000 RTP/AVP 31\n"
    call(play, shared, answer("m=video 0 RTP/AVP 31"))
    play.wait(10)
    assert media(play) == AUDIO


def test_a44_a_phone_that_drops_a_stream_itself_releases_it(play: Playbook) -> None:
    call(play, BOTH, answer("m=video 9000 RTP/AVP 31"))
    reinvite(play, offer() + "m=video 0 RTP/AVP 31\n", answer("m=video 0 RTP/AVP 31"))
    play.wait(10)
    assert media(play) == AUDIO


def test_a44_the_phones_answer_to_a_reinvite_releases_too(play: Playbook) -> None:
    call(play, BOTH, answer("m=video 9000 RTP/AVP 31"))
    offered = from_server("INVITE", "call-1", 2, local="a", remote="b")
    arrived = play.inbound(offered)
    play.outbound(response(arrived.payload, 200, body=offer() + "m=video 0 RTP/AVP 31\n"))
    play.wait(10)
    assert media(play) == AUDIO


def test_a38_rtcp_mux_releases_the_second_port_when_both_sides_want_it(play: Playbook) -> None:
    call(play, sdp("10.0.0.20", 4000, "a=rtcp-mux"), answer("a=rtcp-mux"))
    assert media(play) == AUDIO
    play.wait(10)
    assert media(play) == {"10.0.0.20:4000"}


@pytest.mark.parametrize("sides", [("a=rtcp-mux", "a=x"), ("a=x", "a=rtcp-mux")])
def test_a38_rtcp_mux_of_one_side_alone_keeps_the_second_port(
    play: Playbook, sides: tuple[str, str]
) -> None:
    call(play, sdp("10.0.0.20", 4000, sides[0]), answer(sides[1]))
    play.wait(10)
    assert media(play) == AUDIO


def test_a38_the_second_port_comes_back_beside_the_first(play: Playbook) -> None:
    other = invite(PHONE, sdp("10.0.0.20", 5000), call_id="other")
    play.outbound(other.replace(b"10.0.0.20", b"10.0.0.22"), PHONE._replace(address="10.0.0.22"))
    description = sdp("10.0.0.20", 5000, "a=rtcp-mux")
    call(play, description, answer("a=rtcp-mux"))
    first = play.mappings("rtp")["10.0.0.20:5000"]
    play.wait(300)
    assert "10.0.0.20:5001" not in play.mappings()
    sent = play.outbound(invite(PHONE, description, cseq=2, to_tag="b"))
    assert b"a=rtcp:" not in sent.payload
    port = int(first.rpartition(":")[2])
    assert play.mappings("rtcp")["10.0.0.20:5001"] == f"203.0.113.1:{port + 1}"


def test_a38_a_retransmitted_answer_leaves_the_same_and_keeps_nothing(play: Playbook) -> None:
    play.outbound(request("OPTIONS", call_id="keep"))
    asked = invite(PHONE, answer("a=rtcp-mux"), call_id="in", from_tag="r")
    play.inbound(asked.replace(b"10.0.0.20", b"203.0.113.10"))
    ours = response(asked, 200, body=sdp("10.0.0.20", 4000, "a=rtcp-mux"), to_tag="p")
    first = play.outbound(ours)
    play.wait(8)
    assert play.outbound(ours).payload == first.payload
    play.wait(8)
    assert media(play) == {"10.0.0.20:4000"}


def test_a47_a_late_offer_is_trimmed_by_the_answer_in_the_ack(play: Playbook) -> None:
    play.outbound(request("OPTIONS", call_id="keep"))
    asked = invite(PHONE, call_id="in", from_tag="r")
    play.inbound(asked)
    play.outbound(response(asked, 200, body=BOTH, to_tag="p"))
    ack = request(
        "ACK",
        PHONE,
        answer("m=video 0 RTP/AVP 31"),
        call_id="in",
        from_tag="r",
        to_tag="p",
    )
    play.inbound(ack)
    play.wait(10)
    assert media(play) == AUDIO
    assert play.remotes("10.0.0.20:4000") == [THERE]


@pytest.mark.parametrize("held", ["c=IN IP4 0.0.0.0", "c=IN IP4 10.0.0.20"])
@pytest.mark.parametrize("way", ["inactive", "sendonly"])
def test_a42_a43_hold_keeps_ports_and_remotes(play: Playbook, held: str, way: str) -> None:
    call(play, BOTH, answer("m=video 9000 RTP/AVP 31"))
    on_hold = BOTH.replace("c=IN IP4 10.0.0.20", held) + f"a={way}\n"
    there = answer("m=video 9000 RTP/AVP 31", f"a={way}", host="0.0.0.0")
    reinvite(play, on_hold, there)
    play.wait(600)
    assert media(play) == AUDIO | VIDEO
    assert play.remotes("10.0.0.20:4002") == [THERE]


def test_a42_one_stream_on_hold_by_its_own_connection_line_is_kept(play: Playbook) -> None:
    call(play, BOTH, answer("m=video 9000 RTP/AVP 31"))
    reinvite(play, BOTH + "c=IN IP4 0.0.0.0\n", answer("m=video 9000 RTP/AVP 31"))
    play.wait(600)
    assert media(play) == AUDIO | VIDEO


def test_a48_the_remotes_of_every_fork_may_send(play: Playbook) -> None:
    sent = play.outbound(invite(PHONE, offer()))
    assert play.remotes("10.0.0.20:4000") == []
    play.inbound(response(sent.payload, 183, body=answer(), to_tag="f1"))
    play.inbound(response(sent.payload, 183, body=answer(host=ELSEWHERE), to_tag="f2"))
    assert set(play.remotes("10.0.0.20:4000")) == {THERE, ELSEWHERE}
    assert set(play.remotes("10.0.0.20:4001")) == {THERE, ELSEWHERE}


def test_an_answer_names_the_remote_and_a_repeated_one_changes_nothing(play: Playbook) -> None:
    sent = play.outbound(invite(PHONE, offer()))
    answered = response(sent.payload, 200, body=answer())
    play.inbound(answered)
    assert play.remotes("10.0.0.20:4000") == [THERE]
    play.wait(0.5)
    assert play.inbound(answered).changes == ()


def test_a45_a_remote_that_moves_may_send_from_both_places_for_a_while(play: Playbook) -> None:
    call_out(play)
    moved = request("INVITE", PHONE, answer(host=ELSEWHERE), cseq=7, from_tag="b", to_tag="a")
    play.inbound(moved)
    assert play.remotes("10.0.0.20:4000") == [ELSEWHERE, THERE]
    play.outbound(response(moved, 200, body=offer()))
    assert play.remotes("10.0.0.20:4000") == [ELSEWHERE, THERE]
    play.wait(6)
    assert play.remotes("10.0.0.20:4000") == [ELSEWHERE]


def test_a46_a_reinvite_from_outside_that_the_phone_refuses_is_rolled_back(play: Playbook) -> None:
    call_out(play)
    moved = request("INVITE", PHONE, answer(host=ELSEWHERE), cseq=7, from_tag="b", to_tag="a")
    play.inbound(moved)
    play.outbound(response(moved, 488))
    play.wait(6)
    assert play.remotes("10.0.0.20:4000") == [THERE]


@pytest.mark.parametrize("method", ["INVITE", "UPDATE"])
def test_a46_an_offer_that_nobody_answers_is_given_up(play: Playbook, method: str) -> None:
    call_out(play)
    sent = request(method, PHONE, offer(4100), cseq=2, to_tag="b")
    for _ in range(4):
        play.outbound(sent)
        play.wait(4)
    assert media(play) == AUDIO | NEW_AUDIO
    play.wait(40)
    assert media(play) == AUDIO


def test_a46_an_offer_from_outside_that_nobody_answers_is_given_up(play: Playbook) -> None:
    call_out(play)
    moved = request("UPDATE", PHONE, answer(host=ELSEWHERE), cseq=7, from_tag="b", to_tag="a")
    play.inbound(moved)
    play.wait(40)
    assert play.remotes("10.0.0.20:4000") == [THERE]


def test_a46_a_reinvite_that_rings_is_not_given_up(play: Playbook) -> None:
    call_out(play)
    sent = play.outbound(invite(PHONE, offer(4100), cseq=2, to_tag="b"))
    play.inbound(response(sent.payload, 180))
    play.wait(200)
    assert media(play) == AUDIO | NEW_AUDIO


def test_a47_a_late_200_does_not_bring_back_what_an_update_has_replaced(play: Playbook) -> None:
    sent = play.outbound(invite(PHONE, offer()))
    answered = response(sent.payload, 200, body=answer())
    play.inbound(answered)
    moved = request("UPDATE", PHONE, answer(host=ELSEWHERE), cseq=7, from_tag="b", to_tag="a")
    play.inbound(moved)
    play.outbound(response(moved, 200, body=offer(4100)))
    play.inbound(answered)
    play.outbound(invite(PHONE, offer()))
    play.wait(10)
    assert media(play) == NEW_AUDIO
    assert play.remotes("10.0.0.20:4100") == [ELSEWHERE]


def test_a47_a_call_in_admits_what_the_invite_offered(play: Playbook) -> None:
    call_in(play)
    assert play.remotes("10.0.0.20:4000") == [THERE]


def test_a47_an_answer_in_a_reliable_183_counts_when_the_200_has_none(play: Playbook) -> None:
    sent = play.outbound(invite(PHONE, BOTH))
    play.inbound(response(sent.payload, 183, body=answer("m=video 0 RTP/AVP 31")))
    play.outbound(request("PRACK", cseq=2, to_tag="b"))
    play.inbound(response(sent.payload, 200))
    play.wait(10)
    assert media(play) == AUDIO


def test_a54_several_pairs_in_a_row_are_released_together(play: Playbook) -> None:
    row = offer() + "m=video 4010/3 RTP/AVP 31\n"
    sent = play.outbound(invite(PHONE, row))
    assert len(media(play)) == 8
    play.inbound(response(sent.payload, 200, body=answer("m=video 9000/3 RTP/AVP 31")))
    play.wait(10)
    assert len(media(play)) == 8
    assert play.remotes("10.0.0.20:4015") == [THERE]
    reinvite(play, row, answer("m=video 0/3 RTP/AVP 31"))
    play.wait(10)
    assert media(play) == AUDIO


def test_a_forged_answer_neither_admits_nor_releases(play: Playbook) -> None:
    sent = play.outbound(invite(PHONE, BOTH))
    forged = response(sent.payload, 200, body=answer("m=video 0 RTP/AVP 31", host=ELSEWHERE))
    play.inbound(forged, source=PHONE._replace(address=ELSEWHERE))
    play.wait(10)
    assert media(play) == AUDIO | VIDEO
    assert play.remotes("10.0.0.20:4000") == []


def test_a44_an_answer_that_cannot_be_read_releases_nothing(play: Playbook) -> None:
    call(play, BOTH, answer("m=video 0 RTP/AVP 31"))
    play.wait(10)
    sent = play.outbound(invite(PHONE, BOTH, cseq=2, to_tag="b"))
    play.inbound(response(sent.payload, 200))
    play.wait(10)
    assert media(play) == AUDIO | VIDEO


def test_an_invitation_is_forgotten_when_it_is_answered(play: Playbook) -> None:
    play.store()
    play.outbound(request("OPTIONS", call_id="keep"))
    asked = invite(PHONE, answer(), call_id="in", from_tag="r")
    play.inbound(asked)
    play.outbound(response(asked, 180, to_tag="p"))
    play.store()
    assert {kind for kind, _ in play.stored} == {"call", "invitation"}
    play.outbound(response(asked, 200, body=offer(), to_tag="p"))
    play.store()
    assert {kind for kind, _ in play.stored} == {"call"}
