"""Media over TCP: mapped where the phone is the one that waits to be connected to (A53).

RFC 4145 says who connects ("setup"), RFC 4975 and 6135 for MSRP, RFC 4583 for BFCP, RFC 4571 for
RTP; what is not said is "active" in an offer and "passive" in an answer.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from alg.gateway_settings import GatewaySettings
from alg.verdict import Outcome, Reason
from nat_table.endpoint import Endpoint, Transport
from tests.alg.playbook import EXTERNAL, PHONE, SERVER, Playbook, invite, request, response, sdp

SETTINGS = GatewaySettings((EXTERNAL,), has_tcp_media=True)
REMOTE = "198.51.100.7"
MSRP = "a=path:msrp://10.0.0.20:7394/s1;tcp"


def offer(*attributes: str, port: int = 7394, protocol: str = "TCP/MSRP") -> str:
    """Renders the phone's description: one stream over TCP."""
    return sdp("10.0.0.20", port, *attributes, media="message", protocol=protocol)


def remote(*attributes: str, port: int = 9000, protocol: str = "TCP/MSRP", version: int = 1) -> str:
    return sdp(REMOTE, port, *attributes, media="message", protocol=protocol, version=version)


def call_out(body: str, answer: str = "", *, play: Playbook | None = None) -> Playbook:
    """Has the phone offer, and the server accept with a description if there is one."""
    play = play or Playbook(settings=SETTINGS)
    sent = play.outbound(invite(PHONE, body))
    assert sent.reason is Reason.REWRITTEN, sent
    if answer:
        play.arrive(response(sent.payload, 200, body=answer, contact="<sip:b@203.0.113.10>"))
        play.wait(6)
    return play


def call_in(body: str, answer: str) -> tuple[Playbook, Outcome]:
    """Has the server offer, and the phone accept."""
    play = Playbook(settings=SETTINGS)
    play.outbound(request("REGISTER", uri="sip:203.0.113.10"))
    invited = request("INVITE", SERVER, body, uri="sip:alice@203.0.113.1:5060")
    arrived = play.arrive(invited)
    accepted = response(arrived.payload, 200, body=answer, contact=f"<sip:alice@{PHONE}>")
    outcome = play.outbound(accepted)
    play.wait(6)
    return play, outcome


def listening(play: Playbook) -> dict[str, str]:
    return play.mappings("media", Transport.TCP)


MAPPED = {"10.0.0.20:7394": "203.0.113.1:7394"}


@pytest.mark.parametrize("setup", ["passive", "actpass", "PASSIVE"])
def test_a53_a_phone_that_waits_is_mapped(setup: str) -> None:
    play = Playbook(settings=SETTINGS)
    other = call_out(offer("a=setup:passive"), play=Playbook(settings=SETTINGS, seed=2))
    assert listening(other) == MAPPED
    sent = play.outbound(invite(PHONE, offer(f"a=setup:{setup}", MSRP)))
    assert b"m=message 7394 TCP/MSRP" in sent.payload
    assert b"a=path:msrp://203.0.113.1:7394/s1;tcp" in sent.payload
    assert listening(play) == MAPPED
    assert play.mappings(transport=Transport.UDP).keys() == {"10.0.0.20:5060"}


def test_a53_another_port_is_written_in_m_and_in_the_path() -> None:
    play = Playbook(settings=SETTINGS)
    play.connect("10.0.0.21:7394")
    sent = play.outbound(invite(PHONE, offer("a=setup:passive", MSRP)))
    port = listening(play)["10.0.0.20:7394"].rpartition(":")[2].encode()
    assert port != b"7394"
    assert b"m=message %b TCP/MSRP" % port in sent.payload
    assert b"a=path:msrp://203.0.113.1:%b/s1;tcp" % port in sent.payload


def test_a53_of_cema_only_the_lines_are_edited_that_say_where_to_connect() -> None:
    """RFC 6714: c= and m= say where to connect, the path is only compared."""
    play = Playbook(settings=SETTINGS)
    play.connect("10.0.0.21:7394")
    sent = play.outbound(invite(PHONE, offer("a=setup:passive", MSRP, "a=msrp-cema")))
    assert MSRP.encode() in sent.payload and b"m=message 7394 " not in sent.payload


@pytest.mark.parametrize(
    ("lines", "port"),
    [
        (("a=setup:active",), 9),
        (("a=setup:active",), 7394),
        (("a=setup:holdconn",), 7394),
        ((), 7394),
        (("a=setup:passive",), 9),
        (("a=setup:passive",), 0),
    ],
)
def test_a53_a_phone_that_connects_is_not_mapped(lines: tuple[str, ...], port: int) -> None:
    play = call_out(offer(*lines, port=port))
    assert not listening(play)


