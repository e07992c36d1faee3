"""What an administrator ends by hand: gone at once, and late messages open nothing."""

from __future__ import annotations

import random

import pytest

from alg.dialogs.dialog import CallTimeouts
from alg.drop import Dropped, drop_all, drop_mapping, drop_named
from alg.verdict import Outcome
from nat_table.binding import Kind
from nat_table.endpoint import Endpoint, Transport, parse_endpoint
from nat_table.lease import Source, lease_owner
from rules.memory import MemoryBackend
from rules.settings import Settings
from tests.alg.dialogs.test_calls import ANSWER, AUDIO, call_in, call_out, from_server, media, offer
from tests.alg.playbook import (
    PHONE,
    PHONE_2,
    Playbook,
    invite,
    register,
    request,
    response,
)

OTHER_ANSWER = ANSWER.replace("30000", "30010")


def take(play: Playbook) -> None:
    """Has the kernel, were there one, follow what was dropped."""
    changes = play.table.take_changes()
    play.gateway.forget_closed(changes)
    play.changes += changes


def drop(play: Playbook, call_id: str) -> list[Dropped]:
    dropped = drop_named(play.gateway.state, call_id, play.now)
    take(play)
    return dropped


def drop_at(play: Playbook, internal: str) -> None:
    binding = play.binding(internal)
    assert binding is not None
    drop_mapping(play.gateway.state, binding, play.now)
    take(play)


def flush(play: Playbook, *, has_leases: bool = False) -> None:
    for _ in drop_all(play.gateway.state, play.now, has_leases=has_leases):
        take(play)


def log_in(play: Playbook, phone: str = "10.0.0.20", call_id: str = "registration-1") -> None:
    source = parse_endpoint(f"{phone}:5060")
    asked = play.outbound(register(source, call_id=call_id), source)
    play.inbound(response(asked.payload, 200), source)


def lease(play: Playbook, internal: str) -> None:
    play.table.bind(
        Transport.UDP,
        parse_endpoint(internal),
        Kind.ANY,
        lease_owner(Source.PCP, "nonce"),
        now=play.now,
        expires_at=play.now + 3600,
    )
    take(play)


def test_a_dropped_call_loses_its_media_at_once_and_no_other_does() -> None:
    play = Playbook()
    call_out(play)
    call_out(play, "call-2", 4100)
    assert drop(play, "call-1") == [Dropped("call", "10.0.0.20")]
    assert media(play) == {"10.0.0.20:4100", "10.0.0.20:4101"}
    assert play.gateway.open_call_count == 1


@pytest.mark.parametrize("call_id", ["call-1", "call-in"])
def test_late_messages_of_a_dropped_call_open_nothing(call_id: str) -> None:
    play = Playbook()
    if call_id == "call-1":
        call_out(play)
        ours, theirs = "a", "b"
    else:
        call_in(play)
        ours, theirs = "phone", "remote"
    drop(play, call_id)

    def late(method: str, cseq: int, body: str = "") -> Outcome:
        sent = request(
            method, PHONE, body, call_id=call_id, cseq=cseq, from_tag=ours, to_tag=theirs
        )
        return play.outbound(sent)

    again = late("INVITE", 2, offer(4100))
    play.inbound(response(again.payload, 200, body=OTHER_ANSWER))
    late("UPDATE", 3, offer())
    asked = play.inbound(from_server("INVITE", call_id, 9, local=ours, remote=theirs))
    play.outbound(response(asked.payload, 200, body=offer()))
    bye = late("BYE", 4)
    assert b"Via: SIP/2.0/UDP 203.0.113.1:5060" in bye.payload
    play.inbound(response(bye.payload, 200))
    assert media(play) == set()
    assert play.gateway.open_call_count == 0


def test_a_call_that_rings_is_dropped_and_the_answer_comes_too_late() -> None:
    play = Playbook()
    sent = play.outbound(invite(PHONE, offer()))
    play.inbound(response(sent.payload, 180))
    drop(play, "call-1")
    assert media(play) == set()
    play.inbound(response(sent.payload, 200, body=ANSWER))
    play.outbound(request("ACK", call_id="call-1", to_tag="b"))
    assert media(play) == set()


