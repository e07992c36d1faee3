"""What one phone can make the gateway remember has an end (A77, A85).

Growth is measured from outside: how many objects can be reached from the gateway after so many
messages, and after twice as many. Nobody has answered any of them.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType

from alg.gateway_settings import GatewaySettings
from alg.verdict import Reason
from tests.alg.playbook import EXTERNAL, PHONE, Playbook, invite, register, request, response, sdp

MANY = 300
FEW = GatewaySettings((EXTERNAL,), max_calls_per_host=20, max_registrations_per_host=20)
SHARED = (type, ModuleType, FunctionType, BuiltinFunctionType, MethodType)
BODY = sdp(PHONE.address, 4000)


def reachable(play: Playbook) -> int:
    """Returns how many objects the gateway holds."""
    seen: set[int] = set()
    left: list[object] = [play.gateway]
    while left:
        one = left.pop()
        if id(one) not in seen and not isinstance(one, SHARED):
            seen.add(id(one))
            left += gc.get_referents(one)
    return len(seen)


def growth(message_of: Callable[[int], bytes], *, is_answered: bool = False) -> int:
    """Returns how many objects the second half of the messages has added."""
    play = Playbook()
    first = play.outbound(invite(PHONE, BODY))
    play.inbound(response(first.payload, 200))
    sizes = []
    for number in range(2, 2 * MANY + 2):
        play.wait(0.001)
        sent = play.outbound(message_of(number))
        if is_answered:
            play.inbound(response(sent.payload, 200))
            play.wait(10)
        if number in (MANY, 2 * MANY):
            sizes.append(reachable(play))
    return sizes[1] - sizes[0]


def test_a85_requests_of_no_dialog_leave_nothing() -> None:
    assert growth(lambda number: request("OPTIONS", call_id=f"c{number}")) < 50


def test_a85_retransmissions_leave_nothing() -> None:
    assert growth(lambda number: request("UPDATE", PHONE, BODY, cseq=2)) < 50


def test_a85_answered_refreshes_leave_nothing() -> None:
    refresh = lambda number: request("UPDATE", PHONE, BODY, cseq=number)  # noqa: E731
    assert growth(refresh, is_answered=True) < 50


def test_a85_registering_again_and_again_leaves_nothing() -> None:
    assert growth(lambda number: register(cseq=number), is_answered=True) < 50


def test_a85_unanswered_offers_are_limited() -> None:
    assert growth(lambda number: request("UPDATE", PHONE, BODY, cseq=number)) < 50


def test_a85_a_call_that_moves_its_ports_is_limited() -> None:
    def moved(number: int) -> bytes:
        return request("UPDATE", PHONE, sdp(PHONE.address, 4000 + 2 * number), cseq=number)

    assert growth(moved, is_answered=True) < 5 * MANY  # old deadlines are swept now and then


def test_a85_unanswered_registers_are_limited() -> None:
    assert growth(lambda number: register(cseq=number)) < 50


def test_a77_the_calls_of_a_host_are_limited() -> None:
    play = Playbook(settings=FEW)
    for number in range(30):
        play.outbound(invite(PHONE, call_id=f"call-{number}"))
    assert play.gateway.call_count == 20


def test_a77_the_registrations_of_a_host_are_limited() -> None:
    play = Playbook(settings=FEW)
    for number in range(30):
        play.outbound(register(call_id=f"registration-{number}"))
    assert play.gateway.registration_count == 20


def test_a63_whatever_nobody_answered_is_forgotten() -> None:
    play = Playbook()
    before = reachable(play)
    for number in range(100):
        play.outbound(invite(PHONE, sdp(PHONE.address, 4000 + number), call_id=f"c{number}"))
        play.outbound(register(call_id=f"r{number}"))
    play.wait(2**33)
    assert (len(play.table), play.gateway.call_count, play.gateway.registration_count) == (0, 0, 0)
    assert reachable(play) < before + 400


def test_a85_a_message_that_names_its_sender_too_often_passes_as_it_is() -> None:
    play = Playbook()
    message = request("INVITE", PHONE, b"", *["Contact: <sip:alice@10.0.0.20:5060>"] * 1500)
    outcome = play.outbound(message)
    assert (outcome.reason, outcome.payload) == (Reason.TOO_COMPLEX, message)
    assert play.rows() == []
