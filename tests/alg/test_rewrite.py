"""Headers through the whole gateway: what is edited in which direction, and what never is."""

from __future__ import annotations

import textwrap

import pytest

from alg.datagram import Side
from alg.sip.span import apply_edits
from alg.verdict import Outcome, Reason, Verdict
from nat_table.endpoint import Endpoint
from tests.alg.playbook import (
    PHONE,
    PHONE_2,
    SERVER,
    Playbook,
    invite,
    register,
    request,
    response,
    sdp,
    sip,
)

INVITE = """
    INVITE sip:bob@example.com SIP/2.0
    Via: SIP/2.0/UDP 10.0.0.20:5060;rport;branch=z9hG4bKa
    From: <sip:alice@10.0.0.20>;tag=10.0.0.20
    To: <sip:bob@10.0.0.20:5060>
    Call-ID: 10.0.0.20:5060@10.0.0.20
    CSeq: 1 INVITE
    """


def with_lines(*lines: str, text: str = INVITE) -> bytes:
    """Returns a message with header lines added."""
    return sip("\n".join((textwrap.dedent(text).strip(), *lines)))


def edited(outcome: Outcome) -> list[str]:
    """Returns the fields that were edited, in order."""
    return [edit.what for edit in outcome.edits]


def expect(outcome: Outcome, before: bytes, *changes: tuple[bytes, bytes]) -> None:
    """Asserts that the outcome is `before` with exactly these replacements, each made once."""
    expected = before
    for old, new in changes:
        assert expected.count(old) == 1, old
        expected = expected.replace(old, new)
    assert outcome.payload == expected
    assert outcome.payload == apply_edits(before, outcome.edits)
    is_same = not changes
    assert outcome.verdict is (Verdict.UNCHANGED if is_same else Verdict.REWRITTEN)


VIA = (b"UDP 10.0.0.20:5060", b"UDP 203.0.113.1:5060")


def test_a04_a05_a14_an_edit_is_a_token_and_the_rest_stays() -> None:
    message = with_lines(
        'Contact: "10.0.0.20:5060" <sip:10.0.0.20@10.0.0.20:5060;x=10.0.0.20>;y="10.0.0.20"',
        "User-Agent: phone at 10.0.0.20:5060",
        "Subject: Via: SIP/2.0/UDP 10.0.0.20",
        "P-Asserted-Identity: <sip:alice@10.0.0.20:5060>",
        "Warning: 399 10.0.0.20 text",
        "Replaces: 10.0.0.20;to-tag=a;from-tag=10.0.0.20",
        "Referred-By: <sip:alice@10.0.0.20:5060>",
        'Authorization: Digest uri="sip:10.0.0.20:5060", opaque="10.0.0.20"',
        "Call-Info: <http://10.0.0.20:5060/alice.png>",
        "Contact-Like: <sip:10.0.0.20:5060>",
        "X-Contact: <sip:10.0.0.20:5060>",
    )
    outcome = Playbook().outbound(message)
    expect(outcome, message, VIA, (b"@10.0.0.20:5060;x", b"@203.0.113.1:5060;x"))
    assert edited(outcome) == ["via", "contact"]


@pytest.mark.parametrize(
    "name", ["Record-Route", "Route", "Path", "Service-Route", "Refer-To", "Reply-To", "Contact"]
)
def test_a18_every_routing_field_that_names_the_phone_is_edited(name: str) -> None:
    message = with_lines(f"{name}: <sip:alice@10.0.0.20:5062;lr>")
    outcome = Playbook().outbound(message)
    expect(outcome, message, VIA, (b"@10.0.0.20:5062", b"@203.0.113.1:5062"))


@pytest.mark.parametrize("name", ["Via", "Contact", "Route", "Record-Route", "Refer-To"])
@pytest.mark.parametrize("host", ["10.0.0.21", "10.0.0.2", "110.0.0.20", "198.51.100.7", "pbx.lan"])
def test_a12_a82_other_hosts_are_left(name: str, host: str) -> None:
    value = f"SIP/2.0/UDP {host}" if name == "Via" else f"<sip:alice@{host};lr>"
    message = with_lines(f"{name}: {value}")
    play = Playbook()
    expect(play.outbound(message), message, VIA)
    assert play.mappings() == {"10.0.0.20:5060": "203.0.113.1:5060"}


def test_a91_the_request_uri_of_an_outbound_request_is_left() -> None:
    message = request("OPTIONS", uri="sip:10.0.0.20:5060")
    outcome = Playbook().outbound(message)
    assert outcome.payload.startswith(b"OPTIONS sip:10.0.0.20:5060 SIP/2.0\r\n")


