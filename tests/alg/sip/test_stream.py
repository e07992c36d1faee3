"""Framing: what goes in comes out, in pieces that do not depend on how the stream was cut."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alg.sip.message import parse_message
from alg.sip.stream import MAX_START_LINE, Fault, Piece, PieceKind, SipStream

REGISTER = b"REGISTER sip:example.com SIP/2.0\r\nVia: SIP/2.0/TCP 10.0.0.20\r\nl: 0\r\n\r\n"
MESSAGE = (
    b"MESSAGE sip:bob@example.com SIP/2.0\r\n"
    b"Content-Type: text/plain\r\n"
    b"Content-Length :\r\n 24\r\n\r\n"
    b"\r\n\r\nBYE sip:a SIP/2.0\r\n\r"
)
RINGING = b"SIP/2.0 180 Ringing\r\nContent-Length: 0\r\n\r\n"
OK = b"SIP/2.0 200 \r\ncontent-length: 000\r\n\r\n"
BARE = b"OPTIONS sip:a SIP/2.0\nContent-Length: 2\n\nab"
PING = b"\r\n"
WHOLE = (REGISTER, MESSAGE, RINGING, OK, BARE, PING)

NO_LENGTH = b"BYE sip:a SIP/2.0\r\nVia: SIP/2.0/TCP 10.0.0.20\r\n\r\n"
TWO_LENGTHS = b"BYE sip:a SIP/2.0\r\nContent-Length: 4\r\nl: 0\r\n\r\nabcd"
NEGATIVE = b"BYE sip:a SIP/2.0\r\nContent-Length: -4\r\n\r\nabcd"
HUGE = b"BYE sip:a SIP/2.0\r\nContent-Length: 99999\r\n\r\nabcd"
WEB_FORM = b"POST / HTTP/1.1\r\nContent-Length: 70\r\n\r\n"
TLS = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"


def run(*cuts: bytes, is_finished: bool = True) -> tuple[list[Piece], SipStream]:
    """Feeds a stream cut by cut; returns its pieces, opaque neighbours joined."""
    stream = SipStream()
    pieces = [piece for cut in cuts for piece in stream.feed(cut)]
    if is_finished:
        pieces += stream.finish()
    joined: list[Piece] = []
    for piece in pieces:
        assert piece.data
        if joined and joined[-1].kind is piece.kind is PieceKind.OPAQUE:
            joined[-1] = Piece(PieceKind.OPAQUE, joined[-1].data + piece.data)
        else:
            joined.append(piece)
    return joined, stream


def message(data: bytes) -> Piece:
    return Piece(PieceKind.MESSAGE, data)


def opaque(data: bytes) -> Piece:
    return Piece(PieceKind.OPAQUE, data)


def test_several_messages_in_one_segment() -> None:
    pieces, stream = run(b"".join(WHOLE))
    assert pieces == [*map(message, WHOLE[:-1]), Piece(PieceKind.KEEPALIVE, PING)]
    assert (stream.fault, stream.held) == (None, 0)


def test_a_message_in_segments_of_one_byte_comes_with_its_last_byte() -> None:
    stream = SipStream()
    for octet in MESSAGE[:-1]:
        assert stream.feed(bytes((octet,))) == []
    assert stream.held == len(MESSAGE) - 1
    assert stream.feed(MESSAGE[-1:]) == [message(MESSAGE)]


def test_keepalives_stand_before_between_and_after_messages() -> None:
    pieces, stream = run(b"\r\n\r\n", REGISTER, b"\r", b"\n\r\n", RINGING, b"\r\n")
    kinds = "".join(piece.kind.value[0] for piece in pieces)
    assert kinds == "kkmkkmk"
    assert stream.fault is None


def test_a_line_end_cut_in_two_waits() -> None:
    stream = SipStream()
    assert stream.feed(b"\r") == []
    assert stream.feed(b"\n") == [Piece(PieceKind.KEEPALIVE, b"\r\n")]


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (TLS, Fault.NOT_SIP),
        (WEB_FORM, Fault.NOT_SIP),
        (b"INVITE sip:a SIP/3.0\r\nContent-Length: 0\r\n\r\n", Fault.NOT_SIP),
        (b" INVITE sip:a SIP/2.0\r\n", Fault.NOT_SIP),
        (b"\rINVITE sip:a SIP/2.0\r\n", Fault.NOT_SIP),
        (b"\0\0\0\0", Fault.NOT_SIP),
        (NO_LENGTH, Fault.NO_LENGTH),
        (b"BYE sip:a SIP/2.0\r\n\r\n", Fault.NO_LENGTH),
        (TWO_LENGTHS, Fault.BAD_LENGTH),
        (NEGATIVE, Fault.BAD_LENGTH),
        (HUGE, Fault.TOO_LARGE),
        (b"BYE sip:a SIP/2.0\r\n" + b"X: y\r\n" * 11000, Fault.TOO_LARGE),
        (b"BYE sip:" + b"a" * MAX_START_LINE, Fault.NOT_SIP),
    ],
)
def test_what_is_not_framed_beyond_doubt_is_opaque_for_ever(data: bytes, fault: Fault) -> None:
    pieces, stream = run(REGISTER, data, REGISTER, is_finished=False)
    assert pieces == [message(REGISTER), opaque(data + REGISTER)]
    assert (stream.fault, stream.held) == (fault, 0)


def test_equal_lengths_are_no_doubt() -> None:
    data = b"BYE sip:a SIP/2.0\r\nContent-Length: 2\r\nl: 2\r\n\r\nab"
    assert run(data, RINGING)[0] == [message(data), message(RINGING)]


def test_slipstreaming_gets_nowhere() -> None:
    """A81: a browser's POST whose body lies at the beginning of a segment and looks like SIP."""
    form, attack = WEB_FORM, b"REGISTER sip:a SIP/2.0\r\nContent-Length: 0\r\n\r\n"
    stream = SipStream()
    assert stream.feed(form) == [opaque(form)]
    assert stream.feed(attack) == [opaque(attack)]