def test_both_sides_of_a_call_between_phones_are_dropped() -> None:
    play = Playbook()
    play.outbound(request("OPTIONS", PHONE_2, call_id="keep"), PHONE_2)
    arrived = play.hairpin(invite(PHONE, offer()))
    answer = response(arrived.payload, 200, body=offer(4000, "10.0.0.21"))
    play.hairpin(answer, PHONE_2, PHONE)
    assert {each.host for each in drop(play, "call-1")} == {"10.0.0.20", "10.0.0.21"}
    assert media(play) == set()


def test_a_dropped_registration_is_over_when_its_transaction_is() -> None:
    play = Playbook()
    log_in(play)
    play.wait(400.0)
    assert drop(play, "registration-1") == [Dropped("registration", "10.0.0.20")]
    assert (play.gateway.registration_count, play.gateway.registered()) == (0, [])
    play.wait(33.0)
    assert play.mappings() == {}


def test_a_dropped_mapping_is_gone_at_once_whoever_keeps_it() -> None:
    play = Playbook()
    log_in(play)
    call_out(play)
    lease(play, "10.0.0.20:5060")
    drop_at(play, "10.0.0.20:5060")
    assert play.mappings("sip") == {}
    assert (play.gateway.registration_count, play.gateway.registered()) == (0, [])
    assert media(play) == AUDIO, "the call goes on"
    drop_at(play, "10.0.0.20:4000")
    assert media(play) == {"10.0.0.20:4001"}
    play.inbound(from_server("OPTIONS", "call-1", 7, local="a", remote="b"))
    assert media(play) == {"10.0.0.20:4001"}


def test_a_call_may_offer_a_dropped_socket_anew() -> None:
    play = Playbook()
    call_out(play)
    drop_at(play, "10.0.0.20:4000")
    again = play.outbound(invite(PHONE, offer(), cseq=2, to_tag="b"))
    play.inbound(response(again.payload, 200, body=ANSWER))
    assert media(play) == AUDIO
    play.wait(60.0)
    assert media(play) == AUDIO


def test_what_was_asked_for_stays_unless_everything_goes() -> None:
    play = Playbook()
    log_in(play)
    call_out(play)
    lease(play, "10.0.0.20:5060")
    lease(play, "10.0.0.21:8080")
    flush(play)
    assert set(play.mappings()) == {"10.0.0.20:5060", "10.0.0.21:8080"}
    state = play.gateway
    assert (state.open_call_count, state.registration_count) == (0, 0)
    flush(play, has_leases=True)
    assert play.mappings() == {}


def test_what_is_dropped_is_not_stored() -> None:
    play = Playbook()
    play.store()
    log_in(play)
    call_out(play)
    play.store()
    drop(play, "registration-1")
    drop(play, "call-1")
    play.restart()
    assert (play.gateway.open_call_count, play.gateway.registration_count) == (0, 0)
    play.outbound(request("BYE", call_id="call-1", cseq=2, to_tag="b"))
    assert media(play) == set()


def test_an_unknown_call_id_drops_nothing() -> None:
    play = Playbook()
    call_out(play)
    assert drop(play, "call-2") == []
    assert media(play) == AUDIO


@pytest.mark.parametrize("seed", range(40))
def test_table_and_kernel_agree_whatever_is_dropped(seed: int) -> None:
    rng, play = random.Random(seed), Playbook(seed=seed)
    kernel = MemoryBackend(Settings(("lan0",), "wan0", ("203.0.113.1",)))
    life = Life(rng, play)
    for _ in range(120):
        life.act()
        kernel.commit(play.changes)
        play.changes.clear()
        places = {(each.transport, each.internal, each.external) for each in play.table.bindings()}
        assert {(b.transport, b.internal, b.external) for b in kernel.listing()} == places
        calls = {each.owner for each in play.gateway.state.calls.standing()}
        soon = play.now + CallTimeouts().replaced_media
        for binding in play.table.bindings():
            for hole in play.table.pinholes(binding):
                is_of_call = hole.owner.scope == "call"
                assert not is_of_call or hole.owner in calls or hole.expires_at <= soon
    flush(play, has_leases=True)
    play.wait(8000.0)
    gateway = play.gateway
    assert (len(play.table), gateway.call_count, gateway.registration_count) == (0, 0, 0)
    assert not any(quota.counts() for quota in gateway.state.calls.quotas)


