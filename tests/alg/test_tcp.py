"""SIP over TCP as the engine sees it: what a URI's transport means, and who keeps what mapped.

The relay maps what a phone connects from before the first message (`Playbook.connect`); everything
else is the engine's: the ports that Contacts advertise, and dialogs that go on over another
transport.
"""

from __future__ import annotations

import pytest

from alg.datagram import Datagram
from alg.dialogs.linger import FLOW
from alg.verdict import Reason, Verdict
from nat_table.binding import Kind
from nat_table.endpoint import Endpoint, Transport
from tests.alg.playbook import (
    EXTERNAL,
    PHONE,
    PHONE_2,
    SERVER,
    Playbook,
    invite,
    register,
    request,
    response,
    sdp,
)

TCP, UDP = Transport.TCP, Transport.UDP
SOURCE = Endpoint("10.0.0.20", 40000)
SOURCE_2 = Endpoint("10.0.0.21", 40000)
SIPS = b"<sips:alice@10.0.0.20>"
FROM_SERVER = Endpoint(SERVER.address, 33000)


def over_tcp(message: bytes, contact: str = ";transport=tcp") -> bytes:
    """Returns a phone's message as it writes it over TCP, with such parameters in its Contact."""
    message = message.replace(b"SIP/2.0/UDP", b"SIP/2.0/TCP")
    return message.replace(b":5060>\r\n", f":5060{contact}>\r\n".encode())


def connected(source: Endpoint = SOURCE) -> Playbook:
    play = Playbook()
    play.connect(str(source))
    return play


def owners(play: Playbook, internal: str, transport: Transport) -> set[str]:
    binding = play.binding(internal, transport)
    assert binding is not None
    return {pinhole.owner.scope for pinhole in play.table.pinholes(binding)}


def contact_of(payload: bytes) -> str:
    line = next(line for line in payload.split(b"\r\n") if line.startswith(b"Contact:"))
    return line.decode()


@pytest.mark.parametrize(
    ("contact", "udp"),
    [
        (";transport=tcp", {}),
        (";transport=TCP;ob", {}),
        (";transport=udp", {"10.0.0.20:5060": "203.0.113.1:5060"}),
        ("", {"10.0.0.20:5060": "203.0.113.1:5060"}),
    ],
)
def test_a15_over_tcp_a_contact_is_mapped_for_the_transport_it_names(
    contact: str, udp: dict[str, str]
) -> None:
    """A Contact that names none means UDP (RFC 3263 §4.1), or the connection: it gets both."""
    play = connected()
    outcome = play.outbound(over_tcp(register(), contact), SOURCE, transport=TCP)
    assert contact_of(outcome.payload) == f"Contact: <sip:alice@203.0.113.1:5060{contact}>"
    assert play.mappings(transport=TCP).keys() == {"10.0.0.20:40000", "10.0.0.20:5060"}
    assert play.mappings(transport=UDP) == udp


def test_a15_over_udp_a_contact_may_name_tcp() -> None:
    play = Playbook()
    outcome = play.outbound(over_tcp(register()).replace(b"2.0/TCP", b"2.0/UDP"))
    assert contact_of(outcome.payload) == "Contact: <sip:alice@203.0.113.1:5060;transport=tcp>"
    assert play.mappings(transport=TCP) == play.mappings(transport=UDP)
    assert play.mappings(transport=UDP) == {"10.0.0.20:5060": "203.0.113.1:5060"}


@pytest.mark.parametrize("is_tcp_taken", [False, True])
def test_a15_both_transports_of_a_contact_get_one_port(is_tcp_taken: bool) -> None:
    play = connected()
    play.connect(str(SOURCE_2))
    taken = ";transport=tcp" if is_tcp_taken else ";transport=udp"
    play.outbound(over_tcp(register(PHONE_2), taken), SOURCE_2, transport=TCP)
    outcome = play.outbound(over_tcp(register(), ""), SOURCE, transport=TCP)
    both = {play.mappings(transport=each)["10.0.0.20:5060"] for each in (UDP, TCP)}
    assert len(both) == 1 and both != {"203.0.113.1:5060"}
    assert contact_of(outcome.payload) == f"Contact: <sip:alice@{both.pop()}>"


