"""A restart in the middle of a call changes nothing: state comes back from rows of bytes (A33).

Every golden flow is cut at every message: the gateway is replaced by one that has read what was
stored, and what follows must read as in the file, with the same pinholes at the end.
"""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from alg.gateway_settings import GatewaySettings
from nat_table.snapshot import snapshot
from tests.alg.playbook import EXTERNAL, PHONE, SERVER, Playbook, invite, register, response, sdp
from tests.alg.test_golden import FILES, Flow, Step, parse_steps


class CutFlow(Flow):
    """A flow with a restart before the steps of these numbers; rows are taken before each."""

    def __init__(self, steps: list[Step], cuts: range) -> None:
        super().__init__(steps)
        self._cuts = cuts

    def before(self, number: int) -> None:
        self.play.store()
        if number in self._cuts:
            self.play.restart()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a33_a_flow_that_is_cut_anywhere_goes_on_as_it_was(path: Path) -> None:
    text = path.read_text()
    steps = parse_steps(text)
    whole = Flow(steps)
    expected = whole.transcript()
    for cuts in (range(len(steps)), *(range(cut, cut + 1) for cut in range(1, len(steps)))):
        flow = CutFlow(steps, cuts)
        assert flow.transcript() == expected, cuts
        assert snapshot(flow.play.table) == snapshot(whole.play.table), cuts
        assert flow.play.gateway.next_timer() is not None or not whole.play.gateway.next_timer()


def call(play: Playbook) -> None:
    play.outbound(register())
    sent = play.outbound(invite(PHONE, sdp(PHONE.address, 4000)))
    play.inbound(response(sent.payload, 200, body=sdp(SERVER.address, 30000)))


def test_nothing_is_stored_of_what_is_over() -> None:
    play = Playbook()
    play.store()
    call(play)
    play.store()
    assert {kind for kind, _ in play.stored} == {"call", "registration"}
    play.wait(20000)
    play.store()
    assert play.stored == {}


def test_the_first_rows_are_all_there_are_and_the_next_only_what_has_changed() -> None:
    play = Playbook()
    call(play)
    assert len(dict(play.gateway.take_touched())) == 2
    assert dict(play.gateway.take_touched()) == {}
    play.outbound(register(cseq=2))
    assert [kind for kind, _ in dict(play.gateway.take_touched())] == ["registration"]


@pytest.mark.parametrize("row", [b"", b"\x00", b"\x93\x01\x02\x03", b"\xc1" * 50])
@pytest.mark.parametrize("kind", ["call", "registration", "subscription", "written", "what"])
def test_a_row_that_cannot_be_read_is_left_out_with_one_line(
    kind: str, row: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    play = Playbook()
    call(play)
    play.store()
    play.stored[kind, "broken"] = row
    with caplog.at_level(logging.WARNING):
        play.restart()
    assert len(caplog.records) == 1
    assert (play.gateway.call_count, play.gateway.registration_count) == (1, 1)
    assert dict(play.gateway.take_touched()) == {(kind, "broken"): None}


def test_what_lost_its_binding_meanwhile_is_left_out() -> None:
    play = Playbook()
    call(play)
    play.store()
    for binding in list(play.table.bindings()):
        for pinhole in play.table.pinholes(binding):
            play.table.close(binding, pinhole.owner, play.now)
    play.table.take_changes()
    play.restart()
    assert play.gateway.registered() == []
    play.wait(20000)
    assert play.rows() == []


def test_the_limits_count_what_was_restored() -> None:
    play = Playbook(settings=GatewaySettings((EXTERNAL,), max_calls_per_host=2))
    call(play)
    play.restart()
    for number in (2, 3):
        play.outbound(invite(PHONE, call_id=f"call-{number}"))
    assert play.gateway.call_count == 2
