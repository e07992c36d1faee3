"""parse_message: what it reads of a message, what it takes as it comes, and what it refuses."""

from __future__ import annotations

import pytest

from alg.sip.message import Malformed, NotSip, SipMessage, parse_message
from tests.alg.playbook import crlf, invite, response, sdp, sip

INVITE = """
    INVITE sip:bob@example.com SIP/2.0
    Via: SIP/2.0/UDP 10.0.0.20:5060;branch=z9hG4bKa
    From: "Alice" <sip:alice@example.com>;tag=1
    To: <sip:bob@example.com>
    Call-ID: call@10.0.0.20
    CSeq: 7 INVITE
    """
OK = """
    SIP/2.0 200 OK
    Via: SIP/2.0/UDP 10.0.0.20:5060;branch=z9hG4bKa
    From: <sip:alice@example.com>;tag=1
    To: <sip:bob@example.com>;tag=2
    Call-ID: call@10.0.0.20
    CSeq: 7 INVITE
    """


def with_lines(text: str, *lines: str) -> bytes:
    """Returns the message with header lines added."""
    return sip(text.rstrip() + "".join(f"\n    {line}" for line in lines))


def without(message: bytes, name: bytes) -> bytes:
    lines = message.split(b"\r\n")
    return b"\r\n".join(line for line in lines if not line.startswith(name))


def values(message: SipMessage, name: str) -> list[bytes]:
    return [message.data[f.start : f.end] for f in message.fields if f.name == name]


def test_a_request_is_read() -> None:
    message = parse_message(sip(INVITE, sdp("10.0.0.20", 4000)))
    assert message.is_request
    assert (message.method, message.status, message.cseq) == (b"INVITE", 0, 7)
    assert message.call_id == b"call@10.0.0.20"
    assert (message.from_tag, message.to_tag) == (b"1", b"")
    assert message.branch == b"z9hG4bKa"
    assert message.data[slice(*message.request_uri)] == b"sip:bob@example.com"
    assert message.data[slice(*message.body)] == crlf(sdp("10.0.0.20", 4000))


def test_a_response_is_read() -> None:
    message = parse_message(sip(OK))
    assert not message.is_request
    assert (message.method, message.status, message.cseq) == (b"INVITE", 200, 7)
    assert (message.from_tag, message.to_tag) == (b"1", b"2")


def test_a07_compact_names_are_the_long_ones() -> None:
    message = parse_message(
        sip(
            """
            INVITE sip:bob@example.com SIP/2.0
            v: SIP/2.0/UDP 10.0.0.20;branch=z9hG4bKa
            f: <sip:alice@example.com>;tag=1
            t: <sip:bob@example.com>
            i: compact
            CSeq: 1 INVITE
            m: <sip:alice@10.0.0.20>
            r: <sip:carol@10.0.0.20>
            c: application/sdp
            e: gzip
            x: 1800
            y: "signed"
            l: ?
            """,
            b"12345",
        )
    )
    assert message.call_id == b"compact"
    assert values(message, "contact") == [b"<sip:alice@10.0.0.20>"]
    assert values(message, "refer-to") == [b"<sip:carol@10.0.0.20>"]
    assert message.value("content-type") == b"application/sdp"
    assert message.value("content-encoding") == b"gzip"
    assert message.seconds("session-expires") == 1800
    assert message.value("identity") == b'"signed"'
    assert message.body[1] - message.body[0] == 5


def test_a08_case_folds_and_white_space_do_not_matter() -> None:
    message = parse_message(
        b"invite sip:bob@example.com sip/2.0\r\n"
        b"VIA \t:\r\n SIP/2.0/UDP\r\n\t10.0.0.20\r\n"
        b"fRoM:<sip:alice@example.com>\r\n ;\r\n tag = 1\r\n"
        b"TO\t: Bob\r\n <sip:bob@example.com>\r\n"
        b"call-id:   folded\r\n"
        b"CSEQ:  0009\r\n   invite\r\n"
        b"contact:\r\n  <sip:a@10.0.0.20>,\r\n <sip:b@10.0.0.20>\r\n\r\n"
    )
    assert (message.method, message.cseq, message.from_tag) == (b"invite", 9, b"1")
    assert message.call_id == b"folded"
    assert values(message, "contact") == [b"\r\n  <sip:a@10.0.0.20>,\r\n <sip:b@10.0.0.20>"]