def test_a20_all_own_vias_are_edited_and_each_is_restored() -> None:
    message = with_lines(
        "Via: SIP/2.0/UDP 10.0.0.30:5060;branch=z9hG4bKb, SIP/2.0/UDP 10.0.0.20:5070;branch=c",
        "v: SIP/2.0/TCP 10.0.0.20:5070",
    )
    play = Playbook()
    sent = play.outbound(message)
    second = (b"UDP 10.0.0.20:5070", b"UDP 203.0.113.1:5070")
    expect(sent, message, VIA, second)
    answer = response(sent.payload, 200)
    expect(play.inbound(answer), answer, VIA[::-1], second[::-1])


def test_a15_contact_on_another_port_than_the_source_gets_its_own_mapping() -> None:
    message = with_lines("Contact: <sip:alice@10.0.0.20:5090>, <sip:alice@10.0.0.20>;q=0.5")
    play = Playbook()
    outcome = play.outbound(message, Endpoint("10.0.0.20", 49152))
    changes = (b"@10.0.0.20:5090>", b"@203.0.113.1:5090>"), (b"@10.0.0.20>;q", b"@203.0.113.1>;q")
    expect(outcome, message, VIA, *changes)
    ports = (5060, 5090, 49152)
    assert play.mappings() == {f"10.0.0.20:{port}": f"203.0.113.1:{port}" for port in ports}


def test_a21_the_source_port_and_the_via_port_are_both_open() -> None:
    play = Playbook()
    play.outbound(with_lines(), Endpoint("10.0.0.20", 49200))
    assert set(play.mappings("sip")) == {"10.0.0.20:5060", "10.0.0.20:49200"}


def test_a23_two_phones_on_one_port_get_two_mappings() -> None:
    play = Playbook()
    first = play.outbound(register(PHONE))
    second = play.outbound(register(PHONE_2), PHONE_2)
    external = play.mappings()["10.0.0.21:5060"]
    assert external != "203.0.113.1:5060"
    assert edited(first) == ["via", "contact"]
    assert edited(second) == ["via", "via", "contact", "contact"]
    for sent, phone in ((first, PHONE), (second, PHONE_2)):
        answer = response(sent.payload, 200)
        assert play.inbound(answer, phone).payload == response(register(phone), 200)


def test_a25_the_registrars_list_of_contacts_is_restored() -> None:
    play = Playbook()
    asked = '"A, \\"B\\"" <sip:alice@10.0.0.20:5060;line=1>;+sip.instance="<urn:uuid:1>";q=0.5'
    message = with_lines(f"Contact: {asked}", text=INVITE.replace("INVITE", "REGISTER"))
    sent = play.outbound(message)
    listed = asked.replace("10.0.0.20", "203.0.113.1")
    foreign = "<sip:alice@198.51.100.7:5060>, <sip:alice@203.0.113.1:9>, <sip:alice@10.0.0.20>"
    answer = response(sent.payload, 200, contact=f"{foreign}, {listed};expires=60")
    restored = (b"alice@203.0.113.1:5060;line", b"alice@10.0.0.20:5060;line")
    expect(play.inbound(answer), answer, VIA[::-1], restored)


def test_a26_a_wildcard_contact_stays() -> None:
    message = with_lines("Contact: *", "Expires: 0", text=INVITE.replace("INVITE", "REGISTER"))
    expect(Playbook().outbound(message), message, VIA)


@pytest.mark.parametrize("name", ["Via: SIP/2.0/UDP 10.0.0.20", "v:SIP/2.0/UDP 10.0.0.20"])
@pytest.mark.parametrize("is_first", [True, False])
def test_a13_a_sent_by_without_port_comes_back_without(name: str, is_first: bool) -> None:
    play = Playbook()
    if not is_first:
        play.outbound(register(PHONE_2), PHONE_2)
    message = with_lines(f"{name};branch=z9hG4bKb").replace(b":5060;rport", b"")
    sent = play.outbound(message)
    port = b"" if is_first else b":" + play.mappings()["10.0.0.20:5060"].encode().split(b":")[1]
    assert b"UDP 203.0.113.1" + port + b";branch" in sent.payload
    answer = response(sent.payload, 200)
    assert play.inbound(answer).payload == response(message, 200)


def test_a13_received_and_rport_stay_as_the_server_wrote_them() -> None:
    play = Playbook()
    sent = play.outbound(with_lines())
    written = sent.payload.replace(b";rport", b";received=203.0.113.1;rport=5060")
    answer = response(written, 200)
    expect(play.inbound(answer), answer, VIA[::-1])