def test_a15_a_new_contact_gets_one_port_though_its_own_is_taken() -> None:
    play = connected()
    play.outbound(register(PHONE_2), PHONE_2)
    message = over_tcp(register(), "").replace(b"TCP 10.0.0.20:5060", b"TCP 10.0.0.20:40000")
    outcome = play.outbound(message, SOURCE, transport=TCP)
    both = {play.mappings(transport=each)["10.0.0.20:5060"] for each in (UDP, TCP)}
    assert len(both) == 1 and both != {"203.0.113.1:5060"}
    assert contact_of(outcome.payload) == f"Contact: <sip:alice@{both.pop()}>"


@pytest.mark.parametrize("transport", ["tls", "ws", "WSS", "sctp", "tls-sctp", "new"])
@pytest.mark.parametrize("carrier", [UDP, TCP])
def test_a16_a88_contacts_for_other_transports_are_left(transport: str, carrier: Transport) -> None:
    play = connected()
    parameter = f";transport={transport}"
    message = over_tcp(register(), parameter)
    if carrier is UDP:
        message = message.replace(b"2.0/TCP", b"2.0/UDP")
    source = SOURCE if carrier is TCP else PHONE
    outcome = play.outbound(message, source, transport=carrier)
    assert contact_of(outcome.payload) == f"Contact: <sip:alice@10.0.0.20:5060{parameter}>"


def test_a16_sips_over_tcp_means_tls_over_tcp() -> None:
    """RFC 5630 §3.1.1: the port is mapped, what runs over it is nobody's business."""
    play = connected()
    message = over_tcp(register()).replace(b"<sip:alice@10.0.0.20:5060;transport=tcp>", SIPS)
    outcome = play.outbound(message, SOURCE, transport=TCP)
    assert contact_of(outcome.payload) == "Contact: <sips:alice@203.0.113.1>"
    assert play.mappings(transport=TCP)["10.0.0.20:5061"] == "203.0.113.1:5061"
    assert not play.mappings(transport=UDP)


def test_a26_a_registration_keeps_the_contact_and_the_connection_itself() -> None:
    play = connected()
    sent = play.outbound(over_tcp(register()), SOURCE, transport=TCP)
    granted = response(sent.payload, 200, contact=f"{contact_of(sent.payload)[9:]};expires=600")
    arrived = play.arrive(granted, "203.0.113.1:40000", transport=TCP)
    assert contact_of(arrived.payload)[9:] == (
        "<sip:alice@10.0.0.20:5060;transport=tcp>;expires=600"
    )
    assert owners(play, "10.0.0.20:40000", TCP) == {"connection"}
    assert play.remotes("10.0.0.20:5060", TCP) == [SERVER.address]
    play.disconnect("10.0.0.20:40000")
    assert play.mappings() == {"10.0.0.20:5060": "203.0.113.1:5060"}
    play.wait(599)
    assert play.mappings() == {"10.0.0.20:5060": "203.0.113.1:5060"}
    play.wait(2)
    assert not play.mappings()


@pytest.mark.parametrize("is_learnt", [False, True])
def test_a25_a_contact_may_name_the_connection(is_learnt: bool) -> None:
    """By its internal endpoint, or by what received and rport said of it."""
    play = connected()
    binding = play.connect(str(SOURCE))
    own = str(binding.external if is_learnt else SOURCE)
    message = over_tcp(register()).replace(b"sip:alice@10.0.0.20:5060", f"sip:alice@{own}".encode())
    sent = play.outbound(message, SOURCE, transport=TCP)
    assert contact_of(sent.payload) == "Contact: <sip:alice@203.0.113.1:40000;transport=tcp>"
    granted = response(sent.payload, 200, contact=f"{contact_of(sent.payload)[9:]};expires=600")
    arrived = play.arrive(granted, "203.0.113.1:40000", transport=TCP)
    assert contact_of(arrived.payload).startswith(f"Contact: <sip:alice@{own};")
    assert owners(play, str(SOURCE), TCP) == {"connection", "registration"}


def test_plain_traffic_by_a_connection_keeps_nothing() -> None:
    play = connected()
    for payload in (b"\r\n\r\n", b"\0\0\0\0", request("OPTIONS", uri="sip:a").split(b"\r\n")[0]):
        play.outbound(payload, SOURCE, transport=TCP)
    assert owners(play, str(SOURCE), TCP) == {"connection"}


def test_plain_traffic_by_a_connection_keeps_no_mapping_of_the_same_port() -> None:
    play = connected(PHONE)
    play.outbound(register())
    play.wait(200)
    play.outbound(b"\r\n\r\n", PHONE, transport=TCP)
    play.wait(150)
    assert not play.mappings(transport=UDP)