def test_a08_bare_line_feeds_end_lines_too() -> None:
    data = sip(INVITE, "v=0\n").replace(b"\r\n", b"\n").replace(b"Length: 5", b"Length: 4")
    message = parse_message(data)
    assert data[slice(*message.body)] == b"v=0\n"


@pytest.mark.parametrize("lead", [b"\r\n", b"\r\n\r\n", b"\n", b"\n\r\n\n"])
def test_leading_line_breaks_are_skipped(lead: bytes) -> None:
    assert parse_message(lead + sip(INVITE)).method == b"INVITE"


def test_a02_without_content_length_the_body_is_the_rest() -> None:
    data = sip(INVITE, "v=0\n", has_length=False)
    assert data[slice(*parse_message(data).body)] == b"v=0\r\n"


def test_a11_what_follows_the_body_is_none_of_it() -> None:
    data = sip(INVITE, "v=0\n") + b"trailing"
    assert data[slice(*parse_message(data).body)] == b"v=0\r\n"


def test_a08_unknown_methods_and_fields_are_read_as_any() -> None:
    data = sip(INVITE).replace(b"INVITE", b"!interesting-Method0123456789_*+`.%indeed'~")
    message = parse_message(
        data.replace(b"CSeq", b"NewFangled: a\xff\x00 b\r\n c:d\r\nX-Y:\r\nCSeq")
    )
    assert message.method == b"!interesting-Method0123456789_*+`.%indeed'~"


def test_repeated_fields_stay_in_their_order() -> None:
    data = with_lines(INVITE, "Route: <sip:a>", "Contact: <sip:c>", "route: <sip:b>, <sip:d>")
    assert values(parse_message(data), "route") == [b"<sip:a>", b"<sip:b>, <sip:d>"]


@pytest.mark.parametrize(
    ("field", "seconds"),
    [("3600", 3600), ("0", 0), (" 60 ", 60), ("60;refresher=uac", 60), ("soon", None)],
)
def test_seconds_are_read(field: str, seconds: int | None) -> None:
    message = parse_message(with_lines(INVITE, f"Expires: {field}"))
    assert message.seconds("expires") == seconds
    assert message.seconds("session-expires") is None


@pytest.mark.parametrize("line", ["SIP/2.0 200", "SIP/2.0 200 ", "sip/2.0 200 \u00d6k \u041e"])
def test_a_reason_phrase_may_be_anything_or_nothing(line: str) -> None:
    assert parse_message(sip(OK).replace(b"SIP/2.0 200 OK", line.encode(), 1)).status == 200


def test_tags_are_read_of_the_field_not_of_uri_or_display_name() -> None:
    data = sip(INVITE).replace(
        b'"Alice" <sip:alice@example.com>;tag=1', b'";tag=2" <sip:a@b;tag=3>;x="y" ; TAG=4'
    )
    assert parse_message(data).from_tag == b"4"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\r\n\r\n",
        b"\0\0\0\0",
        b"jaK\0",
        b"hello",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x00\x01\x00\x00\x21\x12\xa4\x42" + bytes(12),
        b"\x80\x00" + bytes(170),
        b"\x16\x03\x01\x02\x00\x01",
        b"INVITE sip:bob@example.com\r\n\r\n",
        b" " + sip(INVITE),
    ],
)
def test_a72_what_does_not_begin_like_sip_is_not_sip(data: bytes) -> None:
    with pytest.raises(NotSip):
        parse_message(data)


def changed(old: bytes, new: bytes, message: bytes = sip(INVITE)) -> bytes:
    assert old in message
    return message.replace(old, new, 1)