def test_what_ends_while_everything_is_dropped_is_not_ended_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("alg.drop.AT_ONCE", 1)
    play = Playbook()
    for number in range(3):
        call_out(play, f"call-{number}", 4000 + 4 * number)
        log_in(play, call_id=f"registration-{number}")
    steps = drop_all(play.gateway.state, play.now, has_leases=False)
    next(steps)
    bye = play.outbound(request("BYE", call_id="call-2", cseq=2, to_tag="b"))
    play.inbound(response(bye.payload, 200))
    for key in play.gateway.state.registrations.standing():
        if key.call_id == b"registration-2":
            play.gateway.state.registrations.drop(play.table, key, play.now)
    for _ in steps:
        take(play)
    play.wait(100.0)
    gateway = play.gateway
    assert (gateway.open_call_count, gateway.call_count, gateway.registration_count) == (0, 0, 0)
    assert not any(quota.counts() for quota in gateway.state.calls.quotas)


@pytest.mark.parametrize("at", range(8))
def test_a_call_that_comes_while_everything_is_dropped_keeps_its_mappings(
    monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    monkeypatch.setattr("alg.drop.AT_ONCE", 1)
    play = Playbook()
    call_out(play)
    steps = drop_all(play.gateway.state, play.now, has_leases=False)
    for number, _ in enumerate(steps):
        take(play)
        if number == at:
            call_out(play, "call-2")
    held = {
        str(each.internal) for call in play.gateway.state.calls.standing() for each in call.held
    }
    assert media(play) == held


class Life:
    """What phones, servers, time and the administrator may do, in any order."""

    def __init__(self, rng: random.Random, play: Playbook) -> None:
        self.rng = rng
        self.play = play
        self.cseq = 1

    def act(self) -> None:
        """Does one thing of them."""
        acts = (*3 * (self.call,), self.hang_up, self.log_in, self.wait, *2 * (self.drop,))
        self.rng.choice((*3 * acts, self.flush))()

    def call(self) -> None:
        phone, to_tag = self.phone(), self.rng.choice(("", "b"))
        body = offer(self.rng.choice((4000, 4100)), phone.address)
        asked = invite(phone, body, call_id=self.call_id(), cseq=self.cseq, to_tag=to_tag)
        sent = self.play.outbound(asked, phone)
        answer = response(sent.payload, self.rng.choice((180, 200, 200, 486)), body=ANSWER)
        self.play.inbound(answer, phone)

    def hang_up(self) -> None:
        phone = self.phone()
        bye = request("BYE", phone, call_id=self.call_id(), cseq=self.cseq, to_tag="b")
        self.play.inbound(response(self.play.outbound(bye, phone).payload, 200), phone)

    def log_in(self) -> None:
        log_in(self.play, self.phone().address, f"registration-{self.rng.randrange(2)}")

    def wait(self) -> None:
        self.play.wait(self.rng.choice((1.0, 6.0, 40.0)))

    def drop(self) -> None:
        bindings = list(self.play.table.bindings())
        if bindings and self.rng.randrange(2):
            drop_at(self.play, str(self.rng.choice(bindings).internal))
        else:
            drop(self.play, self.rng.choice((self.call_id(), "registration-0")))

    def flush(self) -> None:
        flush(self.play)

    def phone(self) -> Endpoint:
        return self.rng.choice((PHONE, PHONE_2))

    def call_id(self) -> str:
        self.cseq += 1
        return f"call-{self.rng.randrange(4)}"
