"""What one host may have, and which ports and addresses it may not (A77, A81, A87)."""

from __future__ import annotations

import pytest

from alg.gateway_settings import GatewaySettings
from alg.verdict import Reason
from alg.version import is_compiled
from nat_table.endpoint import Endpoint
from nat_table.refusal import QuotaExceeded
from tests.alg.dialogs.test_calls import ANSWER, AUDIO, call_out, hang_up, media, offer
from tests.alg.playbook import (
    EXTERNAL,
    PHONE,
    PHONE_2,
    SERVER,
    Playbook,
    invite,
    register,
    request,
    response,
    sdp,
)

ROUTER = "10.0.0.1"


def limited(**fields: object) -> Playbook:
    return Playbook(settings=GatewaySettings((EXTERNAL,), **fields))  # type: ignore[arg-type]


def test_a77_at_the_limit_of_calls_a_new_one_passes_as_it_is() -> None:
    play = limited(max_calls_per_host=2)
    call_out(play, "call-1", 4000)
    call_out(play, "call-2", 4100)
    message = invite(PHONE, offer(4200), call_id="call-3")
    outcome = play.outbound(message)
    assert (outcome.reason, outcome.payload) == (Reason.QUOTA, message)
    assert "10.0.0.20:4200" not in play.mappings()
    other = play.outbound(invite(PHONE_2, sdp("10.0.0.21", 4000), call_id="call-4"), PHONE_2)
    assert other.reason is Reason.REWRITTEN


def test_a77_the_calls_that_stand_go_on_at_the_limit() -> None:
    play = limited(max_calls_per_host=1)
    call_out(play)
    moved = play.outbound(invite(PHONE, offer(4100), cseq=2, to_tag="b"))
    assert moved.reason is Reason.REWRITTEN
    play.inbound(response(moved.payload, 200, body=ANSWER))
    hang_up(play, cseq=3)
    assert play.outbound(invite(PHONE, offer(), call_id="call-2")).reason is Reason.REWRITTEN


def test_a77_unanswered_calls_have_a_limit_of_their_own() -> None:
    play = limited(max_unanswered_per_host=2)
    for number in range(5):
        call_out(play, f"answered-{number}", 5000 + 2 * number)
    sent = [play.outbound(invite(PHONE, call_id=f"c{number}")) for number in range(3)]
    assert [each.reason for each in sent] == [Reason.REWRITTEN, Reason.REWRITTEN, Reason.QUOTA]
    play.inbound(response(sent[0].payload, 486))
    assert play.outbound(invite(PHONE, call_id="c3")).reason is Reason.REWRITTEN
    play.wait(40)
    assert play.outbound(invite(PHONE, call_id="c4")).reason is Reason.REWRITTEN


def test_a77_invitations_are_forgotten_not_refused() -> None:
    play = limited(max_unanswered_per_host=3)
    play.outbound(register())
    for number in range(9):
        passed = play.inbound(invite(PHONE, ANSWER, call_id=f"in-{number}"))
        assert passed.reason is not Reason.QUOTA
    play.store()
    assert sum(kind == "invitation" for kind, _ in play.stored) == 3
    play.wait(301)
    play.store()
    assert not [kind for kind, _ in play.stored if kind == "invitation"]


@pytest.mark.parametrize("method", ["REGISTER", "SUBSCRIBE"])
def test_a77_registrations_and_subscriptions_have_a_limit(method: str) -> None:
    play = limited(max_registrations_per_host=2)
    sent = [play.outbound(request(method, call_id=f"r{number}")) for number in range(3)]
    assert [each.reason for each in sent] == [Reason.REWRITTEN, Reason.REWRITTEN, Reason.QUOTA]
    assert play.outbound(request(method, call_id="r0", cseq=2)).reason is Reason.REWRITTEN


def test_a85_a_description_with_too_many_streams_passes_as_it_is() -> None:
    play = limited(max_media_streams=2)
    streams = [f"m=video {5000 + 2 * number} RTP/AVP 31" for number in range(2)]
    assert play.outbound(invite(PHONE, sdp(PHONE.address, 4000, streams[0]))).edits
    message = invite(PHONE, sdp(PHONE.address, 4000, *streams), call_id="more")
    outcome = play.outbound(message)
    assert (outcome.reason, outcome.payload) == (Reason.TOO_COMPLEX, message)


@pytest.mark.skipif(is_compiled(), reason="a compiled method cannot be put in another's place")
def test_the_reason_of_a_refusal_holds_for_special_ones_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Special(QuotaExceeded):
        """A reason that the engine has no word for."""

    def refuse(*arguments: object, **named: object) -> None:
        raise Special("enough")

    play = Playbook()
    monkeypatch.setattr(play.table, "bind", refuse)
    assert play.outbound(register()).reason is Reason.QUOTA


@pytest.mark.parametrize(
    "message",
    [
        invite(PHONE, sdp(PHONE.address, 5432)),
        invite(PHONE, sdp(PHONE.address, 5430, "a=rtcp:5432")),
        invite(PHONE, sdp(PHONE.address, 5428).replace("audio 5428", "audio 5428/4")),
        invite(PHONE, sdp("192.0.2.1", 4000, "a=rtcp:5432 IN IP4 10.0.0.20")),
        invite(PHONE, sdp(PHONE.address, 4000)).replace(b"@10.0.0.20:5060>", b"@10.0.0.20:5432>"),
    ],
)
def test_a81_a_denied_port_is_denied_inside_too(message: bytes) -> None:
    play = limited(denied_ports=frozenset({5432}))
    outcome = play.outbound(message)
    assert (outcome.reason, outcome.payload) == (Reason.DENIED_PORT, message)
    assert play.rows() == []


def test_a87_the_routers_own_address_is_mapped_for_nobody() -> None:
    play = limited(own_addresses=frozenset({ROUTER}), media_hosts=frozenset({ROUTER}))
    message = invite(PHONE, sdp(ROUTER, 4000))
    outcome = play.outbound(message)
    assert (outcome.reason, outcome.payload) == (Reason.OWN_ADDRESS, message)
    assert play.rows() == []


def test_a87_what_the_router_itself_sends_is_none_of_ours() -> None:
    play = limited(own_addresses=frozenset({ROUTER}))
    router = Endpoint(ROUTER, 5060)
    message = invite(router, sdp(ROUTER, 4000))
    outcome = play.outbound(message, router, SERVER)
    assert (outcome.reason, outcome.payload) == (Reason.OWN_ADDRESS, message)
    assert play.rows() == []


def test_a87_naming_the_router_without_leave_maps_nothing() -> None:
    play = limited(own_addresses=frozenset({ROUTER}))
    play.outbound(invite(PHONE, sdp(ROUTER, 4000)))
    assert media(play) == set()
    assert set(play.mappings()) == {"10.0.0.20:5060"}
    assert AUDIO.isdisjoint(play.mappings())