def test_a53_nothing_is_mapped_unless_it_is_allowed() -> None:
    play = Playbook(settings=replace(SETTINGS, has_tcp_media=False))
    sent = play.outbound(invite(PHONE, offer("a=setup:passive", MSRP)))
    assert b"c=IN IP4 203.0.113.1" in sent.payload
    assert b"a=path:msrp://203.0.113.1:7394/s1;tcp" in sent.payload
    assert not listening(play)


def test_setup_may_stand_before_the_streams() -> None:
    body = offer().replace("t=0 0", "t=0 0\na=setup:passive")
    assert listening(call_out(body)) == MAPPED


@pytest.mark.parametrize(
    ("setup", "is_kept"),
    [
        ("a=setup:active", True),
        ("a=setup:passive", False),
        ("a=setup:holdconn", False),
        ("", False),
    ],
)
def test_the_answer_to_actpass_decides(setup: str, is_kept: bool) -> None:
    play = call_out(offer("a=setup:actpass"), remote(*filter(None, [setup])))
    assert listening(play) == (MAPPED if is_kept else {})


@pytest.mark.parametrize("setup", ["a=setup:active", ""])
def test_a_phone_that_offers_to_wait_is_kept(setup: str) -> None:
    play = call_out(offer("a=setup:passive"), remote(*filter(None, [setup]), port=9))
    assert listening(play) == MAPPED


def test_a_rejected_stream_is_let_go() -> None:
    assert not listening(call_out(offer("a=setup:passive"), remote(port=0)))


@pytest.mark.parametrize(
    ("theirs", "ours", "is_mapped"),
    [
        ("", "", True),
        ("a=setup:active", "a=setup:passive", True),
        ("a=setup:actpass", "a=setup:passive", True),
        ("a=setup:actpass", "a=setup:active", False),
        ("a=setup:passive", "a=setup:active", False),
        ("a=setup:holdconn", "a=setup:holdconn", False),
    ],
)
def test_a53_a_phone_that_answers_waits_unless_it_says_otherwise(
    theirs: str, ours: str, is_mapped: bool
) -> None:
    play, outcome = call_in(remote(*filter(None, [theirs])), offer(*filter(None, [ours]), MSRP))
    assert listening(play) == (MAPPED if is_mapped else {})
    assert b"a=path:msrp://203.0.113.1:7394/" in outcome.payload


def test_a53_an_answer_in_an_ack_is_one() -> None:
    play = Playbook(settings=SETTINGS)
    sent = play.outbound(invite())
    arrived = response(sent.payload, 200, body=remote(), contact="<sip:b@203.0.113.10>")
    play.arrive(arrived)
    play.outbound(request("ACK", PHONE, offer(), to_tag="b"))
    assert listening(play) == MAPPED


@pytest.mark.parametrize("port", [9, 9000])
def test_who_may_connect_is_what_the_other_side_says(port: int) -> None:
    play = call_out(offer("a=setup:passive"), remote("a=setup:active", port=port))
    assert play.remotes("10.0.0.20:7394", Transport.TCP) == [REMOTE]


@pytest.mark.parametrize("protocol", ["TCP/MSRP", "TCP/RTP/AVP"])
def test_the_call_keeps_it_and_its_end_lets_go(protocol: str) -> None:
    play = Playbook(settings=SETTINGS)
    play.connect("10.0.0.21:7394")
    play.connect("10.0.0.21:7395")
    answer = remote("a=setup:active", port=9, protocol=protocol)
    call_out(offer("a=setup:passive", protocol=protocol), answer, play=play)
    play.wait(3600)
    mapped = listening(play)
    assert mapped and mapped != MAPPED
    play.restart()
    body = offer("a=setup:passive", MSRP, protocol=protocol)
    again = request("INVITE", PHONE, body, to_tag="b", cseq=2)
    before = play.outbound(again)
    play.arrive(response(before.payload, 200, body=answer))
    bye = request("BYE", to_tag="b", cseq=3)
    play.arrive(response(play.outbound(bye).payload, 200))
    assert not listening(play)
    assert play.outbound(again).payload == before.payload, "a late retransmission reads the same"
    assert not listening(play)