def test_a19_inbound_requests_reach_the_phone() -> None:
    play = Playbook()
    play.outbound(register(PHONE))
    message = sip(
        """
        BYE sip:alice@203.0.113.1:5060;ob SIP/2.0
        Via: SIP/2.0/UDP 203.0.113.10;branch=z9hG4bKs
        Route: <sip:203.0.113.1:5060;lr>, <sip:203.0.113.1:7777;lr>
        Record-Route: <sip:203.0.113.10;lr>
        From: <sip:bob@203.0.113.1:5060>;tag=b
        To: <sip:alice@203.0.113.1:5060>;tag=a
        Call-ID: x
        CSeq: 2 BYE
        Contact: <sip:bob@203.0.113.1:5060>
        """
    )
    changes = (
        (b"BYE sip:alice@203.0.113.1", b"BYE sip:alice@10.0.0.20"),
        (
            b"Route: <sip:203.0.113.1:5060",
            b"Route: <sip:10.0.0.20:5060",
        ),
    )
    expect(play.arrive(message), message, *changes)


def test_a19_a_mapping_of_another_phone_is_not_restored() -> None:
    play = Playbook()
    play.outbound(register(PHONE_2), PHONE_2)
    play.outbound(register(PHONE))
    message = request("OPTIONS", SERVER, uri="sip:alice@203.0.113.1:5060")
    expect(play.inbound(message, PHONE), message)


def test_a14_a_response_of_the_phone_keeps_the_vias_it_copied() -> None:
    play = Playbook()
    play.outbound(register(PHONE))
    asked = request("INVITE", SERVER, uri="sip:alice@203.0.113.1:5060")
    arrived = play.arrive(asked).payload
    answer = response(arrived, 200, contact="<sip:alice@10.0.0.20:5060>")
    answer = answer.replace(b";rport", b";received=10.0.0.20;rport")
    outcome = play.outbound(answer)
    expect(outcome, answer, (b"alice@10.0.0.20:5060", b"alice@203.0.113.1:5060"))


def test_a07_compact_headers() -> None:
    message = sip(
        """
        INVITE sip:bob@example.com SIP/2.0
        v: SIP/2.0/UDP 10.0.0.20:5060;branch=z9hG4bKa
        f: <sip:alice@10.0.0.20>;tag=1
        t: <sip:bob@10.0.0.20>
        i: 10.0.0.20
        CSeq: 1 INVITE
        m: <sip:alice@10.0.0.20:5062>
        r: <sip:carol@10.0.0.20:5064>
        c: application/sdp
        l: ?
        """,
        sdp("10.0.0.20", 4000, origin="198.51.100.7"),
    )
    outcome = Playbook().outbound(message)
    changes = (
        (b"m: <sip:alice@10.0.0.20", b"m: <sip:alice@203.0.113.1"),
        (
            b"carol@10.0.0.20",
            b"carol@203.0.113.1",
        ),
    )
    body = (b"c=IN IP4 10.0.0.20", b"c=IN IP4 203.0.113.1"), (b"l: 90", b"l: 92")
    expect(outcome, message, VIA, *changes, *body)


def test_a08_folded_headers_and_odd_white_space() -> None:
    message = with_lines(
        'cOnTaCt \t:\r\n\t"A"\r\n <sip:alice@10.0.0.20:5060>\r\n ;\r\n expires = 60 ,\r\n'
        " sip:bob@10.0.0.20;expires=5",
    ).replace(b"/UDP 10.0.0.20:5060", b" / UDP\r\n 10.0.0.20\t:\r\n 5060")
    outcome = Playbook().outbound(message)
    via = (b"UDP\r\n 10.0.0.20\t", b"UDP\r\n 203.0.113.1\t")
    contacts = (
        (b"alice@10.0.0.20:5060>\r\n", b"alice@203.0.113.1:5060>\r\n"),
        (
            b"bob@10.0.0.20;",
            b"bob@203.0.113.1;",
        ),
    )
    expect(outcome, message, via, *contacts)


def test_a08_line_feeds_alone() -> None:
    message = invite(body=sdp("10.0.0.20", 4000, origin="198.51.100.7")).replace(b"\r\n", b"\n")
    message = message.replace(b"Length: 90", b"Length: 84")
    outcome = Playbook().outbound(message)
    contact = (b"<sip:alice@10.0.0.20", b"<sip:alice@203.0.113.1")
    body = (b"c=IN IP4 10.0.0.20", b"c=IN IP4 203.0.113.1"), (b"Length: 84", b"Length: 86")
    expect(outcome, message, VIA, contact, *body)


