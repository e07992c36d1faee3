"""What is remembered of lines changes nothing: every way to read a message reads the same in it.

Drawn messages and transcripts, mutated with a fixed seed, are read with nothing remembered, again
with everything remembered, and the general way, which a leading line break makes them go.
"""

from __future__ import annotations

import random
from itertools import islice

import pytest

from alg.sip.header_line import (
    FROM,
    LAST_LIST,
    LINES,
    LINES_BEFORE,
    LONGEST,
    MOST,
    NAMES,
    TO,
    VIA,
    read_line,
)
from alg.sip.host_port import HostPort
from alg.sip.message import Malformed, NotSip, SipMessage, parse_message
from alg.sip.name_addr import tag_of
from alg.sip.start_line import START_LINES
from alg.sip.via import branch_of, parse_via
from tests.alg.playbook import PHONE, invite
from tests.fuzz.engine import mutations
from tests.fuzz.seeds import seeds_of

SEEDS = list(seeds_of("message", None))
# Of lines that are read by their beginning and a new parameter, and of lines that are not plain.
PIECES = (
    *(b";branch=", b";tag=", b";BRANCH=1", b";tag=2;branch=3", b'"', b";x=", b",", b" ", b":"),
    *(b"\r\n ", b"\n", b"\r", b"\r\n\r\n", b"<", b">", b"\x0b", b"i: again\r\n", b"Via: x\r\n"),
)


def mutated(number: int) -> list[bytes]:
    """Returns messages as they are, fuzzed all over, and with pieces put in where it hurts."""
    rng = random.Random(number)
    found = [*SEEDS, *islice(mutations(SEEDS, rng), 300)]
    for seed in rng.choices(SEEDS, k=1500):
        place = rng.randrange(len(seed))
        mark = seed.find(rng.choice((b";branch=", b";tag=", b"\r\n", b":")), place)
        place = max(place, mark + rng.choice((0, 0, 1, 5, 8)))
        found.append(seed[:place] + rng.choice(PIECES) + seed[place + rng.choice((0, 0, 1)) :])
    return found


def named(values: list[HostPort], place: int) -> list[object]:
    return [
        (each.host, each.port, each.is_bare, place + each.host_start, place + each.port_end)
        for each in values
    ]


def lists(message: SipMessage, offset: int) -> list[object]:
    """Returns what the fields that may be edited say, and where."""
    found: list[object] = []
    for line, place in zip(message.lines, message.places, strict=True):
        if line.kind == VIA:
            found.append((named([*line.vias()], place - offset), line.is_sound))
        else:
            uris: list[HostPort] = [each.uri for each in line.addresses() if each.uri is not None]
            found.append((named(uris, place - offset), line.is_sound))
    for kind in range(LAST_LIST + 1, len(NAMES)):
        single = message.single(kind)
        if single is not None:
            found.append((kind, single.value, single.number, single.token))
    return found


def read(data: bytes, offset: int = 0) -> object:
    """Returns all that is read in a message that begins after so many octets."""
    try:
        message = parse_message(b"\r\n"[:offset] + data)
    except (NotSip, Malformed) as error:
        return type(error), str(error)
    identity = (message.method, message.status, message.cseq, message.branch, message.call_id)
    tags = (message.from_tag, message.to_tag)
    ends = (message.headers_end - offset, message.body_end - offset)
    return identity, tags, ends, lists(message, offset)


def forget() -> None:
    LINES.clear()
    LINES_BEFORE.clear()
    START_LINES.clear()


@pytest.mark.parametrize("number", range(4))
def test_every_way_to_read_a_message_reads_the_same(number: int) -> None:
    for data in mutated(number):
        forget()
        fresh = read(data)
        assert read(data) == fresh
        forget()
        assert read(data, 2) == fresh


@pytest.mark.parametrize("number", range(4, 6))
def test_a_line_is_what_its_patterns_say_whatever_came_before(number: int) -> None:
    forget()
    parsed = 0
    for data in mutated(number):
        try:
            message = parse_message(data)
        except (NotSip, Malformed):
            continue
        parsed += 1
        for line, place in zip(message.lines, message.places, strict=True):
            assert data.startswith(line.text, place)
            if line.kind == VIA:
                vias, is_whole = parse_via(line.text, line.start, line.end)
                assert named([*line.vias()], 0) == named([*vias], 0)
                assert line.token == (branch_of(line.text, vias[0]) if vias else b"")
                assert line.is_sound == is_whole
        for kind in (FROM, TO):
            party = message.single(kind)
            assert party is not None
            assert party.token == tag_of(party.text, party.start, party.end)
    assert parsed > 500


def test_what_is_remembered_is_bounded() -> None:
    message = invite(PHONE)
    for number in range(MOST + 100):
        via = b"\r\nVia: SIP/2.0/UDP 10.0.0.20;branch=z9hG4bK%d\r\n" % number
        parse_message(message.replace(b"\r\n", via, 1))
    parse_message(message.replace(b"\r\n", b"\r\nX: " + b"y" * LONGEST + b"\r\n", 1))
    assert 0 < len(LINES) <= MOST
    assert len(LINES_BEFORE) <= MOST
    assert max(map(len, LINES | LINES_BEFORE)) <= LONGEST


def test_what_comes_again_outlives_what_came_once() -> None:
    forget()
    message = invite(PHONE)
    contact = next(line for line in message.split(b"\r\n") if line.startswith(b"Contact"))
    parse_message(message)
    kept = LINES[contact]
    for number in range(5 * MOST):
        read_line(b"Call-ID: %d" % number)
        if number % (MOST // 2) == 0:
            parse_message(message)
            assert LINES[contact] is kept
