"""Calls as transcripts: media mappings live and end with their dialogs, never with a flow."""

from __future__ import annotations

from alg.datagram import Side
from alg.verdict import Outcome, Verdict
from nat_table.changes import Refreshed
from tests.alg.playbook import PHONE, PHONE_2, SERVER, Playbook, invite, request, response, sdp

AUDIO = {"10.0.0.20:4000", "10.0.0.20:4001"}
NEW_AUDIO = {"10.0.0.20:4100", "10.0.0.20:4101"}
ANSWER = sdp("198.51.100.9", 30000)


def media(play: Playbook) -> set[str]:
    """Returns the internal endpoints that have a media mapping."""
    return set(play.mappings("rtp")) | set(play.mappings("rtcp"))


def offer(port: int = 4000, host: str = "10.0.0.20") -> str:
    return sdp(host, port)


def ring(play: Playbook) -> Outcome:
    """Calls out and lets it ring; returns the INVITE as the server got it."""
    sent = play.outbound(invite(PHONE, offer()))
    play.inbound(response(sent.payload, 180))
    return sent


def call_out(play: Playbook, call_id: str = "call-1", port: int = 4000) -> Outcome:
    """Sets up an outgoing call; returns the INVITE as the server got it."""
    sent = play.outbound(invite(PHONE, offer(port), call_id=call_id))
    play.inbound(response(sent.payload, 200, body=ANSWER))
    play.outbound(request("ACK", call_id=call_id, to_tag="b"))
    return sent


def call_in(play: Playbook, call_id: str = "call-in", status: int = 200) -> Outcome:
    """Has the server call the phone, which answers; returns the phone's answer as it arrived."""
    play.outbound(request("OPTIONS", call_id="keep"))
    asked = invite(PHONE, ANSWER, call_id=call_id, from_tag="remote")
    asked = asked.replace(b"10.0.0.20", b"203.0.113.10")
    arrived = play.inbound(asked)
    answer = response(arrived.payload, status, body=offer(), to_tag="phone")
    return play.outbound(answer)


def hang_up(play: Playbook, call_id: str = "call-1", cseq: int = 2, to_tag: str = "b") -> None:
    """Has the phone end its call, and the server agree."""
    bye = play.outbound(request("BYE", call_id=call_id, cseq=cseq, to_tag=to_tag))
    play.inbound(response(bye.payload, 200))


def from_server(method: str, call_id: str, cseq: int, *, local: str, remote: str) -> bytes:
    """Encodes a request of the server within a dialog: its tag is From's."""
    sent = request(method, call_id=call_id, cseq=cseq, from_tag=remote, to_tag=local)
    return sent.replace(b"10.0.0.20:5060", b"203.0.113.10:5060")


def test_an_outgoing_call_opens_a_pair_and_bye_closes_it() -> None:
    play = Playbook()
    call_out(play)
    assert media(play) == AUDIO
    hang_up(play)
    assert media(play) == set()
    assert play.mappings("sip") == {"10.0.0.20:5060": "203.0.113.1:5060"}


def test_a_call_in_opens_a_pair_and_the_servers_bye_closes_it() -> None:
    play = Playbook()
    answered = call_in(play)
    assert b"c=IN IP4 203.0.113.1\r\n" in answered.payload
    assert media(play) == AUDIO
    arrived = play.inbound(from_server("BYE", "call-in", 2, local="phone", remote="remote"))
    assert media(play) == AUDIO, "until the BYE is answered"
    play.outbound(response(arrived.payload, 200))
    assert media(play) == set()


def test_a_message_from_outside_opens_nothing() -> None:
    play = Playbook()
    play.outbound(request("OPTIONS"))
    play.inbound(invite(PHONE, offer(), call_id="from-outside"))
    assert media(play) == set()


def test_a43_a_call_on_hold_lives_for_two_hours_without_any_packet() -> None:
    play = Playbook()
    call_out(play)
    play.wait(7200)
    assert media(play) == AUDIO
    play.wait(60)
    assert media(play) == set()
    assert play.gateway.call_count == 0


def test_an_invite_without_any_answer_ends_after_the_transaction() -> None:
    play = Playbook()
    play.outbound(invite(PHONE, offer()))
    play.wait(31)
    assert media(play) == AUDIO
    play.wait(2)
    assert media(play) == set()


def test_a_ringing_call_waits_for_five_minutes() -> None:
    play = Playbook()
    ring(play)
    play.wait(299)
    assert media(play) == AUDIO
    play.wait(2)
    assert media(play) == set()


def test_a64_busy_closes_at_once() -> None:
    play = Playbook()
    sent = ring(play)
    play.inbound(response(sent.payload, 486))
    assert media(play) == set()
    assert play.gateway.call_count == 0


