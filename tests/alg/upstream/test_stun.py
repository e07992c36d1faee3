"""What answers of STUN servers are worth, without a network."""

from __future__ import annotations

import random

from aioice.stun import Class, Message, Method

from alg.upstream.stun import _Prober


def test_answers_that_are_none_are_passed_over() -> None:
    """Fixed seed: whatever is wrong with a message, nobody hears of it."""
    rng = random.Random(8489)
    message = Message(Method.BINDING, Class.RESPONSE)
    message.attributes["XOR-MAPPED-ADDRESS"] = ("203.0.113.1", 4000)
    message.attributes["LIFETIME"] = 4
    good = bytes(message)
    prober = _Prober()
    for _ in range(2000):
        bad = bytearray(good)
        for _ in range(rng.randint(1, 4)):
            bad[rng.randrange(len(bad))] = rng.randrange(256)
        prober.datagram_received(bytes(bad), ("203.0.113.10", 3478))