@pytest.mark.parametrize("uri", ["sip:alice@203.0.113.1:5060", "sip:alice@203.0.113.1"])
@pytest.mark.parametrize("contact", ["", ";transport=tcp"])
def test_a19_a_request_by_tcp_reaches_the_contact(uri: str, contact: str) -> None:
    play = connected()
    play.outbound(over_tcp(register(), contact), SOURCE, transport=TCP)
    message = request("OPTIONS", SERVER, uri=uri + contact).replace(b"2.0/UDP", b"2.0/TCP")
    arrived = play.arrive(message, "203.0.113.1:5060", FROM_SERVER, transport=TCP)
    port = ":5060" if uri.endswith("5060") else ""
    first = f"OPTIONS sip:alice@10.0.0.20{port}{contact} SIP/2.0"
    assert arrived.payload.split(b"\r\n")[0].decode() == first


def test_a13_a_via_of_another_transport_is_not_this_hops() -> None:
    play = connected()
    outcome = play.outbound(register(), SOURCE, transport=TCP)
    assert b"Via: SIP/2.0/UDP 10.0.0.20:5060" in outcome.payload
    assert play.mappings(transport=TCP).keys() == {"10.0.0.20:40000", "10.0.0.20:5060"}


@pytest.mark.parametrize("hop", ["SCTP", "TLS", "TLS-SCTP", "WS", "DCCP", "new"])
@pytest.mark.parametrize("carrier", [UDP, TCP])
def test_a_via_of_what_is_not_spoken_here_is_left(hop: str, carrier: Transport) -> None:
    play = connected()
    message = request("OPTIONS").replace(b"SIP/2.0/UDP", f"SIP/2.0/{hop}".encode())
    outcome = play.outbound(message, SOURCE if carrier is TCP else PHONE, transport=carrier)
    assert f"Via: SIP/2.0/{hop} 10.0.0.20:5060;".encode() in outcome.payload
    assert contact_of(outcome.payload) == "Contact: <sip:alice@203.0.113.1:5060>"


@pytest.mark.parametrize("field", ["Record-Route", "Path", "Route", "Service-Route", "Refer-To"])
def test_a18_routing_fields_go_by_the_transport_they_name(field: str) -> None:
    """A PBX behind the router, which is named over both transports."""
    play = connected()
    line = f"{field}: <sip:10.0.0.20:5070;transport=tcp;lr>, <sip:10.0.0.20:5072;transport=udp;lr>"
    sent = play.outbound(over_tcp(invite(PHONE, "", line)), SOURCE, transport=TCP)
    mapped = f"{field}: <sip:203.0.113.1:5070;transport=tcp;lr>, "
    assert f"{mapped}<sip:203.0.113.1:5072;transport=udp;lr>".encode() in sent.payload
    assert play.mappings(transport=UDP) == {"10.0.0.20:5072": "203.0.113.1:5072"}
    assert play.mappings(transport=TCP)["10.0.0.20:5070"] == "203.0.113.1:5070"


def test_a25_two_phones_behind_one_number_keep_their_own_spelling() -> None:
    """One has it for TCP and leaves its port out, the other for UDP and writes it."""
    play = connected()
    play.connect("10.0.0.22:5060")
    bare = over_tcp(register()).replace(b"10.0.0.20:5060;transport", b"10.0.0.20;transport")
    first = play.outbound(bare, SOURCE, transport=TCP)
    number = int(play.mappings(transport=TCP)["10.0.0.20:5060"].rpartition(":")[2])
    play.table.bind(
        UDP, PHONE_2, Kind.SIP, FLOW, now=play.now, expires_at=play.now + 300, wanted=number
    )
    second = play.outbound(register(PHONE_2, call_id="registration-2"), PHONE_2)
    assert f"@203.0.113.1:{number}>" in contact_of(second.payload)
    for sent, transport, contact in (
        (first.payload, TCP, "<sip:alice@10.0.0.20;transport=tcp>"),
        (second.payload, UDP, "<sip:alice@10.0.0.21:5060>"),
    ):
        answer = response(sent, 200, contact=contact_of(sent)[9:])
        arrived = play.arrive(answer, f"203.0.113.1:{number}", transport=transport)
        assert contact_of(arrived.payload)[9:] == contact