def test_a64_cancel_closes_with_its_487() -> None:
    play = Playbook()
    sent = ring(play)
    cancel = play.outbound(request("CANCEL"))
    play.inbound(response(cancel.payload, 200))
    assert media(play) == AUDIO
    play.inbound(response(sent.payload, 487))
    assert media(play) == set()


def test_a64_cancel_without_a_487_closes_after_the_transaction() -> None:
    play = Playbook()
    ring(play)
    play.outbound(request("CANCEL"))
    play.wait(33)
    assert media(play) == set()


def test_a64_refusing_an_incoming_call_closes_its_early_media() -> None:
    play = Playbook()
    call_in(play, status=183)
    assert media(play) == AUDIO
    asked = invite(PHONE, ANSWER, call_id="call-in", from_tag="remote")
    play.outbound(response(asked, 603, to_tag="phone"))
    assert media(play) == set()


def test_a_challenge_keeps_the_ports_for_the_second_invite() -> None:
    play = Playbook()
    first = play.outbound(invite(PHONE, offer()))
    play.inbound(response(first.payload, 407))
    assert media(play) == AUDIO
    second = play.outbound(invite(PHONE, offer(), cseq=2))
    assert second.payload.partition(b"\r\n\r\n")[2] == first.payload.partition(b"\r\n\r\n")[2]
    play.inbound(response(second.payload, 200, body=ANSWER))
    play.wait(3600)
    assert media(play) == AUDIO


def test_a48_every_fork_of_an_invite_keeps_the_media() -> None:
    play = Playbook()
    sent = play.outbound(invite(PHONE, offer()))
    for tag in ("fork-1", "fork-2"):
        play.inbound(response(sent.payload, 183, body=ANSWER, to_tag=tag))
    for tag in ("fork-1", "fork-2"):
        play.inbound(response(sent.payload, 200, body=ANSWER, to_tag=tag))
    hang_up(play, to_tag="fork-1")
    assert media(play) == AUDIO
    hang_up(play, to_tag="fork-2", cseq=3)
    assert media(play) == set()


def test_a62_two_calls_on_one_flow_end_separately() -> None:
    play = Playbook()
    call_out(play, "call-1", 4000)
    call_out(play, "call-2", 4100)
    hang_up(play, "call-1")
    assert media(play) == NEW_AUDIO
    hang_up(play, "call-2")
    assert media(play) == set()


def test_a62_two_calls_that_share_a_port_keep_it_until_both_ended() -> None:
    play = Playbook()
    call_out(play, "call-1")
    call_out(play, "call-2")
    hang_up(play, "call-1")
    assert media(play) == AUDIO
    hang_up(play, "call-2")
    assert media(play) == set()


def test_a45_a_reinvite_keeps_old_and_new_ports_until_it_is_answered() -> None:
    play = Playbook()
    call_out(play)
    moved = play.outbound(invite(PHONE, offer(4100), cseq=2, to_tag="b"))
    assert media(play) == AUDIO | NEW_AUDIO
    play.inbound(response(moved.payload, 200, body=ANSWER))
    assert media(play) == AUDIO | NEW_AUDIO, "late packets may still come to the old ports"
    play.wait(10)
    assert media(play) == NEW_AUDIO


def test_a46_a_refused_reinvite_rolls_back_to_the_old_ports() -> None:
    for status in (488, 491, 408):
        play = Playbook()
        call_out(play)
        moved = play.outbound(invite(PHONE, offer(4100), cseq=2, to_tag="b"))
        play.inbound(response(moved.payload, status))
        play.wait(10)
        assert media(play) == AUDIO
        hang_up(play, cseq=3)
        assert media(play) == set()


def test_a47_an_offer_in_update_is_settled_by_its_answer() -> None:
    play = Playbook()
    call_out(play)
    update = request("UPDATE", PHONE, offer(4100), cseq=2, to_tag="b")
    moved = play.outbound(update)
    play.inbound(response(moved.payload, 200, body=ANSWER))
    play.wait(10)
    assert media(play) == NEW_AUDIO


def test_a47_a_late_offer_is_answered_in_the_ack() -> None:
    play = Playbook()
    sent = play.outbound(invite(PHONE))
    play.inbound(response(sent.payload, 200, body=ANSWER))
    assert media(play) == set()
    play.outbound(request("ACK", PHONE, offer(), to_tag="b"))
    assert media(play) == AUDIO
    play.wait(3600)
    assert media(play) == AUDIO
    hang_up(play)
    assert media(play) == set()


def test_a47_a_reinvite_from_outside_moves_the_phones_ports_with_its_answer() -> None:
    play = Playbook()
    call_in(play)
    moved = from_server("INVITE", "call-in", 2, local="phone", remote="remote")
    arrived = play.inbound(moved)
    play.outbound(response(arrived.payload, 200, body=offer(4100)))
    play.wait(10)
    assert media(play) == NEW_AUDIO