def test_what_a_held_call_is_connected_by_stays() -> None:
    """On a new offer the phone may name port 9 and go on with the connection that it has."""
    play = call_out(offer("a=setup:passive"), remote("a=setup:active", port=9))
    body = offer("a=setup:active", "a=connection:existing", port=9)
    sent = play.outbound(request("INVITE", PHONE, body, to_tag="b", cseq=2))
    play.arrive(response(sent.payload, 200, body=remote("a=setup:passive", version=2)))
    play.wait(60)
    assert listening(play) == MAPPED


def test_calls_with_media_are_reviewed() -> None:
    play = call_out(offer("a=setup:passive"), remote("a=setup:active", port=9))
    play.wait(7200)
    assert play.review("10.0.0.20:7394") == ["10.0.0.20:7394"]
    play.wait(200)
    assert listening(play) == MAPPED


@pytest.mark.parametrize(("port", "reason"), [(80, Reason.DENIED_PORT), (7394, Reason.REWRITTEN)])
def test_a81_denied_ports_are_denied_for_tcp_too(port: int, reason: Reason) -> None:
    play = Playbook(settings=SETTINGS)
    sent = play.outbound(invite(PHONE, offer("a=setup:passive", port=port)))
    assert sent.reason is reason
    denied = Playbook(settings=replace(SETTINGS, denied_ports=frozenset({7394})))
    sent = denied.outbound(invite(PHONE, offer("a=setup:passive")))
    assert sent.reason is Reason.DENIED_PORT and not denied.mappings()


@pytest.mark.parametrize("accepted", [0, 1])
def test_a52_fax_may_be_offered_over_both_transports_of_one_port(accepted: int) -> None:
    play = Playbook(settings=SETTINGS)
    lines = ("m=image 7394 TCP t38", "a=setup:passive")
    body = sdp("10.0.0.20", 7394, *lines, media="image", protocol="udptl")
    sent = play.outbound(invite(PHONE, body))
    ports = (9000, 0) if accepted == 0 else (0, 9000)
    answer = sdp(REMOTE, ports[0], f"m=image {ports[1]} TCP t38", media="image", protocol="udptl")
    assert play.mappings("rtp") == listening(play) == MAPPED
    play.arrive(response(sent.payload, 200, body=answer, contact="<sip:b@203.0.113.10>"))
    play.wait(6)
    kept = play.mappings("rtp"), listening(play)
    assert kept == ((MAPPED, {}) if accepted == 0 else ({}, MAPPED))


def test_rtp_over_tcp_has_rtcp_on_the_next_port() -> None:
    play = Playbook(settings=SETTINGS)
    play.connect("10.0.0.21:4001")
    body = sdp("10.0.0.20", 4000, "a=setup:passive", protocol="TCP/RTP/AVP")
    sent = play.outbound(invite(PHONE, body))
    rtcp = listening(play)["10.0.0.20:4001"].rpartition(":")[2]
    assert listening(play)["10.0.0.20:4000"] == "203.0.113.1:4000"
    assert f"a=setup:passive\r\na=rtcp:{rtcp}\r\n".encode() in sent.payload


def test_c_counts_for_streams_over_tcp_and_udp() -> None:
    play = Playbook(settings=SETTINGS)
    lines = ("m=message 7394 TCP/MSRP *", "a=setup:passive", MSRP)
    play.outbound(invite(PHONE, sdp("10.0.0.20", 4000, *lines)))
    assert play.mappings("rtp") == {"10.0.0.20:4000": "203.0.113.1:4000"}
    assert listening(play) == MAPPED


def test_a55_who_begins_dtls_is_another_matter() -> None:
    """RFC 5763: over UDP both sides send, whatever a=setup says."""
    body = sdp("10.0.0.20", 4000, "a=setup:actpass", protocol="UDP/TLS/RTP/SAVP")
    answer = sdp(REMOTE, 9000, "a=setup:passive", protocol="UDP/TLS/RTP/SAVP")
    play = call_out(body, answer)
    assert play.mappings("rtp") == {"10.0.0.20:4000": "203.0.113.1:4000"}


def test_a59_a_routed_phone_that_waits_is_opened_for() -> None:
    play = Playbook(settings=SETTINGS, mode6="pinhole")
    phone = Endpoint("2001:db8:1::20", 5060)
    body = offer("a=setup:passive", MSRP.replace("10.0.0.20", "[2001:db8:1::20]"))
    body = body.replace("IP4 10.0.0.20", "IP6 2001:db8:1::20")
    message = invite(phone, body)
    sent = play.outbound(message, phone, Endpoint("2001:db8:2::10", 5060))
    assert sent.payload == message
    assert listening(play) == {"[2001:db8:1::20]:7394": "[2001:db8:1::20]:7394"}