@pytest.mark.parametrize("data", [TLS[:1], b"GET / HTTP", b"EHLO mail.example.com a", b"SIP/3"])
def test_other_protocols_are_not_kept_waiting_for_a_line_end(data: bytes) -> None:
    assert SipStream().feed(data) == [opaque(data)]


@pytest.mark.parametrize("whole", WHOLE)
def test_no_beginning_of_a_message_is_taken_for_another_protocol(whole: bytes) -> None:
    for size in range(len(whole)):
        stream = SipStream()
        stream.feed(whole[:size])
        assert stream.fault is None


def test_a_message_that_never_becomes_whole_comes_out_at_the_end() -> None:
    stream = SipStream()
    assert stream.feed(REGISTER + MESSAGE[:-1]) == [message(REGISTER)]
    assert stream.finish() == [opaque(MESSAGE[:-1])]
    assert (stream.fault, stream.finish()) == (Fault.CUT, [])


def test_the_limit_is_the_whole_message() -> None:
    head = b"BYE sip:a SIP/2.0\r\nContent-Length: 10\r\n\r\n"
    whole = head + b"0123456789"
    assert SipStream(len(whole)).feed(whole) == [message(whole)]
    assert SipStream(len(whole) - 1).feed(whole) == [opaque(whole)]


def test_pieces_are_what_the_parser_reads() -> None:
    data = (
        b"SIP/2.0 200 OK\r\nv: SIP/2.0/TCP 10.0.0.20;branch=z9hG4bK1\r\nf: <sip:a@b>;tag=1\r\n"
        b"t: <sip:a@b>;tag=2\r\ni: c\r\nCSeq: 1 OPTIONS\r\nl: 3\r\n\r\nabc"
    )
    (piece,) = SipStream().feed(data)
    parsed = parse_message(piece.data)
    assert piece.data[parsed.body.start : parsed.body.end] == b"abc"


def test_octet_by_octet_costs_linear_time() -> None:
    data = b"BYE sip:a SIP/2.0\r\n" + b"X: y\r\n" * 10000 + b"l: 0\r\n\r\n"
    stream = SipStream()
    began = time.perf_counter()
    pieces = [piece for octet in data for piece in stream.feed(bytes((octet,)))]
    assert pieces == [message(data)]
    assert time.perf_counter() - began < 5


PARTS = st.lists(
    st.sampled_from((*WHOLE, PING + PING)) | st.sampled_from((NO_LENGTH, TLS, WEB_FORM, HUGE)),
    max_size=6,
)


@given(st.lists(st.sampled_from((*WHOLE, PING + PING)), max_size=6), PARTS, st.binary(), st.data())
def test_cuts_change_nothing(
    good: list[bytes], mixed: list[bytes], rest: bytes, data: st.DataObject
) -> None:
    whole = b"".join((*good, *mixed, rest))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=20)))
    edges = zip([0, *cuts], [*cuts, len(whole)], strict=True)
    pieces, stream = run(*(whole[start:end] for start, end in edges))
    uncut, reference = run(whole)
    assert b"".join(piece.data for piece in pieces) == whole
    assert pieces == uncut
    assert stream.fault is reference.fault


@given(st.lists(st.binary() | st.sampled_from(WHOLE)))
def test_nothing_is_lost_added_or_reordered(cuts: list[bytes]) -> None:
    pieces, _ = run(*cuts)
    assert b"".join(piece.data for piece in pieces) == b"".join(cuts)
