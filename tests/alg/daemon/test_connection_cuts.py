"""However a conversation is cut into segments, its receivers get the same messages (A68).

The same 200 messages pass a real connection twice: each in a segment of its own, and cut at random
positions, often several or parts of several in one segment.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import groupby

import pytest

from alg.sip.stream import PieceKind, SipStream
from nat_table.endpoint import Endpoint
from tests.alg.daemon.switchboard import EXTERNAL, PHONE, SERVER, Switchboard
from tests.alg.io.wires import run, wired
from tests.lab.sdp import render_sdp

MESSAGES = 200
MAX_BODY = 3000
Said = tuple[bool, bytes]


def message(start: str, source: str, number: int, method: str, body: bytes = b"") -> bytes:
    """Renders a request, or the answer to one, of a phone that writes where it is."""
    is_sdp = body.startswith(b"v=0")
    head = (
        f"{start}\r\nVia: SIP/2.0/TCP {source};branch=z9hG4bK{number};rport\r\n"
        f"From: <sip:phone@{SERVER.address}>;tag=f{number}\r\n"
        f"To: <sip:server@{SERVER.address}>{';tag=t' if start.startswith('SIP') else ''}\r\n"
        f"Call-ID: {number}@{PHONE.address}\r\nCSeq: {number} {method}\r\nMax-Forwards: 70\r\n"
        f"Contact: <sip:phone@{source};transport=tcp>\r\n"
        f"Content-Type: {'application/sdp' if is_sdp else 'text/plain'}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def conversation(rng: random.Random) -> Iterator[Said]:
    """Yields who says what: requests in runs, their answers, keepalives in between."""
    external = Endpoint(EXTERNAL, PHONE.port)
    number = said = 0
    while said < MESSAGES:
        run_length = min(rng.randint(1, 6), (MESSAGES - said + 1) // 2)
        asked = []
        for _ in range(run_length):
            number += 1
            method = rng.choice(("INVITE", "MESSAGE", "OPTIONS", "REGISTER"))
            body = b""
            if method == "INVITE":
                body = render_sdp(Endpoint(PHONE.address, 4000 + 2 * number))
            elif method == "MESSAGE":
                body = rng.randbytes(rng.randrange(MAX_BODY)) + b"\r\n\r\nBYE sip:a SIP/2.0\r\n"
            asked.append((number, method))
            yield True, message(f"{method} sip:{SERVER} SIP/2.0", str(PHONE), number, method, body)
        if rng.random() < 0.3:
            yield True, b"\r\n\r\n"
        for answered, method in asked:
            status = rng.choice(("200 OK", "404 Not Found", "180 Ringing"))
            yield False, message(f"SIP/2.0 {status}", str(external), answered, method)
        said += 2 * run_length


def cut(data: bytes, rng: random.Random) -> list[bytes]:
    """Cuts octets at random positions."""
    ends = sorted({rng.randrange(1, len(data)) for _ in range(rng.randrange(12))} | {len(data)})
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def messages(stream: bytes) -> list[bytes]:
    """Returns the messages of a stream that is SIP from its first octet to its last."""
    framed = SipStream()
    pieces = framed.feed(stream)
    assert (framed.fault, framed.held) == (None, 0)
    return [piece.data for piece in pieces if piece.kind is PieceKind.MESSAGE]


async def relay(runs: list[tuple[bool, list[bytes]]]) -> tuple[bytes, bytes]:
    """Has a connection relay runs of segments; returns what the server and the phone got."""
    connection = Switchboard().connect(PHONE, SERVER)
    got = {True: b"", False: b""}
    async with wired(connection) as wire:
        for is_from_phone, segments in runs:
            sender, receiver = wire.ends(is_phone_first=is_from_phone)
            await sender.send(*segments)
            sent = messages(b"".join(segments))
            arrived: list[bytes] = []
            stream = SipStream()
            while len(arrived) < len(sent):
                octets = await receiver.some()
                assert octets, "the stream has ended"
                got[is_from_phone] += octets
                arrived += (p.data for p in stream.feed(octets) if p.kind is PieceKind.MESSAGE)
        # A keepalive behind the last message may still be on its way.
        for is_from_phone in (True, False):
            sender, receiver = wire.ends(is_phone_first=is_from_phone)
            sender.finish()
            while octets := await receiver.some():
                got[is_from_phone] += octets
    return got[True], got[False]


@pytest.mark.parametrize("seed", range(5))
@run
async def test_a68_receivers_get_the_same_messages_however_the_stream_is_cut(seed: int) -> None:
    rng = random.Random(seed)
    said = list(conversation(rng))
    assert sum(data != b"\r\n\r\n" for _, data in said) == MESSAGES
    runs = [
        (is_from_phone, [data for _, data in together])
        for is_from_phone, together in groupby(said, key=lambda each: each[0])
    ]
    at_server, at_phone = await relay(runs)
    cuts = [(is_from_phone, cut(b"".join(parts), rng)) for is_from_phone, parts in runs]
    assert await relay(cuts) == (at_server, at_phone)
    assert len(messages(at_server)) + len(messages(at_phone)) == MESSAGES
    assert all(
        str(PHONE).encode() not in each.partition(b"\r\n\r\n")[0] for each in messages(at_server)
    )
    assert all(str(PHONE).encode() in each for each in messages(at_phone))
