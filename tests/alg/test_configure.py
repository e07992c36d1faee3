"""Settings that change under live calls: what comes goes by them, and what stands stays."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

from alg.dialogs.dialog import CallTimeouts
from alg.gateway_settings import GatewaySettings
from alg.verdict import Reason
from nat_table.behavior import Behavior
from tests.alg.dialogs.test_calls import ANSWER, AUDIO, NEW_AUDIO, call_out, media, offer
from tests.alg.playbook import (
    EXTERNAL,
    PHONE,
    PHONE_2,
    Playbook,
    invite,
    register,
    request,
    response,
)

SETTINGS = GatewaySettings((EXTERNAL,))


def configure(play: Playbook, **changed: object) -> None:
    play.gateway.configure(replace(SETTINGS, **changed))  # type: ignore[arg-type]


def reason(play: Playbook, message: bytes) -> Reason:
    return play.outbound(message).reason


def test_denied_ports_are_for_new_offers() -> None:
    play = Playbook()
    call_out(play)
    configure(play, denied_ports=frozenset({4000, 4100}))
    assert media(play) == AUDIO
    assert reason(play, invite(PHONE, offer(4100), call_id="call-2")) is Reason.DENIED_PORT


def test_a_server_is_left_alone_from_now_on_and_no_more() -> None:
    play = Playbook()
    assert reason(play, register()) is Reason.REWRITTEN
    configure(play, hands_off=(ip_network("203.0.113.0/24"),))
    assert reason(play, register(cseq=2)) is Reason.HANDS_OFF
    configure(play)
    assert reason(play, register(cseq=3)) is Reason.REWRITTEN


def test_media_hosts_may_be_named_from_now_on() -> None:
    play = Playbook()
    configure(play, media_hosts=frozenset({"10.0.0.30"}))
    play.outbound(invite(PHONE, offer(4000, "10.0.0.30")))
    assert media(play) == {"10.0.0.30:4000", "10.0.0.30:4001"}


def test_messages_and_streams_have_other_sizes() -> None:
    play = Playbook()
    configure(play, max_message=200)
    assert reason(play, register()) is Reason.TOO_LARGE
    configure(play, max_media_streams=1)
    two = offer() + "m=video 4002 RTP/AVP 31\n"
    assert reason(play, invite(PHONE, two)) is Reason.TOO_COMPLEX


def test_hosts_have_other_limits_and_keep_what_they_have() -> None:
    play = Playbook()
    call_out(play)
    call_out(play, "call-2", 4100)
    configure(play, max_calls_per_host=1, max_registrations_per_host=1)
    assert media(play) == AUDIO | NEW_AUDIO
    assert reason(play, invite(PHONE, offer(4200), call_id="call-3")) is Reason.QUOTA
    play.outbound(register())
    assert reason(play, register(call_id="registration-2")) is Reason.QUOTA
    configure(play, max_unanswered_per_host=1)
    play.outbound(invite(PHONE, offer(4200), call_id="call-3"))
    assert reason(play, invite(PHONE, offer(4300), call_id="call-4")) is Reason.QUOTA


def test_calls_and_flows_have_other_times() -> None:
    play = Playbook()
    configure(play, flow_timeout=10.0, call_timeouts=CallTimeouts(ringing=60.0, idle=90.0))
    sent = play.outbound(invite(PHONE, offer()))
    play.inbound(response(sent.payload, 180))
    play.wait(61.0)
    assert play.mappings() == {}
    play.outbound(invite(PHONE, offer(), call_id="call-2"))
    play.outbound(request("OPTIONS", PHONE_2, call_id="keep"), PHONE_2)
    play.wait(41.0)
    assert "10.0.0.21:5060" not in play.mappings()


def test_a_call_that_is_up_keeps_its_time() -> None:
    play = Playbook()
    call_out(play)
    configure(play, call_timeouts=CallTimeouts(idle=90.0))
    play.wait(1000.0)
    assert media(play) == AUDIO


def test_the_table_has_other_limits_and_keeps_what_it_has() -> None:
    play = Playbook()
    call_out(play)
    play.table.configure(Behavior(max_mappings=3))
    assert reason(play, invite(PHONE, offer(4100), call_id="call-2")) is Reason.QUOTA
    play.table.configure(Behavior(max_mappings_per_host=3))
    assert reason(play, invite(PHONE, offer(4100), call_id="call-2")) is Reason.QUOTA
    play.table.configure(Behavior(max_new_per_second=3))
    assert reason(play, invite(PHONE, offer(4100), call_id="call-2")) is Reason.RATE
    play.table.configure(Behavior())
    assert reason(play, invite(PHONE, offer(4100), call_id="call-2")) is Reason.REWRITTEN
    assert media(play) == AUDIO | NEW_AUDIO


def test_a_port_that_is_denied_is_not_given_out_any_more_once_it_is_free() -> None:
    play = Playbook()
    sent = play.outbound(invite(PHONE, offer()))
    play.inbound(response(sent.payload, 200, body=ANSWER))
    play.table.configure(Behavior(denied_ports=frozenset({4000, 4100})))
    assert play.mappings("rtp") == {"10.0.0.20:4000": "203.0.113.1:4000"}
    play.outbound(request("ACK", call_id="call-1", to_tag="b"))
    bye = play.outbound(request("BYE", call_id="call-1", cseq=2, to_tag="b"))
    play.inbound(response(bye.payload, 200))
    play.outbound(invite(PHONE, offer(), call_id="call-2"))
    play.outbound(invite(PHONE, offer(4100), call_id="call-3"))
    given = play.mappings("rtp").values()
    assert len(given) == 2
    assert not {"203.0.113.1:4000", "203.0.113.1:4100"} & set(given)
    play.table.configure(Behavior())
    play.outbound(invite(PHONE_2, offer(4100, "10.0.0.21"), call_id="call-4"), PHONE_2)
    assert play.mappings("rtp")["10.0.0.21:4100"] == "203.0.113.1:4100"


def test_a_shorter_quarantine_is_for_ports_that_are_freed_from_now_on() -> None:
    play = Playbook()
    play.table.configure(Behavior(quarantine_timeout=1.0))
    play.outbound(invite(PHONE, offer()))
    play.wait(40.0)
    play.outbound(invite(PHONE_2, offer(4000, "10.0.0.21"), call_id="call-2"), PHONE_2)
    assert play.mappings("rtp") == {"10.0.0.21:4000": "203.0.113.1:4000"}
