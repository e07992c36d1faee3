"""Hostile bytes: whatever arrives, the gateway neither fails nor harms nor drops it.

Messages with pieces cut out, put in and repeated. What holds for valid messages is in
test_abnf_properties.py, what large ones cost in test_cost.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from hypothesis import given, settings
from hypothesis import strategies as st

from alg.sip.message import Malformed, NotSip, parse_message
from alg.verdict import Reason, Verdict
from tests.alg.playbook import PHONE, Playbook, invite, register, response, sdp
from tests.fuzz.engine import PIECES

OWN = "10.0.0.20"
MANY = settings(max_examples=2 * settings().max_examples)

Option = TypeVar("Option")


class Dice:
    """Choices read off drawn bytes: one draw a message, and zeros are the simplest message."""

    def __init__(self, rolls: bytes) -> None:
        self._rolls = iter(rolls)

    def pick(self, options: Sequence[Option]) -> Option:
        return options[next(self._rolls, 0) % len(options)]

    def number(self, below: int) -> int:
        return self.pick(range(below))


SEEDS = (
    invite(PHONE, sdp(OWN, 4000, "a=rtcp:4001 IN IP4 10.0.0.20")),
    invite(PHONE, b"--b\r\nContent-Type: application/sdp\r\n\r\nv=0\r\n--b--\r\n").replace(
        b"application/sdp\r\nContent-Length", b"multipart/mixed;boundary=b\r\nContent-Length"
    ),
    register(
        PHONE, 'Contact: "x" <sip:a@10.0.0.20>;expires=5, <tel:1>', "Route: <sip:10.0.0.20;lr>"
    ),
    response(invite(PHONE), 200, body=sdp("203.0.113.1", 4000), contact="<sip:b@203.0.113.10>"),
)


def mutated(rolls: bytes) -> bytes:
    """Returns a message with pieces cut out, put in, or repeated."""
    dice = Dice(rolls)
    data = dice.pick(SEEDS)
    for _ in range(1 + dice.number(5)):
        start = (dice.number(256) * 256 + dice.number(256)) % (len(data) + 1)
        end = min(len(data), start + dice.pick((0, 0, 1, 2, 20)))
        data = data[:start] + dice.pick((*PIECES, data[start:end] * 3)) + data[end:]
    return data


@MANY
@given(st.one_of(st.binary(max_size=200), st.binary(min_size=24, max_size=24).map(mutated)))
def test_a85_a03_hostile_bytes_are_parsed_or_refused_and_never_hurt(data: bytes) -> None:
    try:
        parse_message(data)
        is_sip = True
    except (NotSip, Malformed):
        is_sip = False
    play = Playbook()
    play.outbound(register(PHONE))
    for outcome in (play.outbound(data), play.inbound(data), play.hairpin(data)):
        assert outcome.reason is not Reason.ERROR, outcome.detail
        assert is_sip or outcome.payload == data
        assert outcome.verdict is not Verdict.DROPPED
