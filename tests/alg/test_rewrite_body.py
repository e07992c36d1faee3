"""Bodies through the whole gateway: multipart, signed and encoded ones, and Content-Length."""

from __future__ import annotations

import re

import pytest

from alg.sip.message import parse_message
from alg.verdict import Reason
from tests.alg.playbook import PHONE, Playbook, crlf, invite, request, response, sdp, sip

BEFORE = """\
v=0
o=- 1 1 IN IP4 10.0.0.20
s=call of 10.0.0.20
c=IN IP4 10.0.0.20
t=0 0
m=audio 4000 RTP/AVP 0
"""
AFTER = BEFORE.replace("IN IP4 10.0.0.20", "IN IP4 203.0.113.1")


def body_of(payload: bytes) -> str:
    """Returns the body that Content-Length covers, as text with plain line ends."""
    message = parse_message(payload)
    return payload[slice(*message.body)].decode().replace("\r\n", "\n")


def multipart(*parts: tuple[str, str], boundary: str = "b") -> bytes:
    """Encodes parts given as headers and content."""
    text = "".join(f"--{boundary}\n{head}\n\n{content}\n" for head, content in parts)
    return crlf(f"{text}--{boundary}--\n")


def multipart_invite(body: bytes, kind: str = "multipart/mixed") -> bytes:
    return sip(
        f"""
        INVITE sip:bob@example.com SIP/2.0
        Via: SIP/2.0/UDP 10.0.0.20:5060;branch=z9hG4bKa
        From: <sip:alice@example.com>;tag=1
        To: <sip:bob@example.com>
        Call-ID: m
        CSeq: 1 INVITE
        Content-Type: {kind};boundary="b"
        """,
        body,
    )


SDP_PART = ("Content-Type: application/sdp\nContent-ID: <1@10.0.0.20>", BEFORE)


def test_a10_a01_each_description_of_a_multipart_is_edited() -> None:
    other = (
        "Content-Type: application/ISUP;base=x\nContent-Transfer-Encoding: binary",
        "c=IN IP4 10.0.0.20",
    )
    pidf = ("Content-Type: application/pidf+xml", f"<x>{BEFORE}</x>")
    inner = multipart(SDP_PART, other, boundary="i").decode().replace("\r\n", "\n")
    nested = ('Content-Type: multipart/alternative; boundary="i"', inner)
    coded = (SDP_PART[0] + "\nContent-Transfer-Encoding: binary", SDP_PART[1])
    body = multipart(other, SDP_PART, pidf, nested, coded)
    outcome = Playbook().outbound(multipart_invite(body))
    text = body.decode().replace("\r\n", "\n")
    assert body_of(outcome.payload) == text.replace(f"{BEFORE}\n--", f"{AFTER}\n--")


def test_a10_an_encoded_body_is_left_and_counted() -> None:
    message = invite(PHONE, BEFORE, "Content-Encoding: gzip")
    outcome = Playbook().outbound(message)
    assert outcome.reason is Reason.ENCODED_BODY
    assert body_of(outcome.payload) == BEFORE
    assert b"Via: SIP/2.0/UDP 203.0.113.1:5060" in outcome.payload


@pytest.mark.parametrize(
    "line",
    [
        'Authorization: Digest username="a",\r\n qop=auth-int, nc=1',
        'proxy-authorization : Digest qop="auth-int"',
        'Authorization: Digest uri="sip:x", QOP = auth-int',
    ],
)
def test_a89_a_digest_over_the_body_leaves_it(line: str) -> None:
    message = invite(PHONE, BEFORE, line)
    outcome = Playbook().outbound(message)
    assert outcome.reason is Reason.SIGNED
    assert {edit.what for edit in outcome.edits} == {"via", "contact"}


@pytest.mark.parametrize(
    "line",
    ['WWW-Authenticate: Digest qop="auth,auth-int"', "Authorization: Digest qop=auth, x=auth-int"],
)
def test_a89_a_digest_over_the_headers_does_not(line: str) -> None:
    outcome = Playbook().outbound(invite(PHONE, BEFORE, line))
    assert outcome.reason is Reason.REWRITTEN
    assert body_of(outcome.payload) == AFTER


@pytest.mark.parametrize("kind", ["multipart/signed", "Multipart/Signed"])
def test_a89_a_signed_body_is_left(kind: str) -> None:
    outcome = Playbook().outbound(multipart_invite(multipart(SDP_PART), kind))
    assert outcome.reason is Reason.SIGNED
    assert [edit.what for edit in outcome.edits] == ["via"]


def test_a89_an_rfc_4474_identity_covers_contact_and_body() -> None:
    message = invite(PHONE, BEFORE, 'Identity: "CyI4+nAkHrH3ntmaxgr01TMxTmtjP7MASwliNRdupRI1="')
    outcome = Playbook().outbound(message)
    assert outcome.reason is Reason.SIGNED
    assert [edit.what for edit in outcome.edits] == ["via"]


@pytest.mark.parametrize("count", [1, 2])
def test_a90_a_passport_covers_neither(count: int) -> None:
    lines = ["Identity: eyJhbGciOi.eyJhdHRlc3.sig;info=<https://cert.example.org/a.cer>"] * count
    outcome = Playbook().outbound(invite(PHONE, BEFORE, *lines))
    assert body_of(outcome.payload) == AFTER


@pytest.mark.parametrize("method", ["MESSAGE", "PUBLISH", "OPTIONS", "NOTIFY", "FOO"])
def test_a67_bodies_of_other_methods_are_left(method: str) -> None:
    outcome = Playbook().outbound(request(method, PHONE, BEFORE))
    assert {edit.what for edit in outcome.edits} == {"via", "contact"}
    assert body_of(outcome.payload) == BEFORE


@pytest.mark.parametrize("method", ["INVITE", "UPDATE", "PRACK", "ACK"])
def test_a47_offers_and_answers_of_any_method(method: str) -> None:
    outcome = Playbook().outbound(request(method, PHONE, BEFORE, to_tag="b"))
    assert body_of(outcome.payload) == AFTER


def test_a02_no_content_length_is_added() -> None:
    message = re.sub(rb"Content-Length: [0-9]+\r\n", b"", invite(PHONE, BEFORE))
    assert b"Length" not in message
    outcome = Playbook().outbound(message)
    assert b"Length" not in outcome.payload
    assert body_of(outcome.payload) == AFTER


def test_a11_bytes_behind_the_body_stay() -> None:
    tail = b"c=IN IP4 10.0.0.20\r\n\x00\xff"
    outcome = Playbook().outbound(invite(PHONE, BEFORE) + tail)
    assert outcome.payload.endswith(tail)
    assert body_of(outcome.payload) == AFTER


def test_what_the_other_side_says_about_its_media_is_left() -> None:
    play = Playbook()
    offer = play.outbound(invite(PHONE, BEFORE)).payload
    answer = response(offer, 200, body=sdp("203.0.113.1", 4000, "a=rtcp:4001"))
    outcome = play.inbound(answer)
    assert [edit.what for edit in outcome.edits] == ["via"]