@pytest.mark.parametrize(
    ("what", "data"),
    [
        ("start line", changed(b" SIP/2.0\r\n", b" SIP/7.0\r\n")),
        ("start line", changed(b" SIP/2.0\r\n", b" SIP/2.0 \r\n")),
        ("start line", changed(b"INVITE sip", b"INVITE  sip")),
        ("start line", changed(b"bob@", b"bob @")),
        ("start line", changed(b"sip:bob@example.com", b"<sip:bob@example.com>")),
        ("start line", changed(b" 200 ", b" 20 ", sip(OK))),
        ("start line", changed(b" 200 ", b" 700 ", sip(OK))),
        ("start line", changed(b" 200 ", b" 2000 ", sip(OK))),
        ("header block", changed(b"\r\n\r\n", b"")),
        ("header block", changed(b"To:", b"To")),
        ("header block", changed(b"To:", b"T o:")),
        ("header block", changed(b"To:", b":")),
        ("header block", changed(b"Via", b" Via")),
        ("no Via", without(sip(INVITE), b"Via")),
        ("no from", without(sip(INVITE), b"From")),
        ("no to", without(sip(INVITE), b"To")),
        ("no call-id", without(sip(INVITE), b"Call-ID")),
        ("no call-id", changed(b"call@10.0.0.20", b" ")),
        ("no cseq", without(sip(INVITE), b"CSeq")),
        ("Via", changed(b"SIP/2.0/UDP", b"SIP/2.0")),
        ("From", changed(b'"Alice"', b'"Alice')),
        ("To", changed(b"<sip:bob@example.com>\r\n", b"<sip:bob@example.com>, <sip:x>\r\n")),
        ("CSeq", changed(b"7 INVITE", b"INVITE")),
        ("CSeq", changed(b"7 INVITE", b"2147483648 INVITE")),
        ("CSeq", changed(b"7 INVITE", b"36893488147419103232 INVITE")),
        ("CSeq", changed(b"7 INVITE", b"-7 INVITE")),
        ("CSeq names", changed(b"7 INVITE", b"7 NEWMETHOD")),
        ("magic cookie", changed(b"z9hG4bKa", b"z9hG4bK")),
        ("from stands twice", with_lines(INVITE, "f: <sip:x@y>")),
        ("call-id stands twice", with_lines(INVITE, "i: other")),
        ("cseq stands twice", with_lines(INVITE, "CSeq: 7 INVITE")),
        ("content-length stands twice", with_lines(INVITE, "l: 1", "Content-Length: 0")),
        ("content-length stands twice", with_lines(INVITE, "l: 0", "Content-Length: 0")),
        ("content-length", with_lines(INVITE, "Content-Length: -1")),
        ("content-length", with_lines(INVITE, "Content-Length: many")),
        ("content-length", with_lines(INVITE, "Content-Length:")),
        ("content-length", with_lines(INVITE, "Content-Length: 00000000000")),
        ("beyond", with_lines(INVITE, "Content-Length: 1")),
        ("beyond", with_lines(INVITE, "Content-Length: 9999999999")),
        ("max-forwards", with_lines(INVITE, "Max-Forwards: 256")),
        ("max-forwards", with_lines(INVITE, "Max-Forwards: many")),
        ("expires", with_lines(INVITE, "Expires: 4294967296")),
        ("date", with_lines(INVITE, "Date: Fri, 01 Jan 2010 16:00:00 EST")),
    ],
)
def test_a03_what_breaks_the_grammar_is_named(what: str, data: bytes) -> None:
    with pytest.raises(Malformed, match=what):
        parse_message(data)


@pytest.mark.parametrize("method", ["INVITE", "REGISTER", "FOO"])
def test_every_cut_of_a_message_is_refused_or_whole(method: str) -> None:
    data = response(invite(body=sdp("10.0.0.20", 4000)).replace(b"INVITE", method.encode()))
    for length in range(len(data)):
        if not data[:length].endswith(b"\n") or length > data.index(b"\r\n\r\n") + 2:
            with pytest.raises((NotSip, Malformed)):
                parse_message(data[:length])
    assert parse_message(data).method == method.encode()


def test_a_datagram_may_end_with_its_last_field() -> None:
    whole = sip(INVITE)
    head = whole[: whole.index(b"\r\n\r\n") + 2]
    assert parse_message(head).body == (len(head), len(head))


def test_a90_several_passports_are_legal() -> None:
    parse_message(
        with_lines(INVITE, "Identity: e30.e30.a;info=<x>", "Identity: e30.e30.b;info=<x>")
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"CSeq: 7", b"CSeq:\r\n 7"),
        (b"CSeq: 7", b"Date:\r\n Fri, 01 Jan 2010 16:00:00 GMT\r\nCSeq: 7"),
    ],
)
def test_a08_a_value_may_begin_on_a_folded_line(old: bytes, new: bytes) -> None:
    parse_message(changed(old, new))