def test_a42_hold_keeps_the_mapping() -> None:
    play = Playbook()
    call_out(play)
    held = offer().replace("c=IN IP4 10.0.0.20", "c=IN IP4 0.0.0.0") + "a=inactive\n"
    on_hold = play.outbound(invite(PHONE, held, cseq=2, to_tag="b"))
    assert b"c=IN IP4 0.0.0.0\r\n" in on_hold.payload
    play.inbound(response(on_hold.payload, 200, body=ANSWER))
    play.wait(600)
    assert media(play) == AUDIO
    resumed = play.outbound(invite(PHONE, offer(), cseq=3, to_tag="b"))
    assert b"m=audio 4000 " in resumed.payload


def test_a83_a_bye_with_the_wrong_tag_ends_nothing() -> None:
    play = Playbook()
    call_out(play)
    forged = play.inbound(from_server("BYE", "call-1", 9, local="a", remote="guess"))
    play.outbound(response(forged.payload, 481))
    assert media(play) == AUDIO


def test_a83_another_phone_cannot_end_a_call() -> None:
    play = Playbook()
    call_out(play)
    forged = play.outbound(request("BYE", PHONE_2, cseq=2, to_tag="b"), PHONE_2)
    play.inbound(response(forged.payload, 200), PHONE_2)
    assert media(play) == AUDIO


def test_a_challenged_bye_keeps_the_call_until_it_is_accepted() -> None:
    play = Playbook()
    call_out(play)
    bye = play.outbound(request("BYE", cseq=2, to_tag="b"))
    play.inbound(response(bye.payload, 401))
    play.wait(60)
    assert media(play) == AUDIO
    hang_up(play, cseq=3)
    assert media(play) == set()


def test_a_bye_without_an_answer_ends_the_call_after_the_transaction() -> None:
    play = Playbook()
    call_out(play)
    play.outbound(request("BYE", cseq=2, to_tag="b"))
    play.wait(33)
    assert media(play) == set()


def test_a_late_retransmission_is_rewritten_as_before_and_opens_nothing() -> None:
    play = Playbook()
    answer = response(
        invite(PHONE, ANSWER, call_id="call-in", from_tag="remote"),
        200,
        body=offer(),
        to_tag="phone",
    )
    first = play.outbound(answer)
    arrived = play.inbound(from_server("BYE", "call-in", 2, local="phone", remote="remote"))
    play.outbound(response(arrived.payload, 200))
    assert media(play) == set()
    assert play.outbound(answer).payload == first.payload
    assert media(play) == set()


def test_same_request_same_answer() -> None:
    play = Playbook()
    asked = invite(PHONE, offer())
    first = play.outbound(asked)
    play.wait(0.5)
    again = play.outbound(asked)
    assert again.payload == first.payload
    assert again.verdict is Verdict.REWRITTEN
    assert all(isinstance(change, Refreshed) for change in again.changes)


def test_a_number_may_be_called_again_after_busy_with_the_same_call_id() -> None:
    play = Playbook()
    sent = ring(play)
    play.inbound(response(sent.payload, 486))
    again = play.outbound(invite(PHONE, offer(), cseq=2))
    assert again.payload.partition(b"\r\n\r\n")[2] == sent.payload.partition(b"\r\n\r\n")[2]
    assert media(play) == AUDIO


def test_a23_two_phones_with_the_same_ports_have_calls_of_their_own() -> None:
    play = Playbook()
    call_out(play)
    sent = play.outbound(invite(PHONE_2, offer(host="10.0.0.21"), call_id="call-2"), PHONE_2)
    play.inbound(response(sent.payload, 200, body=ANSWER), PHONE_2)
    externals = list(play.mappings().values())
    assert len(externals) == len(set(externals)) == 6
    hang_up(play)
    assert media(play) == {"10.0.0.21:4000", "10.0.0.21:4001"}


def test_the_signalling_mapping_lives_as_long_as_the_call() -> None:
    play = Playbook()
    call_out(play)
    play.wait(4000)
    assert play.mappings("sip") == {"10.0.0.20:5060": "203.0.113.1:5060"}
    hang_up(play)
    play.wait(400)
    assert play.mappings() == {}


def test_roll_back_leaves_the_table_as_it_was_and_the_retry_works() -> None:
    play = Playbook()
    asked = invite(PHONE, offer())
    refused = play.send(asked, PHONE, SERVER, Side.INTERNAL, Side.EXTERNAL, is_confirmed=False)
    dropped = play.gateway.roll_back(refused)
    assert dropped.verdict is Verdict.DROPPED
    assert play.mappings() == {}
    retried = play.outbound(asked)
    assert retried.verdict is Verdict.REWRITTEN
    assert media(play) == AUDIO


def test_nothing_is_remembered_after_everything_ended() -> None:
    play = Playbook()
    for number in range(20):
        call_out(play, f"call-{number}", 4000 + 2 * number)
        hang_up(play, f"call-{number}")
    play.wait(1000)
    assert play.rows() == []
    assert play.gateway.call_count == 0