def test_a09_lists_repeats_and_quotes() -> None:
    message = with_lines(
        'Contact: "x, <sip:x@10.0.0.20>" <sip:a@10.0.0.20:5060>, <tel:+1555>, sip:y@10.0.0.20:5060',
        'Contact: "\\"" <sip:c@10.0.0.20:5060>',
    )
    outcome = Playbook().outbound(message)
    changes = [
        (b"%s@10.0.0.20:5060" % user, b"%s@203.0.113.1:5060" % user) for user in (b"a", b"y", b"c")
    ]
    expect(outcome, message, VIA, *changes)


@pytest.mark.parametrize(
    "contact",
    ["<sip:a@10.0.0.20;transport=ws>", "<sip:a@10.0.0.20;transport=WSS>", "<im:a@10.0.0.20>"],
)
def test_a16_web_socket_contacts_are_left(contact: str) -> None:
    message = with_lines(f"Contact: {contact}")
    expect(Playbook().outbound(message), message, VIA)


def test_a16_sips_in_the_clear_has_its_own_default_port() -> None:
    message = with_lines("Contact: <sips:alice@10.0.0.20>")
    play = Playbook()
    expect(play.outbound(message), message, VIA, (b"s:alice@10.0.0.20", b"s:alice@203.0.113.1"))
    assert play.binding("10.0.0.20:5061") is not None


def test_a17_a_phone_that_knows_its_external_address_is_left_alone() -> None:
    message = invite(Endpoint("203.0.113.1", 5060), sdp("203.0.113.1", 4000))
    play = Playbook()
    expect(play.outbound(message), message)
    assert play.mappings() == {}


def test_a59_ipv6_references_stay() -> None:
    message = with_lines("Contact: <sip:alice@[2001:db8::20]:5060>", "Route: <sip:[::1];lr>")
    expect(Playbook().outbound(message), message, VIA)


@pytest.mark.parametrize("port", [0, 65536, 70000, 99999])
def test_a06_impossible_ports_are_never_mapped(port: int) -> None:
    play = Playbook()
    outcome = play.outbound(with_lines(f"Contact: <sip:alice@10.0.0.20:{port}>"))
    assert b"<sip:alice@10.0.0.20:%d>" % port in outcome.payload
    assert set(play.mappings()) <= {"10.0.0.20:5060"}


def test_a81_a_port_below_1024_is_denied_and_nothing_is_left_behind() -> None:
    play = Playbook()
    message = with_lines("Contact: <sip:alice@10.0.0.20:80>")
    outcome = play.outbound(message)
    expect(outcome, message)
    assert outcome.reason is Reason.DENIED_PORT
    assert play.mappings() == {} and outcome.changes == ()


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\r\n",
        b"\r\n\r\n",
        bytes(4),
        b"jaK\0",
        b"\x80\x00" + bytes(170),
        b"x" * 9000,
        b"\x00\x01\x00\x00\x21\x12\xa4\x42" + bytes(12),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
    ],
)
def test_a72_a03_what_is_not_sip_passes_as_it_came(payload: bytes) -> None:
    play = Playbook()
    for outcome in (play.outbound(payload), play.inbound(payload), play.hairpin(payload)):
        expect(outcome, payload)
        assert outcome.reason in (Reason.KEEPALIVE, Reason.NOT_SIP)


def test_a92_what_is_not_translated_passes() -> None:
    message = invite()
    play = Playbook()
    for sides in ((Side.EXTERNAL, Side.EXTERNAL), (Side.OTHER, Side.EXTERNAL)):
        outcome = play.send(message, PHONE, SERVER, *sides)
        expect(outcome, message)
        assert outcome.reason is Reason.NOT_TRANSLATED


def test_a57_the_edits_of_a_hairpin_describe_it() -> None:
    play = Playbook()
    play.outbound(register(PHONE))
    play.outbound(register(PHONE_2), PHONE_2)
    external = play.mappings()["10.0.0.21:5060"]
    message = invite(PHONE, b"", f"Route: <sip:{external};lr>")
    outcome = play.hairpin(message)
    route = (b"<sip:" + external.encode(), b"<sip:10.0.0.21:5060")
    expect(outcome, message, VIA, (b"alice@10.0.0.20", b"alice@203.0.113.1"), route)


def test_same_request_same_answer() -> None:
    play = Playbook()
    play.outbound(register(PHONE_2), PHONE_2)
    message = invite(PHONE, sdp("10.0.0.20", 4000))
    first = play.outbound(message)
    play.wait(5)
    assert play.outbound(message).payload == first.payload


def test_a80_every_outcome_is_counted() -> None:
    play = Playbook()
    play.outbound(invite())
    play.outbound(b"SIP/2.0 200\r\n")
    play.inbound(b"hello")
    counted = {reason.value: count for reason, count in play.gateway.counters.items() if count}
    assert counted == {"rewritten": 1, "malformed": 1, "not-sip": 1}