@pytest.mark.parametrize(("first", "then"), [(UDP, TCP), (TCP, UDP)])
def test_a_dialog_may_go_on_over_another_transport(first: Transport, then: Transport) -> None:
    """State is the dialog's: an INVITE by one transport, a longer one and the BYE by the other."""
    play = connected()

    def send(message: bytes, by: Transport) -> bytes:
        message = over_tcp(message) if by is TCP else message
        outcome = play.outbound(message, SOURCE if by is TCP else PHONE, transport=by)
        assert outcome.verdict is Verdict.REWRITTEN, outcome
        return outcome.payload

    def answer(to: bytes, by: Transport, *, body: str = "") -> None:
        at = "203.0.113.1:40000" if by is TCP else "203.0.113.1:5060"
        message = response(to, 200, body=body, contact="<sip:bob@203.0.113.10>")
        arrived = play.arrive(message, at, transport=by)
        assert b"10.0.0.20:5060" in arrived.payload, "the phone knows its Via again"

    sent = send(invite(PHONE, sdp("10.0.0.20", 4000)), first)
    answer(sent, first, body=sdp(SERVER.address, 7000))
    assert play.mappings("rtp") == {"10.0.0.20:4000": "203.0.113.1:4000"}
    video = "m=video 4002 RTP/AVP 31"
    body = sdp("10.0.0.20", 4000, video, version=2)
    again = send(invite(PHONE, body, cseq=2, to_tag="b"), then)
    assert b"Content-Length: 116\r\n" in again, "112 as the phone wrote it"
    answer(again, then, body=sdp(SERVER.address, 7000, "m=video 7002 RTP/AVP 31", version=2))
    assert play.mappings("rtp").keys() == {"10.0.0.20:4000", "10.0.0.20:4002"}
    assert owners(play, str(SOURCE), TCP) == {"connection"}
    bye = send(request("BYE", to_tag="b", cseq=3), then)
    answer(bye, then)
    assert not play.mappings("rtp")


def test_a_call_in_over_tcp_ends_by_a_bye_over_udp() -> None:
    play = connected()
    play.outbound(over_tcp(register(), ""), SOURCE, transport=TCP)
    invited = request(
        "INVITE", SERVER, sdp(SERVER.address, 7000), uri="sip:alice@203.0.113.1:5060"
    ).replace(b"2.0/UDP", b"2.0/TCP")
    arrived = play.arrive(invited, "203.0.113.1:5060", FROM_SERVER, transport=TCP)
    accepted = response(
        arrived.payload, 200, body=sdp("10.0.0.20", 4000), contact="<sip:alice@10.0.0.20:5060>"
    )
    # By the connection of the request, whose inner end is the Contact itself.
    sent = play.outbound(accepted, PHONE, FROM_SERVER, transport=TCP)
    assert b"m=audio 4000 " in sent.payload and b"10.0.0.20" not in sent.payload
    play.arrive(request("BYE", SERVER, uri="sip:alice@203.0.113.1:5060", to_tag="b", cseq=2))
    play.outbound(response(request("BYE", SERVER, to_tag="b", cseq=2), 200))
    assert not play.mappings("rtp")


def test_a33_what_a_phone_wrote_over_tcp_moves_with_the_address() -> None:
    play = connected()
    play.connect("10.0.0.22:5060")
    message = over_tcp(register()).replace(b"10.0.0.20:5060;rport", b"10.0.0.20;rport")
    play.outbound(message, SOURCE, transport=TCP)
    moved = play.table.move(EXTERNAL, "203.0.113.2", play.now)
    play.gateway.move_address(EXTERNAL, "203.0.113.2", moved)
    number = play.mappings(transport=TCP)["10.0.0.20:5060"].rpartition(":")[2].encode()
    answer = response(message, 200).replace(b"10.0.0.20;rport", b"203.0.113.2:%b;rport" % number)
    arrived = play.arrive(answer, "203.0.113.2:40000", transport=TCP)
    assert b"Via: SIP/2.0/TCP 10.0.0.20;rport" in arrived.payload


def test_a_message_that_the_kernel_refuses_leaves_nothing() -> None:
    play = connected()
    outcome = play.gateway.receive(
        Datagram(SOURCE, SERVER, over_tcp(register()), transport=TCP), play.now
    )
    assert play.gateway.roll_back(outcome).reason is Reason.COMMIT_FAILED
    assert play.mappings() == {"10.0.0.20:40000": "203.0.113.1:40000"}
